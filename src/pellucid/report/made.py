"""What the stages of a pipeline made beside models of language: curated sets and reward models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pellucid.curate.candidate import DropReason
from pellucid.errors import RunError
from pellucid.report.read import RunView, read_object

FILTERS_NAME = "filters.json"
ACCURACY_NAME = "accuracy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CuratedSet:
    """Where the samples of one stage went."""

    stage: str
    candidates: int
    dropped: dict[str, int]
    """Reason -> samples that fell to it, each counted once, for the first reason."""
    kept: int
    general: int
    """Examples beside them that were not sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRow:
    """One reward model on one set of held-out preferences or labels."""

    name: str
    measured_on: str
    accuracy: dict[str, Any]
    trivial: float
    """What needs no model: the longer answer, or the commoner label."""
    gain: dict[str, Any] | None
    """Paired difference to the longer answer; None for labels."""


def curated_sets(view: RunView) -> list[CuratedSet]:
    """Of every stage that has sampled. Raises RunError where a file is damaged."""
    found = []
    for stage in view.stages:
        path = stage.root / FILTERS_NAME
        if path.is_file():
            counts = read_object(path, ("candidates", "kept", "dropped"))
            found.append(
                CuratedSet(
                    stage=stage.stage_name,
                    candidates=counts["candidates"],
                    dropped=counts["dropped"],
                    kept=counts["kept"],
                    general=counts.get("general", 0),
                )
            )
    return found


def drop_reasons(sets: list[CuratedSet]) -> list[str]:
    """Reasons for which any sample fell, in the order in which they apply."""
    return [r.value for r in DropReason if any(s.dropped.get(r.value) for s in sets)]


def reward_rows(view: RunView) -> list[RewardRow]:
    """Every reward model on every set. Raises RunError where a file is damaged."""
    rows = []
    for stage in view.stages:
        path = stage.root / ACCURACY_NAME
        if not path.is_file():
            continue
        try:
            rows += [
                _row(name, measured_on, measured)
                for name, report in read_object(path, ()).items()
                for measured_on, measured in report.items()
                if isinstance(measured, dict)
            ]
        except (AttributeError, KeyError, TypeError):
            raise RunError(f"{path} does not measure reward models: restore it") from None
    return rows


def _row(name: str, measured_on: str, measured: dict[str, Any]) -> RewardRow:
    is_pairs = "length_only" in measured
    return RewardRow(
        name=name,
        measured_on=measured_on,
        accuracy=measured["accuracy"],
        trivial=measured["length_only"]["value"] if is_pairs else measured["majority_only"],
        gain=measured["gain_over_length"] if is_pairs else None,
    )
