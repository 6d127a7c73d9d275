"""What was aimed at, and what the newest stored measurement of each job reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HEAD = ("| job | aim | reached | of the aim | met |", "|---|---|---|---|---|")
GIB = 2**30

Record = Mapping[str, Any]
Read = Callable[[Record, float | None], float | None]
"""A record of this project and the best peer's figure on the same work -> the number aimed at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A number to reach on one H200.

    Example: Aim(job="step-0.5b", read=seconds, bound=7.0, is_most=True, form="{:.1f} s")
    """

    job: str
    read: Read
    bound: float
    form: str
    """How the number is written, here and in the aim."""
    is_most: bool = False
    """The number may be at most the bound; else at least."""
    what: str = ""
    """Of the job, where it has several numbers."""

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.is_most else value >= self.bound

    def share(self, value: float) -> str:
        """How near it is: 100 % and more is met."""
        if self.bound == 0 or value == 0:
            return "–"
        return f"{self.bound / value if self.is_most else value / self.bound:.0%}"


def speed(record: Record, peer: float | None) -> float | None:
    return record["tokens_per_s"]


def seconds(record: Record, peer: float | None) -> float | None:
    return record["median_s"]


def gibibytes(record: Record, peer: float | None) -> float | None:
    size = record.get("peak_reserved_bytes")
    return None if size is None else size / GIB


def times_peer(record: Record, peer: float | None) -> float | None:
    return None if peer is None else record["tokens_per_s"] / peer


def share_of_peer(record: Record, peer: float | None) -> float | None:
    return None if peer is None else record["median_s"] / peer


def utilisation(record: Record, peer: float | None) -> float | None:
    return 100 * record["details"]["mfu"]


def gap_near(record: Record, peer: float | None) -> float | None:
    return record["details"]["normal"]["mean_gap"]


def gap_exact(record: Record, peer: float | None) -> float | None:
    return record["details"]["exact"].get("mean_gap")


def cost_of_exactness(record: Record, peer: float | None) -> float | None:
    return record["details"].get("exact_time_ratio", {}).get("seconds")


def _rollout(job: str, bound: float) -> Aim:
    return Aim(job=f"rollout-{job}", read=speed, bound=bound, form="{:,.0f} tok/s")


def _training(shape: str, percent: float) -> Aim:
    return Aim(job=f"train-{shape}", read=utilisation, bound=percent, form="{:.1f} % MFU")


STEP = "step-0.5b"
AIMS = (
    _rollout("0.5b-64x16-128+512", 240_000),
    _rollout("0.5b-32x16-128+512", 200_000),
    _rollout("0.5b-512x1-128+512", 200_000),
    _rollout("0.5b-4x16-128+256", 60_000),
    _rollout("0.5b-64x1-128+256", 60_000),
    _rollout("1.5b-64x16-128+512", 130_000),
    _rollout("1.5b-32x16-128+512", 120_000),
    _rollout("7b-32x16-128+512", 38_000),
    _rollout("7b-4x16-128+256", 13_500),
    _rollout("7b-64x1-128+256", 13_500),
    Aim(job="mixed-0.5b", read=times_peer, bound=5, form="{:.1f} × vLLM"),
    Aim(job=STEP, read=seconds, bound=7, is_most=True, form="{:.1f} s"),
    Aim(job=STEP, read=gibibytes, bound=60, is_most=True, form="{:.0f} GiB", what="memory"),
    Aim(job="step-1.5b", read=share_of_peer, bound=0.25, is_most=True, form="{:.3g} of TRL + vLLM"),
    _training("0.5b", 45),
    _training("1.5b", 52),
    _training("7b", 55),
    Aim(job="gap-0.5b", read=gap_near, bound=0.002, is_most=True, form="{:.2g}",
        what="`exact = false`"),
    Aim(job="gap-0.5b", read=gap_exact, bound=0, is_most=True, form="{:.2g}", what="exact"),
    Aim(job="gap-0.5b", read=cost_of_exactness, bound=2.5, is_most=True, form="{:.2f} × the time",
        what="what `exact` costs"),
)  # fmt: skip
"""Of 512 and of 64 sequences the aim does not say how they are grouped by prompt: both ways."""


def row(
    aim: Aim, title: str, record: Record | None, near: Record | None, peer: float | None
) -> str:
    """One line. `record`: of the job as it is, None where there is none; `near`: the same without
    exactness; `peer`: the best peer's figure on the same work."""
    label = f"{title}: {aim.what}" if aim.what else title
    bound = ("≤ " if aim.is_most else "≥ ") + aim.form.format(aim.bound)
    value = _value(aim, record, peer)
    if value is None:
        return f"| {label} | {bound} | not measured | – | **no** |"
    reached, met = aim.form.format(value), "yes" if aim.is_met(value) else "**no**"
    other = _value(aim, near, peer)
    if other is not None:
        reached += f" (`exact = false`: {aim.form.format(other)})"
        if met != "yes" and aim.is_met(other):
            met = "with `exact = false`"
    if record is not None and record.get("settings", {}).get("has_optimizer") is False:
        met = "without optimiser"
    return f"| {label} | {bound} | {reached} | {aim.share(value)} | {met} |"


def _value(aim: Aim, record: Record | None, peer: float | None) -> float | None:
    return None if record is None else aim.read(record, peer)
