"""The steps of a round: start, import, answer, rerun, close. Each is an event of the ledger.

Everything is checked before anything is written, so a refused step leaves no trace.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import atomic_write_bytes, atomic_write_json, writing
from pellucid.errors import ReviewError
from pellucid.evidence.review.chain import check_citations
from pellucid.evidence.review.history import (
    CLAIMS_NAME,
    SEAL_NAME,
    last_round,
    ledger_path,
    read_rounds,
    report_path,
    round_folder,
)
from pellucid.evidence.review.letter import read_letter
from pellucid.evidence.review.points import Known
from pellucid.evidence.review.records import (
    Effect,
    PointState,
    Report,
    Round,
    Status,
    closing_word,
    commitment,
    with_token,
)
from pellucid.evidence.review.retest import Retest, check_test, recompute, retest
from pellucid.evidence.review.sealed import (
    CLAIMS,
    SEAL,
    evaluation_serials,
    read_claims,
    read_version,
)
from pellucid.evidence.review.signed import is_signed
from pellucid.ledger import EventKind, Ledger

TOKEN_BYTES = 16
RESPONSE_NAME = "author.response.json"


class Imported(NamedTuple):
    """A report that was taken in."""

    report: Report
    token: str | None
    """Made here for a referee who brought none; it alone closes the points, and is kept nowhere."""


def start_round(dossier: Path) -> Round:
    """Begin a round on the sealed version. Raises ReviewError where it is already under review.

    Later rounds need what the rules demand of a new version: every changed claim cites a point or
    an erratum.
    """
    with _locked(dossier):
        version = read_version(dossier)
        rounds = read_rounds(dossier)
        if rounds and rounds[-1].seal == version.seal:
            raise ReviewError(
                f"round {rounds[-1].number} is on this very version: import reports into it, or"
                " seal a new version first"
            )
        check_citations(dossier)
        number = len(rounds) + 1
        folder = round_folder(dossier, number)
        facts = {
            "round": number,
            "seal_sha256": version.seal,
            "manifest_sha256": version.manifest,
            "claims_sha256": version.claims,
            "previous": version.previous,
        }
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(folder / CLAIMS_NAME, (dossier / CLAIMS).read_bytes())
        atomic_write_bytes(folder / SEAL, (dossier / SEAL).read_bytes())
        atomic_write_json(folder / SEAL_NAME, facts)
        _record(dossier, EventKind.REVIEW_STARTED, facts)
        return last_round(dossier)


def import_points(dossier: Path, letter: Path, *, referee: str | None = None) -> list[Imported]:
    """Take in a referee's file. Raises ReviewError naming file and line for what is no report."""
    with _locked(dossier):
        current = last_round(dossier)
        known = Known(claims=current.claims, check_test=lambda t: check_test(t, current.claims))
        reports = read_letter(letter, known, referee=referee)
        there = {report.referee for report in current.reports}
        for report in reports:
            if report.referee in there:
                raise ReviewError(
                    f"{report.referee}'s report is already in round {current.number}: give this"
                    " one another name with --referee"
                )
            there.add(report.referee)
        return [_take_in(dossier, current, report) for report in reports]


def _take_in(dossier: Path, current: Round, report: Report) -> Imported:
    has_words = any(point.closes_with for point in report.points)
    token = None
    if report.key is None and not has_words:
        token = secrets.token_hex(TOKEN_BYTES)
        report = with_token(report, token, made_by="author")
    path = report_path(dossier, current.number, report.referee)
    digest = atomic_write_json(path, report.to_dict())
    _record(
        dossier,
        EventKind.POINTS_IMPORTED,
        {
            "round": current.number,
            "referee": report.referee,
            "points": [point.id for point in report.points],
            "report_sha256": digest,
        },
    )
    return Imported(report, token)


def prepare_report(
    dossier: Path | None, letter: Path, out: Path, *, referee: str | None = None
) -> Imported:
    """The referee's own step: the report as JSON with commitments to a token that only they have.

    `dossier` allows claims and tests to be checked; None takes them as they are.
    """
    if dossier is not None:
        claims = read_claims(dossier / CLAIMS)
        known = Known(claims=claims, check_test=lambda t: check_test(t, claims))
    else:
        known = Known(claims=_Anything(), check_test=lambda _: None)
    reports = read_letter(letter, known, referee=referee)
    if len(reports) != 1:
        raise ReviewError(f"{letter.name} holds {len(reports)} reports: prepare each by itself")
    token = secrets.token_hex(TOKEN_BYTES)
    report = with_token(reports[0], token, made_by="referee")
    atomic_write_json(out, report.to_dict())
    return Imported(report, token)


