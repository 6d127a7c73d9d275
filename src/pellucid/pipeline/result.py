"""result.json: what a run measured, for machines and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.evaluate.compare import compare
from pellucid.evaluate.records import EvalResult, arm_summary
from pellucid.evaluate.suites import Suite


def build_result(
    suites: Sequence[Suite],
    before: Mapping[str, EvalResult],
    after: Mapping[str, EvalResult],
    *,
    wall_s: float,
    device: str,
) -> dict[str, Any]:
    """The first suite is the headline; every suite has an entry under `suites`."""
    entries = [_entry(suite, before[suite.key], after.get(suite.key)) for suite in suites]
    headline = {k: entries[0][k] for k in ("suite", "before", "after", "difference")}
    return headline | {"suites": entries, "wall_s": round(wall_s, 2), "device": device}


def _entry(suite: Suite, before: EvalResult, after: EvalResult | None) -> dict[str, Any]:
    entry = {
        "suite": suite.label,
        "key": suite.key,
        "template": suite.template,
        "before": arm_summary(before),
        "after": None,
        "difference": None,
    }
    if after is None:
        return entry
    comparison = compare(before, after).to_dict()
    return entry | {
        "after": arm_summary(after),
        "difference": comparison["difference"],
        "comparison": comparison,
    }
