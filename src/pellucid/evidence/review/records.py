"""What a review round is made of: reports, points, and where each point stands."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from pellucid.errors import ReviewError

REFEREE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
"""A referee's name or alias: it becomes a file name."""
POINT_ID = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,39})\.([1-9][0-9]{0,3})")
"""`R2.4`: the fourth point of referee R2."""
DIGEST = re.compile(r"[0-9a-f]{64}")


class Severity(StrEnum):
    """How much hangs on a point."""

    BLOCKING = "blocking"
    MAJOR = "major"
    MINOR = "minor"


class PointKind(StrEnum):
    """What a point asks for."""

    QUESTION = "question"
    EXPERIMENT = "request_experiment"
    DISPUTE = "dispute"


class Effect(StrEnum):
    """What an answer does to a claim."""

    KEPT = "kept"
    WEAKENED = "weakened"
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"


class Status(StrEnum):
    """Where a point stands."""

    OPEN = "open"
    ANSWERED = "answered"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a report. Example: Point(id="R2.4", text="…", claim_refs=("C3",), …)."""

    id: str
    text: str
    claim_refs: tuple[str, ...] = ()
    severity: Severity = Severity.MAJOR
    kind: PointKind = PointKind.QUESTION
    test: str | None = None
    """Expression over the claims that closes the point by turning true."""
    closes_with: str | None = None
    """SHA-256 of the word that closes the point (`closing_word`); None: see the report's key."""
    line: int = 0
    """Where it begins in the file it came from; 0: not known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the report file, without the line."""
        return {key: value for key, value in asdict(self).items() if key != "line"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one referee wrote. Example: Report(referee="R2", points=(…,), assessment={…})."""

    referee: str
    points: tuple[Point, ...]
    assessment: Mapping[str, str] = field(default_factory=dict)
    """`significance` and `strength`, in eLife's words."""
    conflict_of_interest: str | None = None
    ai_use: str | None = None
    key: str | None = None
    """Ed25519 public key in hexadecimal; its holder closes the points."""
    words_from: str | None = None
    """`referee` or `author`: who made the closing words. None: points close by key or test."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for reviews/round-N/R.report.json."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {
            "assessment": dict(self.assessment),
            "points": [point.to_dict() for point in self.points],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PointState:
    """A point with all that happened to it."""

    point: Point
    referee: str
    answers: tuple[Mapping[str, Any], ...] = ()
    """{text, changes: {claim: effect}, evidence: [serial], time}, oldest first."""
    reruns: tuple[Mapping[str, Any], ...] = ()
    """{test, holds, values, evidence, time}, oldest first."""
    closed: Mapping[str, Any] | None = None
    """{by: "author"|"test", time, …}"""

    @property
    def status(self) -> Status:
        if self.closed is not None:
            return Status.CLOSED
        return Status.ANSWERED if self.answers else Status.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: the version that was reviewed and every point on it."""

    number: int
    seal: str
    """SHA-256 of the seal that was reviewed."""
    started: str
    reports: tuple[Report, ...]
    states: tuple[PointState, ...]
    claims: Mapping[str, Mapping[str, Any]]
    """The claims as they were reviewed, by id."""

    def find(self, point: str) -> PointState:
        """The state of a point. Raises ReviewError with the names there are."""
        found = next((s for s in self.states if s.point.id == point), None)
        if found is None:
            names = ", ".join(s.point.id for s in self.states) or "none yet: import a report"
            raise ReviewError(f"round {self.number} has no point {point!r}; its points: {names}")
        return found


def closing_word(token: str, point: str) -> str:
    """The word that closes one point, from the referee's secret token.

    Each point has its own, so that publishing one (which lets any reader check the closing) says
    nothing of the others.
    """
    return hmac.new(token.encode(), f"pellucid-review:{point}".encode(), "sha256").hexdigest()


def commitment(word: str) -> str:
    """What a report carries of a closing word: its SHA-256."""
    return hashlib.sha256(word.encode()).hexdigest()


def with_token(report: Report, token: str, *, made_by: str) -> Report:
    """The report with a commitment at every point. `made_by`: `referee` or `author`."""
    points = tuple(
        replace(point, closes_with=commitment(closing_word(token, point.id)))
        for point in report.points
    )
    return replace(report, points=points, words_from=made_by)
