"""Mathematics: exact comparison first; where that is undecided, a second opinion (math-verify).

The second opinion only ever sees the one extracted answer, so it can neither join two boxes nor
read the thinking, and it is asked only where exact comparison cannot say no.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.exact import compare
from pellucid.rewards.extract import extract_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What the second grader says of one (gold, answer) pair."""

    verdict: Verdict
    """`correct` or `wrong`; `timeout` or `error` where it came to none."""
    detail: str = ""


SecondOpinion = Callable[[str, str], Opinion]
"""(gold, extracted answer) -> opinion."""


def strict_score(gold: str, response: str) -> Score | str:
    """The strict grader's score, or, where it is undecided, the extracted answer to ask about."""
    answer = extract_answer(response)
    if answer is None:
        return Score(verdict=Verdict.UNPARSABLE, method="strict")
    is_equal = compare(gold, answer)
    if is_equal is None:
        return answer
    verdict = Verdict.CORRECT if is_equal else Verdict.WRONG
    return Score(verdict=verdict, extracted=answer, method="strict")


def undecided_score(answer: str, opinion: Opinion | None) -> Score:
    """Score where the strict grader was undecided; without a second opinion the answer is wrong."""
    if opinion is None:
        detail = "strict: undecided"
        return Score(verdict=Verdict.WRONG, extracted=answer, method="strict", detail=detail)
    detail = f"strict: undecided; math-verify: {opinion.detail or opinion.verdict.value}"
    return Score(verdict=opinion.verdict, extracted=answer, method="math-verify", detail=detail)


def grade_math(gold: str, response: str, second: SecondOpinion | None = None) -> Score:
    """Grade one response. `second` is asked only where the strict grader is undecided."""
    strict = strict_score(gold, response)
    if isinstance(strict, Score):
        return strict
    return undecided_score(strict, second(gold, strict) if second else None)


def grade_math_problem(problem: Problem, response: str) -> Score:
    """The table's entry: strict alone. `GraderPool` adds the second opinion."""
    return grade_math(problem.gold, response)
