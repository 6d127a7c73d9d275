"""The table of clocks: at which a job ran, and whether its power limit held the chip back."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

HEAD = ("| job | clock | power | held back by the power limit |", "|---|---|---|---|")


def row(title: str, record: dict[str, Any]) -> str | None:
    """Medians over the repeats; None where none was sampled."""
    sampled = [repeat for repeat in record["repeats"] if "sm_mhz" in repeat]
    if not sampled:
        return None
    clock = median(repeat["sm_mhz"] for repeat in sampled)
    watts = median(repeat["watts"] for repeat in sampled)
    limited = mean(repeat["power_limited"] for repeat in sampled)
    return f"| {title} | {clock:,.0f} MHz | {watts:.0f} W | {limited:.0%} of the time |"
