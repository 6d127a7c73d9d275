"""Versions of a dossier: what a round changed in the claims, and why it was allowed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import ReviewError
from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.review.history import last_round, ledger_path
from pellucid.evidence.review.records import Effect, Round
from pellucid.evidence.review.sealed import CLAIMS, read_claims

ERRATA = "errata.json"
"""[{"id": "E1", "claims": ["C3"], "text": "…"}]: changes that no referee asked for."""

_NOT_CONTENT = ("level",)
"""How far a claim was checked may rise without the claim having changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimChange:
    """A claim that differs from the one that was reviewed."""

    claim: str
    before: Mapping[str, Any] | None
    """None: it is new."""
    after: Mapping[str, Any] | None
    """None: it was withdrawn."""
    fields: tuple[str, ...]
    """Names of what differs; empty for a new or withdrawn claim."""
    cites: tuple[str, ...]
    """Points and errata that it goes back to."""


def claim_changes(dossier: Path) -> list[ClaimChange]:
    """What changed since the last round began, in the order of the claims."""
    current = last_round(dossier)
    return changes_between(current, read_claims(dossier / CLAIMS), read_errata(dossier))


def changes_between(
    current: Round, after: Mapping[str, Any], errata: list[dict[str, Any]]
) -> list[ClaimChange]:
    """`claim_changes` of values at hand."""
    found = []
    for claim in current.claims | after:
        old, new = current.claims.get(claim), after.get(claim)
        fields = _differing(old, new)
        if fields or old is None or new is None:
            cites = _citations(current, errata, claim)
            found.append(
                ClaimChange(claim=claim, before=old, after=new, fields=fields, cites=cites)
            )
    return found


def uncited_changes(dossier: Path) -> list[str]:
    """A line for every changed claim that cites neither a point nor an erratum."""
    return [
        f"claim {change.claim} {_how(change)} since round {last_round(dossier).number}, and cites"
        " no point"
        for change in claim_changes(dossier)
        if not change.cites
    ]


def check_citations(dossier: Path) -> None:
    """Raises ReviewError where a dossier under review changed a claim that cites nothing.

    What seals a new version asks this first.
    """
    if ledger_path(dossier).is_file() and (uncited := uncited_changes(dossier)):
        raise ReviewError(f"{uncited[0]}: answer the point that asked for it, or add an erratum")


def read_errata(dossier: Path) -> list[dict[str, Any]]:
    """The errata; none where there is no file. Raises ReviewError for what is no list of them."""
    path = dossier / ERRATA
    if not path.is_file():
        return []
    try:
        errata = parse_json(path.read_bytes())
    except JsonError as error:
        raise ReviewError(f"{ERRATA} is damaged ({error}): mend it") from None
    if not isinstance(errata, list):
        raise ReviewError(f"{ERRATA} is no list: write [{{id, claims, text}}]")
    for number, row in enumerate(errata, start=1):
        is_whole = (
            isinstance(row, dict)
            and isinstance(row.get("id"), str)
            and isinstance(row.get("claims"), list)
            and isinstance(row.get("text"), str)
            and row["text"].strip()
        )
        if not is_whole:
            raise ReviewError(f"{ERRATA} entry {number}: an erratum has id, claims and a text")
    return errata


def _differing(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> tuple[str, ...]:
    if old is None or new is None:
        return ()
    names = sorted((old.keys() | new.keys()) - set(_NOT_CONTENT))
    return tuple(name for name in names if old.get(name) != new.get(name))


def _citations(current: Round, errata: list[dict[str, Any]], claim: str) -> tuple[str, ...]:
    """An answer that says `kept` is no reason for a change."""
    points = [
        state.point.id
        for state in current.states
        if any(a["changes"].get(claim, Effect.KEPT) != Effect.KEPT for a in state.answers)
    ]
    return (*points, *(row["id"] for row in errata if claim in row["claims"]))


def _how(change: ClaimChange) -> str:
    if change.before is None:
        return "is new"
    if change.after is None:
        return "was withdrawn"
    return f"has another {' and '.join(change.fields[:2])}"
