"""Asking a failed instrument once more: the same rule for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.protocols import Grader
from pellucid.records import Problem, Score, Verdict


def grade_with_retry(
    grader: Grader, problems: Sequence[Problem], responses: Sequence[str]
) -> tuple[list[Score], list[bool]]:
    """Scores in order, and which samples were graded a second time because the grader failed."""
    return retry_failed(grader, problems, responses, grader.grade(problems, responses))


def retry_failed(
    grader: Grader,
    problems: Sequence[Problem],
    responses: Sequence[str],
    scores: Sequence[Score],
) -> tuple[list[Score], list[bool]]:
    """`scores` with those replaced that failed, each graded once more; and which they were."""
    scores = list(scores)
    retried = [score.verdict is Verdict.ERROR for score in scores]
    failed = [i for i, again in enumerate(retried) if again]
    if failed:
        second = grader.grade([problems[i] for i in failed], [responses[i] for i in failed])
        for i, score in zip(failed, second, strict=True):
            scores[i] = score
    return scores, retried
