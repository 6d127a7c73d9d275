"""Rounds of review: nothing of them was changed, points were closed by those who may, and claims
that changed say why.

A point is closed by a word that only its author knows, by their signature, or by its test, which
must be true of the claims as they were printed next. A claim that differs from the one that was
reviewed goes back to an answer that says so, or to an erratum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.evidence.core.archive import ArchiveError, read_whole
from pellucid.evidence.core.canonical import canonical_json, is_sha256, sha256_bytes
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_ledger import read_chain
from pellucid.evidence.core.ed25519 import is_signed_by
from pellucid.evidence.core.rules import RuleError, evaluate_rule, rule_names
from pellucid.evidence.core.schema import SEAL_NAME

REVIEWS = "reviews/"
LEDGER = "reviews/ledger.jsonl"
ERRATA = "errata.json"
CONTEXT = b"pellucid-review-closing-v1\n"
"""Before what a referee signs."""
NOT_CONTENT = ("level",)
"""How far a claim was checked may rise without the claim having changed."""
_REPORT = re.compile(r"reviews/round-[1-9][0-9]*/[A-Za-z][A-Za-z0-9_-]{0,39}\.report\.json", re.A)

Claims = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Point:
    """One point of a report, and what became of it."""

    about: dict[str, Any]
    report: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Events."""
    closed: dict[str, Any] | None = None

    @property
    def refs(self) -> list[str]:
        refs = self.about.get("claim_refs")
        return [r for r in refs if type(r) is str] if type(refs) is list else []


@dataclass(slots=True)
class Round:
    """One round."""

    number: int
    seal: object
    claims: Claims
    """As they were reviewed."""
    points: dict[str, Point] = field(default_factory=dict)


def check_reviews(case: Case) -> None:
    """reviews/, against its own ledger, the seals, and the claims as they are now."""
    files = {path for path in case.archive.sizes if path.startswith(REVIEWS)}
    if not files:
        return
    if LEDGER not in files:
        case.find("review-broken", LEDGER, "rounds of review without their ledger", ())
        return
    rounds: list[Round] = []
    known: set[str] = set()
    for event in read_chain(case, LEDGER):
        where = f"{LEDGER} line {event['serial'] + 1}"
        if problem := _take(case, rounds, event, known):
            case.find("review-broken", where, problem, ())
    for path in sorted(files - known):
        if _REPORT.fullmatch(path):
            case.find("review-broken", path, "a report that the review's ledger does not know", ())
    now = {claim["id"]: dict(claim) for claim in case.claim_list()}
    for number, one in enumerate(rounds, 1):
        after = rounds[number].claims if number < len(rounds) else now
        _check_closings(case, one, after)
        _check_changes(case, one, after)


# Events


def _take(case: Case, rounds: list[Round], event: dict[str, Any], known: set[str]) -> str | None:
    """What is wrong with an event, or None."""
    payload, kind = event["payload"], event["kind"]
    number = payload.get("round")
    if kind == "review_started":
        return _start(case, rounds, payload)
    if type(number) is not int or not 1 <= number <= len(rounds):
        return "of a round that has not begun"
    one = rounds[number - 1]
    if kind == "points_imported":
        return _import(case, one, payload, known)
    point = one.points.get(str(payload.get("point")))
    if point is None:
        return f"round {number} has no such point"
    if point.closed is not None:
        return "the point was closed before"
    serials = {root["eval_serial"] for root in case.roots.values()}
    evidence = payload.get("evidence", [])
    if type(evidence) is not list or not all(type(s) is int and s in serials for s in evidence):
        return "it names an evaluation that is not here"
    if kind == "point_answered":
        point.answers.append(event)
    elif kind == "point_closed":
        point.closed = payload
    return None


def _start(case: Case, rounds: list[Round], payload: dict[str, Any]) -> str | None:
    number = len(rounds) + 1
    folder = f"{REVIEWS}round-{number}"
    claims = _recorded(case, f"{folder}/claims.json", payload.get("claims_sha256"))
    rounds.append(Round(number, payload.get("seal_sha256"), _by_id(claims)))
    if payload.get("round") != number:
        return "rounds are not counted without holes"
    if claims is None:
        return f"{folder}/claims.json is not the file that was recorded"
    seals = [p for p in case.archive.sizes if p == SEAL_NAME or p.startswith("seals/")]
    if payload.get("seal_sha256") not in [_digest(case, path) for path in seals]:
        return "what was reviewed is no version of this dossier"
    return None


def _import(case: Case, one: Round, payload: dict[str, Any], known: set[str]) -> str | None:
    path = f"{REVIEWS}round-{one.number}/{payload.get('referee')}.report.json"
    report = _recorded(case, path, payload.get("report_sha256"))
    known.add(path)
    if report is None:
        return f"{path[:80]} is not the file that was recorded"
    points = report.get("points")
    if type(points) is not list or any(type(p) is not dict for p in points):
        return f"{path[:80]} is no report"
    for about in points:
        name = str(about.get("id"))
        if name in one.points:
            return f"two points are named {name[:40]}"
        point = one.points[name] = Point(about, report)
        strange = [ref for ref in point.refs if ref not in one.claims]
        if strange:
            return f"{name[:40]} speaks of {strange[0][:40]}, which was no claim then"
    return None


