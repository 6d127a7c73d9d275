"""The state of every round, from the review ledger and the files whose digests it records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.errors import ReviewError
from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.review.records import (
    REFEREE_NAME,
    Point,
    PointKind,
    PointState,
    Report,
    Round,
    Severity,
    commitment,
)
from pellucid.evidence.review.sealed import REVIEWS, file_sha256, read_claims
from pellucid.evidence.review.signed import is_signed
from pellucid.ledger import Event, EventKind, verify_ledger

LEDGER_NAME = "ledger.jsonl"
SEAL_NAME = "manuscript.seal"
CLAIMS_NAME = "claims.json"


def ledger_path(dossier: Path) -> Path:
    """The diary of all rounds."""
    return dossier / REVIEWS / LEDGER_NAME


def round_folder(dossier: Path, number: int) -> Path:
    """`reviews/round-1`"""
    return dossier / REVIEWS / f"round-{number}"


def report_path(dossier: Path, number: int, referee: str) -> Path:
    """`reviews/round-1/R2.report.json`"""
    return round_folder(dossier, number) / f"{referee}.report.json"


def read_events(dossier: Path) -> list[Event]:
    """The review ledger; empty before the first round. Raises ReviewError where it is broken."""
    path, events = ledger_path(dossier), []
    if not path.is_file():
        return []
    problems = verify_ledger(path, into=events)
    if problems:
        raise ReviewError(f"{REVIEWS}/{problems[0]}: the review's ledger does not hold")
    return events


def read_rounds(dossier: Path) -> list[Round]:
    """All rounds, oldest first. Raises ReviewError for a file that is not the recorded one."""
    rounds: list[Round] = []
    for event in read_events(dossier):
        payload = event.payload
        try:
            if event.kind is EventKind.REVIEW_STARTED:
                rounds.append(_started(dossier, event, len(rounds) + 1))
            elif event.kind is EventKind.POINTS_IMPORTED:
                at = payload["round"] - 1
                rounds[at] = _imported(dossier, rounds[at], payload)
            elif event.kind in _CHANGES:
                at = payload["round"] - 1
                rounds[at] = _changed(rounds[at], event)
        except (KeyError, TypeError, IndexError, ValueError):
            where = f"{REVIEWS}/{LEDGER_NAME} line {event.serial + 1}"
            raise ReviewError(f"{where}: {event.kind} lacks what it needs") from None
    return rounds


def last_round(dossier: Path) -> Round:
    """The newest round. Raises ReviewError before the first."""
    rounds = read_rounds(dossier)
    if not rounds:
        raise ReviewError(f"no review of {dossier} has begun: `pellucid review start` it")
    return rounds[-1]


def report_from(value: Mapping[str, Any]) -> Report:
    """A report from the plain values of its file."""
    points = tuple(
        Point(
            **row
            | {
                "claim_refs": tuple(row["claim_refs"]),
                "severity": Severity(row["severity"]),
                "kind": PointKind(row["kind"]),
            }
        )
        for row in value["points"]
    )
    return Report(**dict(value) | {"points": points})


def broken_closings(rounds: Iterable[Round]) -> list[str]:
    """Closings whose proof does not fit what the report committed to, one line each.

    A closing by test is proven by recomputing it, which is the verifier's part.
    """
    return [
        f"round {one.number}: {state.point.id} was closed by somebody else than {state.referee}"
        for one in rounds
        for state in one.states
        if state.closed and not _is_proven(one, state)
    ]


def _is_proven(one: Round, state: PointState) -> bool:
    closed = state.closed or {}
    if closed["by"] == "word":
        return commitment(str(closed.get("word"))) == state.point.closes_with
    if closed["by"] == "test":
        return closed.get("test") == state.point.test
    key = next(r.key for r in one.reports if r.referee == state.referee)
    statement, signature = closed.get("statement"), closed.get("signature")
    return (
        key is not None
        and isinstance(statement, dict)
        and statement.get("closes") == state.point.id
        and statement.get("seal_sha256") == one.seal
        and is_signed(key, statement, bytes.fromhex(str(signature)))
    )


def _started(dossier: Path, event: Event, number: int) -> Round:
    if event.payload["round"] != number:
        raise ValueError("rounds are counted without holes")
    folder = round_folder(dossier, number)
    _check_digest(folder / CLAIMS_NAME, event.payload["claims_sha256"])
    return Round(
        number=number,
        seal=event.payload["seal_sha256"],
        started=event.time,
        reports=(),
        states=(),
        claims=read_claims(folder / CLAIMS_NAME),
    )


def _imported(dossier: Path, one: Round, payload: Mapping[str, Any]) -> Round:
    if not REFEREE_NAME.fullmatch(payload["referee"]):
        raise ValueError("a name that is no file name")
    path = report_path(dossier, one.number, payload["referee"])
    _check_digest(path, payload["report_sha256"])
    try:
        report = report_from(parse_json(path.read_bytes()))
    except (JsonError, KeyError, TypeError, ValueError):
        raise ReviewError(f"{path.name} is no report: restore it") from None
    states = tuple(PointState(point=p, referee=report.referee) for p in report.points)
    return replace(one, reports=(*one.reports, report), states=(*one.states, *states))


def _changed(one: Round, event: Event) -> Round:
    name = event.payload["point"]
    one.find(name)
    entry = dict(event.payload) | {"time": event.time, "serial": event.serial}
    change = _CHANGES[event.kind]
    states = tuple(change(s, entry) if s.point.id == name else s for s in one.states)
    return replace(one, states=states)


def _check_digest(path: Path, expected: str) -> None:
    if file_sha256(path) != expected:
        raise ReviewError(
            f"{path.parent.name}/{path.name} is not the file that the review's ledger recorded:"
            " restore it"
        )


_CHANGES = {
    EventKind.POINT_ANSWERED: lambda s, entry: replace(s, answers=(*s.answers, entry)),
    EventKind.POINT_RERUN: lambda s, entry: replace(s, reruns=(*s.reruns, entry)),
    EventKind.POINT_CLOSED: lambda s, entry: replace(s, closed=entry),
}
