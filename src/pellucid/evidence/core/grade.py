"""Grades samples again with the strict graders, which read text alone and need no package.

Graders that run programs (`code`), call a package (`reasoning-gym`) or a model (`open`) are not
redone here. Where exact mathematics is undecided, the second opinion that was recorded stands.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.sample_fields import VERDICTS
from pellucid.evidence.core.samples import Sample
from pellucid.records import Problem, Score
from pellucid.rewards.constraints import grade_constraints
from pellucid.rewards.countdown import grade_countdown
from pellucid.rewards.extract import THINK_CLOSE, extract_answer
from pellucid.rewards.math import strict_score
from pellucid.rewards.sequence import grade_sequence
from pellucid.rewards.simple import grade_choice, grade_exact, grade_integer

GRADER_SOURCES = (
    "records.py",
    "rewards/algebra.py",
    "rewards/constraints.py",
    "rewards/countdown.py",
    "rewards/exact.py",
    "rewards/extract.py",
    "rewards/identify.py",
    "rewards/ifbench.py",
    "rewards/instruction.py",
    "rewards/latex.py",
    "rewards/math.py",
    "rewards/parse.py",
    "rewards/read.py",
    "rewards/regions.py",
    "rewards/sequence.py",
    "rewards/shapes.py",
    "rewards/simple.py",
)
"""Files, below the package, that decide a verdict here: `zipapp` packs them."""

CACHE_ENTRIES = 500_000
ENDINGS = 20_000
"""Endings of responses whose outcome is remembered: samples of one item often end alike."""
LONG_ENDING = 400
"""Characters; what is longer is rarely repeated, and fills memory."""
_match_one_box = re.compile(r"[^\\{}<]*+(\\boxed\{([^\\{}<]*+)\})[^\\{}<]*+").fullmatch
"""An ending in which the only thing that `extract_answer` looks at is one plain box."""

Outcome = tuple[str, str | None]
"""(verdict, extracted answer)"""
UNDECIDED = "undecided"
"""In place of a verdict: exact comparison cannot tell."""


@cache
def grader_sha256() -> str:
    """Digest of the graders' sources: what a plan fixes, and every sample names."""
    return sha256_json({name: _source_sha256(name) for name in GRADER_SOURCES})


def _source_sha256(name: str) -> str:
    folder, _, file = name.rpartition("/")
    source = pkgutil.get_data(f"pellucid.{folder}".rstrip("."), file)
    assert source is not None, f"{name} is packed with the verifier"
    return hashlib.sha256(source).hexdigest()


def _math(problem: Problem, response: str) -> Outcome:
    score = strict_score(problem.gold, response)
    return (UNDECIDED, score) if isinstance(score, str) else (score.verdict.value, score.extracted)


def _by(grade: Callable[[Problem, str], Score]) -> Callable[[Problem, str], Outcome]:
    def outcome(problem: Problem, response: str) -> Outcome:
        score = grade(problem, response)
        return score.verdict.value, score.extracted

    return outcome


BY_ANSWER: dict[str, Callable[[Problem, str], Outcome]] = {
    "math": _math,
    "integer": _by(grade_integer),
    "exact": _by(grade_exact),
    "choice": _by(grade_choice),
    "countdown": _by(grade_countdown),
    "sequence": _by(grade_sequence),
}
"""Graders whose verdict depends on gold and extracted answer alone."""
BY_RESPONSE: dict[str, Callable[[Problem, str], Outcome]] = {
    "constraints": _by(grade_constraints),
}


class Regraded(NamedTuple):
    """A sample graded again."""

    verdict: str | None
    """None: it cannot be redone here."""
    problem: str
    """How it differs from what was recorded; empty: it does not."""


_AGREED = {verdict: Regraded(verdict, "") for verdict in VERDICTS}
_NOT_REDONE = Regraded(None, "")


class Regrader:
    """Grades samples again, equal ones once."""

    def __init__(self) -> None:
        self._asked: tuple[str, str] = ("", "")
        """Grader and gold that the endings below were held against."""
        self._by_ending: dict[str, Outcome] = {}
        self._by_answer: dict[tuple[str, str, str], Outcome] = {}
        self._by_response: dict[bytes, Outcome] = {}

    def outcome(self, grader: str, gold: str, response: str) -> Outcome | None:
        """What the strict grader says of a response; None: this grader cannot be redone here."""
        if grader in BY_ANSWER:
            # What stands before the last end of thinking decides nothing.
            ending = response.rpartition(THINK_CLOSE)[2]
            if (grader, gold) != self._asked:
                self._asked, self._by_ending = (grader, gold), {}
            outcome = self._by_ending.get(ending)
            if outcome is None:
                outcome = self._of_ending(grader, gold, ending)
                if len(ending) <= LONG_ENDING:
                    _bound(self._by_ending, ENDINGS)
                    self._by_ending[ending] = outcome
            return outcome
        if grader in BY_RESPONSE:
            key = hashlib.sha256(repr((grader, gold, response)).encode()).digest()
            found = self._by_response.get(key)
            if found is None:
                _bound(self._by_response, CACHE_ENTRIES)
                found = BY_RESPONSE[grader](_problem(grader, gold), response)
                self._by_response[key] = found
            return found
        return None

    def _of_ending(self, grader: str, gold: str, ending: str) -> Outcome:
        box = _match_one_box(ending)
        if box is None:
            decisive, answer = ending, extract_answer(ending)
        else:
            decisive, answer = box[1], box[2].strip() or None
        if answer is None:
            return "unparsable", None
        key = (grader, gold, answer)
        found = self._by_answer.get(key)
        if found is None:
            _bound(self._by_answer, CACHE_ENTRIES)
            found = BY_ANSWER[grader](_problem(grader, gold), decisive)
            if len(gold) + len(answer) <= 1000:  # what is long is rarely repeated, and fills memory
                self._by_answer[key] = found
        return found

    def check(self, sample: Sample) -> Regraded:
        """Grade a sample again and compare. What was left out as a failure of the grader is graded
        too: it counts in no accuracy, so a wrong answer must not hide there.
        """
        gold, response, recorded = sample["gold"], sample["response"], sample["verdict"]
        if gold is None or response is None or sample["finish"] == "error":
            return _NOT_REDONE
        outcome = self.outcome(sample["grader"], gold, response)
        if outcome is None:
            return _NOT_REDONE
        extracted = outcome[1]
        verdict: str | None = outcome[0]
        if verdict == recorded and extracted == sample["extracted"]:
            return _AGREED[recorded]
        if verdict == UNDECIDED:
            is_second = sample["method"] == "math-verify"
            is_open = is_second or recorded in ("wrong", "error")
            problem = "" if is_open else f"undecided, recorded as {recorded}"
            verdict = None if is_open else verdict
        else:
            problem = "" if verdict == recorded else f"{verdict}, recorded as {recorded}"
        if not problem and extracted != sample["extracted"]:
            shown = f"{ascii(extracted)[:40]}, recorded as {ascii(sample['extracted'])[:40]}"
            problem = f"the answer is {shown}"
        return Regraded(verdict, problem)


def _bound(cache: dict, entries: int) -> None:  # type: ignore[type-arg]
    if len(cache) >= entries:
        cache.clear()


def _problem(grader: str, gold: str) -> Problem:
    return Problem(id="", question="", gold=gold, grader=grader)