def _recorded(case: Case, path: str, digest: object) -> dict[str, Any] | None:
    """A JSON object, where its bytes are those that were recorded."""
    if path not in case.archive.sizes or _digest(case, path) != digest:
        return None
    found: dict[str, Any] | None = case.load(path, dict[str, Any])
    return found


def _digest(case: Case, path: str) -> str:
    try:
        return sha256_bytes(read_whole(case.archive, path))
    except ArchiveError:
        return ""


def _by_id(document: dict[str, Any] | None) -> Claims:
    claims = document.get("claims") if document is not None else None
    if type(claims) is not list:
        return {}
    return {c["id"]: c for c in claims if type(c) is dict and type(c.get("id")) is str}


# Closings


def _check_closings(case: Case, one: Round, after: Claims) -> None:
    for name, point in one.points.items():
        if point.closed is None:
            continue
        where = f"round {one.number}, {name[:40]}"
        if problem := _closing_problem(one, name, point, after):
            case.find("closing-unproven", where, problem, point.refs)
        elif point.closed.get("by") == "word" and point.report.get("words_from") != "referee":
            case.find("closing-weak", where, "the word was made where the author works", ())


def _closing_problem(one: Round, name: str, point: Point, after: Claims) -> str | None:
    closed = point.closed or {}
    by = closed.get("by")
    if by == "word":
        word = str(closed.get("word")).encode(errors="surrogatepass")
        is_own = hashlib.sha256(word).hexdigest() == point.about.get("closes_with")
        return None if is_own else "the word is not the one that its author committed to"
    if by == "signature":
        is_own = _is_signed(one, name, point, closed)
        return None if is_own else "the signature is not its author's, or of another answer"
    if by == "test":
        return _test_problem(point, closed, after)
    return "neither its author nor its test closed it"


def _is_signed(one: Round, name: str, point: Point, closed: dict[str, Any]) -> bool:
    key, statement, signature = (
        point.report.get("key"), closed.get("statement"), closed.get("signature"),
    )  # fmt: skip
    answered = point.answers[-1]["serial"] if point.answers else None
    wanted = {"closes": name, "round": one.number, "seal_sha256": one.seal,
              "answer_serial": answered}  # fmt: skip
    if not is_sha256(key) or statement != wanted:
        return False
    try:
        raw = bytes.fromhex(str(signature))
        return is_signed_by(bytes.fromhex(str(key)), CONTEXT + canonical_json(statement), raw)
    except ValueError:
        return False


def _test_problem(point: Point, closed: dict[str, Any], after: Claims) -> str | None:
    test = point.about.get("test")
    if type(test) is not str or closed.get("test") != test:
        return "its author named no such test"
    try:
        values = {name: _number(after, name) for name in rule_names(test)}
        if values and None not in values.values() and evaluate_rule(test, values):
            return None
    except RuleError as error:
        return f"its test cannot be read: {error}"
    return f"its test {test[:80]!r} is not true of the claims"


def _number(claims: Claims, name: str) -> float | None:
    """What `C3.value`, `C3.views.fresh.low` or, as referees write, `C3.subsets.fresh.ci95.low` is.

    Printed numbers serve: that they are those of the samples is checked elsewhere.
    """
    claim, *path = name.split(".")
    printed: Any = claims.get(claim, {})
    if path and path[0] in ("views", "subsets") and path[1:2] != ["all"]:
        views = printed.get("views")
        printed = views.get(path[1]) if type(views) is dict and len(path) > 1 else None
        path = path[2:]
    else:
        printed = printed.get("reported")
        path = path[2:] if path and path[0] in ("views", "subsets") else path
    path = path[1:] if path and path[0] in ("reported", "ci95") else path
    value = printed.get(path[0]) if type(printed) is dict and len(path) == 1 else None
    try:
        return float(value) if type(value) in (str, int) else None
    except (ValueError, OverflowError):
        return None


# Changes


def _check_changes(case: Case, one: Round, after: Claims) -> None:
    cited = {*_cited(one), *_errata(case)}
    for claim in sorted(one.claims.keys() | after.keys()):
        before, now = one.claims.get(claim), after.get(claim)
        if _content(before) != _content(now) and claim not in cited:
            what = "is new" if before is None else "is gone" if now is None else "changed"
            text = f"it {what} since round {one.number}, and no answer or erratum says why"
            case.find("change-uncited", claim[:60], text, [claim])


def _cited(one: Round) -> Iterator[str]:
    """Claims of which an answer says that they did not stay as they were."""
    for point in one.points.values():
        for event in point.answers:
            changes = event["payload"].get("changes")
            if type(changes) is dict:
                yield from (claim for claim, effect in changes.items() if effect != "kept")


def _errata(case: Case) -> Iterator[str]:
    if ERRATA not in case.archive.sizes:
        return
    for row in case.load(ERRATA, list[dict[str, Any]]) or ():
        claims = row.get("claims")
        if type(claims) is list and str(row.get("text", "")).strip():
            yield from (claim for claim in claims if type(claim) is str)


def _content(claim: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if claim is None:
        return None
    return {name: value for name, value in claim.items() if name not in NOT_CONTENT}