class _Anything:
    """Claims of a dossier that is not at hand: every name is one."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def answer_point(
    dossier: Path,
    point: str,
    text: str,
    *,
    changes: Mapping[str, Effect] | None = None,
    evidence: Sequence[int] = (),
) -> PointState:
    """Answer a point. `changes`: claim -> what became of it; `evidence`: serials of evaluations.

    Raises ReviewError for an empty answer, an unknown claim or evaluation, and a closed point.
    """
    if not text.strip():
        raise ReviewError(f"the answer to {point} is empty: say something with --text or --file")
    with _locked(dossier):
        current = last_round(dossier)
        _open_state(current, point)
        claims = current.claims | read_claims(dossier / CLAIMS)
        for claim in changes or {}:
            if claim not in claims:
                raise ReviewError(f"there is no claim {claim!r}: there are {', '.join(claims)}")
        _check_evidence(dossier, evidence)
        entry = {
            "round": current.number,
            "point": point,
            "text": text.strip(),
            "changes": {claim: str(effect) for claim, effect in (changes or {}).items()},
            "evidence": list(evidence),
        }
        _record(dossier, EventKind.POINT_ANSWERED, entry)
        current = last_round(dossier)
        _write_response(dossier, current)
        return current.find(point)


def rerun_point(dossier: Path, point: str, *, evidence: Sequence[int] = ()) -> Retest | None:
    """Do again what a point asked: recompute its claims and its test from the samples.

    `evidence`: serials of new evaluations that were made for it. Returns the test's outcome; None
    for a point without one. Raises ReviewError where there is nothing to do.
    """
    with _locked(dossier):
        current = last_round(dossier)
        state = _open_state(current, point)
        _check_evidence(dossier, evidence)
        outcome = retest(dossier, state.point.test) if state.point.test else None
        if outcome is None and not evidence and not state.point.claim_refs:
            raise ReviewError(
                f"{point} names no claim and has no test: name the new evaluation with --evaluation"
            )
        values = recompute(dossier, state.point.claim_refs)
        entry = {
            "round": current.number,
            "point": point,
            "test": state.point.test,
            "holds": outcome.holds if outcome else None,
            "values": values | (outcome.values if outcome else {}),
            "evidence": list(evidence),
        }
        _record(dossier, EventKind.POINT_RERUN, entry)
        return outcome


def close_point(
    dossier: Path, point: str, *, token: str | None = None, signature: bytes | None = None
) -> PointState:
    """Close a point: by its author's token or signature, or by its test, which must hold now.

    Raises ReviewError for a token or signature that is not the author's, and a test that is false.
    """
    with _locked(dossier):
        current = last_round(dossier)
        state = _open_state(current, point)
        report = next(r for r in current.reports if r.referee == state.referee)
        if token is not None:
            proof = _by_word(state, token)
        elif signature is not None:
            proof = _by_signature(current, state, report, signature)
        else:
            proof = _by_test(dossier, state)
        _record(dossier, EventKind.POINT_CLOSED, {"round": current.number, "point": point} | proof)
        return last_round(dossier).find(point)


def closing_statement(current: Round, state: PointState) -> dict[str, Any]:
    """What a referee signs to close a point: it names the version and the last answer."""
    return {
        "closes": state.point.id,
        "round": current.number,
        "seal_sha256": current.seal,
        "answer_serial": state.answers[-1]["serial"] if state.answers else None,
    }


def _by_word(state: PointState, token: str) -> dict[str, Any]:
    word = closing_word(token.strip(), state.point.id)
    if state.point.closes_with is None or commitment(word) != state.point.closes_with:
        raise ReviewError(
            f"this is not the token of {state.referee}: only who wrote {state.point.id} closes it"
        )
    return {"by": "word", "word": word}


def _by_signature(
    current: Round, state: PointState, report: Report, signature: bytes
) -> dict[str, Any]:
    if report.key is None:
        raise ReviewError(f"{report.referee}'s report names no key: close with the token instead")
    statement = closing_statement(current, state)
    if not is_signed(report.key, statement, signature):
        raise ReviewError(
            f"this is not a signature that {state.point.id} is settled: sign it again after the"
            " last answer"
        )
    return {"by": "signature", "statement": statement, "signature": signature.hex()}


def _by_test(dossier: Path, state: PointState) -> dict[str, Any]:
    if state.point.test is None:
        raise ReviewError(
            f"only who wrote {state.point.id} closes it: ask {state.referee} for --token or"
            " --signature (it has no test that could)"
        )
    outcome = retest(dossier, state.point.test)
    if not outcome.holds:
        raise ReviewError(
            f"{state.point.id} stays open: {state.point.test} is not true"
            f" ({', '.join(f'{name} is {value}' for name, value in outcome.values.items())})"
        )
    return {"by": "test", "test": state.point.test, "values": outcome.values}


def _open_state(current: Round, point: str) -> PointState:
    state = current.find(point)
    if state.status is Status.CLOSED:
        raise ReviewError(f"{point} is closed: the next round may take it up again")
    return state


def _check_evidence(dossier: Path, evidence: Sequence[int]) -> None:
    if not evidence:
        return
    serials = evaluation_serials(dossier)
    for serial in evidence:
        if serial not in serials:
            there = ", ".join(str(s) for s in serials) or "none"
            raise ReviewError(f"there is no evaluation with serial {serial}; there are {there}")


def _write_response(dossier: Path, current: Round) -> None:
    """author.response.json: what the ledger says of the answers, for people and other programs."""
    points = {
        s.point.id: {"answers": [dict(a) for a in s.answers], "status_proposed": str(s.status)}
        for s in current.states
        if s.answers
    }
    folder = round_folder(dossier, current.number)
    atomic_write_json(folder / RESPONSE_NAME, {"round": current.number, "points": points})


def _record(dossier: Path, kind: EventKind, payload: Mapping[str, Any]) -> None:
    ledger = Ledger(ledger_path(dossier))
    try:
        ledger.append(kind, **payload)
    finally:
        ledger.close()


@contextmanager
def _locked(dossier: Path) -> Iterator[None]:
    """One writer at a time; the lock is on the folder itself, so that it leaves no file in it."""
    try:
        handle = os.open(dossier, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        reason = (error.strerror or "no folder").lower()
        raise ReviewError(f"{dossier} is no dossier ({reason}): name its folder") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ReviewError(f"another process is reviewing {dossier}: wait for it") from None
    finally:
        os.close(handle)
