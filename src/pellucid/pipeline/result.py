"""result.json: what a run measured, for machines and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.evaluate.compare import compare
from pellucid.evaluate.records import EvalResult, arm_summary
from pellucid.evaluate.suites import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a run leaves behind."""

    folder: Path
    report: Path
    result: dict[str, Any]


def build_result(
    suites: Sequence[Suite],
    before: Mapping[str, EvalResult],
    after: Mapping[str, EvalResult],
    *,
    wall_s: float,
    device: str,
) -> dict[str, Any]:
    """The first suite is the headline; every suite has an entry under `suites`."""
    entries = [_entry(suite, suites, before, after) for suite in suites]
    headline = {k: entries[0][k] for k in ("suite", "before", "after", "difference", "baselines")}
    return headline | {"suites": entries, "wall_s": round(wall_s, 2), "device": device}


def _entry(
    suite: Suite,
    suites: Sequence[Suite],
    before: Mapping[str, EvalResult],
    after: Mapping[str, EvalResult],
) -> dict[str, Any]:
    base, trained = before[suite.key], after.get(suite.key)
    entry = {
        "suite": suite.label,
        "key": suite.key,
        "template": suite.template,
        "before": arm_summary(base),
        "after": None,
        "difference": None,
        "baselines": [],
    }
    if trained is None:
        return entry
    return entry | {
        "after": arm_summary(trained),
        "difference": compare(base, trained).to_dict(),
        "baselines": [
            _baseline(other, before[other.key], trained) for other in _rivals(suite, suites)
        ],
    }


def _rivals(suite: Suite, suites: Sequence[Suite]) -> list[Suite]:
    """The base model on the same problems under another prompt: a gain has to beat the best."""
    ids = {p.id for p in suite.problems}
    return [s for s in suites if s.baseline_only and {p.id for p in s.problems} == ids]


def _baseline(other: Suite, base: EvalResult, trained: EvalResult) -> dict[str, Any]:
    return {
        "suite": other.label,
        "template": other.template,
        "before": arm_summary(base),
        "difference": compare(base, trained).to_dict(),
    }
