"""result.json of a pipeline: the stage table, models by suites, for machines and for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.evaluate.compare import compare
from pellucid.evaluate.records import EvalResult, arm_summary
from pellucid.evaluate.suites import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model of the table."""

    name: str
    """`base`, or the stage's name."""
    kind: str
    folder: str
    """`stages/01-zero`"""
    address: str
    seconds: float | None
    """Of all processes that worked on the stage; None: it only was measured."""
    results: Mapping[str, EvalResult]
    """By suite; baseline_only suites for the base alone."""


def build_table(
    rows: Sequence[Row], suites: Sequence[Suite], *, wall_s: float, device: str
) -> dict[str, Any]:
    """The first row is the base. Every model is compared with the base and with the row above."""
    return {
        "kind": "pipeline",
        "stages": [_row(i, rows, suites) for i in range(len(rows))],
        "table": [{"suite": s.label, "key": s.key} for s in suites],
        "wall_s": round(wall_s, 2),
        "device": device,
    }


def _row(index: int, rows: Sequence[Row], suites: Sequence[Suite]) -> dict[str, Any]:
    row, base = rows[index], rows[0]
    above = rows[index - 1] if index else None
    return {
        "name": row.name,
        "kind": row.kind,
        "folder": row.folder,
        "address": row.address,
        "seconds": row.seconds,
        "suites": {
            key: arm_summary(result)
            | {
                "from_base": _difference(base, row, key) if index else None,
                "from_above": _difference(above, row, key) if above else None,
            }
            for key, result in row.results.items()
        },
    }


def _difference(first: Row, second: Row, key: str) -> dict[str, Any] | None:
    """Paired by problem; None where either was not measured."""
    if key not in first.results or key not in second.results:
        return None
    return compare(first.results[key], second.results[key]).to_dict()
