"""A point's test: an expression over claims, evaluated on values recomputed from the samples.

Names are `C3.value`, `C3.low`, `C3.p_adj`, and of a view `C3.views.fresh.low`; `subsets` for
`views` and `ci95.low` for `low` are read as well, as referees write them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.errors import ReviewError
from pellucid.evidence.core.rules import RuleError, evaluate_rule, rule_names
from pellucid.evidence.review.numbers import recomputed
from pellucid.evidence.review.sealed import CLAIMS, read_claims

VIEWS = ("all", "clean", "post_cutoff", "fresh")
NUMBERS = ("value", "low", "high", "p", "p_adj", "n_items", "n_clusters", "n_samples")


class Retest(NamedTuple):
    """What a test gave."""

    holds: bool
    values: dict[str, float | None]
    """Every name in the test; None: there is no such number, for example no fresh item."""


class _Place(NamedTuple):
    claim: str
    view: str
    number: str


def check_test(test: str, claims: Collection[str]) -> None:
    """Raises ReviewError for an expression that could never be evaluated, saying why."""
    try:
        places = {name: _place(name, claims) for name in rule_names(test)}
        if not places:
            raise ReviewError("it names no claim, so nothing could turn it true")
        evaluate_rule(test, dict.fromkeys(places, 0.0))
    except RuleError as error:
        raise ReviewError(str(error)) from None
    except RecursionError:
        raise ReviewError("it has too many brackets") from None


def retest(dossier: Path, test: str) -> Retest:
    """Evaluate a test on the dossier as it is now. A name without a value makes it false.

    Raises ReviewError where a claim is gone or cannot be recomputed.
    """
    claims = read_claims(dossier / CLAIMS)
    check_test(test, claims)
    places = {name: _place(name, claims) for name in sorted(rule_names(test))}
    numbers = recomputed(dossier, {place.claim for place in places.values()})
    values = {name: _number(numbers[p.claim].get(p.view), p.number) for name, p in places.items()}
    if None in values.values():
        return Retest(False, values)
    return Retest(evaluate_rule(test, values), values)


def recompute(dossier: Path, claims: Iterable[str]) -> dict[str, float | None]:
    """`C3.value`, `C3.low` and `C3.high` of these claims, from the samples."""
    found = recomputed(dossier, set(claims))
    return {
        f"{claim}.{name}": _number(views["all"], name)
        for claim, views in sorted(found.items())
        for name in ("value", "low", "high")
    }


def _place(name: str, claims: Collection[str]) -> _Place:
    """`C3.subsets.fresh.ci95.low` -> (C3, fresh, low)."""
    claim, *path = name.split(".")
    if claim not in claims:
        raise ReviewError(f"there is no claim {claim!r}: there are {', '.join(claims)}")
    view = "all"
    if path and path[0] in ("views", "subsets"):
        view, path = (path[1] if len(path) > 1 else ""), path[2:]
        if view not in VIEWS:
            raise ReviewError(f"{name!r} names no view: there are {', '.join(VIEWS)}")
    if path and path[0] in ("reported", "ci95"):
        path = path[1:]
    if len(path) != 1 or path[0] not in NUMBERS:
        raise ReviewError(f"{name!r} names no number: there are {', '.join(NUMBERS)}")
    return _Place(claim, view, path[0])


def _number(printed: Mapping[str, Any] | None, name: str) -> float | None:
    value = printed.get(name) if printed else None
    return None if value is None else float(value)
