"""Grades of groups that are still being sampled: each begins as soon as its samples have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pellucid.protocols import PendingGrades, StreamGrader
from pellucid.records import Completion, Problem, Score
from pellucid.rewards.retry import retry_failed


class Graded(NamedTuple):
    """All samples of a call, problem by problem."""

    responses: list[str]
    """What was graded."""
    scores: list[Score]
    retried: list[bool]
    """Which were graded a second time because the instrument failed."""


class StreamedGrades:
    """The grades of one call of `Engine.generate`.

    Example:
        grades = StreamedGrades(grader, problems, template.response)
        groups = engine.generate(requests, params, seed=1, on_group=grades.begin)
        scores = grades.result()
    """

    def __init__(
        self,
        grader: StreamGrader,
        problems: Sequence[Problem],
        response_of: Callable[[str], str],
    ) -> None:
        """`problems`: one for each request; `response_of` a completion's text is what is graded."""
        self._grader = grader
        self._problems = problems
        self._response_of = response_of
        self._begun: dict[int, tuple[list[str], PendingGrades]] = {}

    def begin(self, index: int, group: Sequence[Completion]) -> None:
        """An engine's `on_group`."""
        responses = [self._response_of(completion.text) for completion in group]
        pending = self._grader.submit([self._problems[index]] * len(group), responses)
        self._begun[index] = responses, pending

    def result(self) -> list[Score]:
        """Waits for the scores, problem by problem; what the instrument failed on is graded once
        more. Raises what the grader raises.
        """
        return self.graded().scores

    def graded(self, progress: Callable[[int], None] | None = None) -> Graded:
        """`result`, with what was graded. `progress` hears, while it waits, how many samples have
        their grade.
        """
        problems, responses, scores = [], [], []
        for index, problem in enumerate(self._problems):
            own, pending = self._begun[index]
            problems += [problem] * len(own)
            responses += own
            scores += pending.result()
            if progress is not None:
                progress(len(scores))
        return Graded(responses, *retry_failed(self._grader, problems, responses, scores))
