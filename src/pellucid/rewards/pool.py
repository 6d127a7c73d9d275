"""Grades batches: strict graders in this process, math-verify in workers that can be killed,
programs in the sandbox.

    submit ──► one thread: strict graders ──► what they leave open: workers (`OpinionDesk`), sandbox
    result ◄── every response's own future, in the order of the responses

The i-th score belongs to the i-th response, whatever hangs or dies on the way: nothing is matched
up afterwards. No process starts before one is needed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

from pellucid.config import CODE_TIMEOUT_S, MATH_VERIFY_TIMEOUT_S
from pellucid.records import Problem, Score
from pellucid.rewards.code import grade_program
from pellucid.rewards.math import Opinion, strict_score, undecided_score
from pellucid.rewards.opinions import OpinionDesk
from pellucid.rewards.table import find_grader
from pellucid.sandbox import Limits, Sandbox

MATH_VERIFY = "pellucid.rewards.second:math_verify_opinion"
MAX_WAITING = 8192
"""Responses submitted and not graded: a rollout of the paper (B.1). `submit` waits beyond it."""


class _Undecided(NamedTuple):
    """An answer that the strict grader could neither accept nor refuse."""

    answer: str
    opinion: Future[Opinion]


_Part = Score | _Undecided | Future[Score]
"""What is known of one response at once."""


class PendingScores:
    """Grades on their way (`protocols.PendingGrades`)."""

    def __init__(self, parts: Future[list[_Part]]) -> None:
        self._parts = parts

    def result(self) -> list[Score]:
        """Waits for the scores, in the order of the responses. Raises what `grade` raises."""
        return [_score(part) for part in self._parts.result()]


class GraderPool:
    """Grader of many responses (`protocols.StreamGrader`). Use as a context manager, or `close` it.

    Example:
        with GraderPool() as pool:
            scores = pool.grade(problems, responses)
    """

    def __init__(
        self,
        *,
        math_verify: bool = True,
        num_workers: int = 0,
        timeout_s: float = MATH_VERIFY_TIMEOUT_S,
        memory_mib: int = 4096,
        judge: str = MATH_VERIFY,
        unsafe_code: bool = False,
        code_timeout_s: float = CODE_TIMEOUT_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """`num_workers` 0: half the CPUs, at most 4. `judge`: second grader, `module:function`.

        `unsafe_code`: run programs without isolation where this machine has none.
        `code_timeout_s`: limit of a program with its tests, while `timeout_s` is that of the second
        grader. `max_waiting`: responses that `submit` takes before it waits for some to be graded.
        """
        self._uses_second = math_verify
        self._desk = OpinionDesk(
            judge,
            num_workers=num_workers or max(1, min(4, (os.cpu_count() or 2) // 2)),
            timeout_s=timeout_s,
            memory_mib=memory_mib,
        )
        self._unsafe_code = unsafe_code
        self._code_limits = Limits(timeout_s=code_timeout_s)
        self._lock = threading.Lock()
        self._sandbox_lock = threading.Lock()
        """Apart: to find out whether this machine can isolate takes seconds."""
        self._sandbox: Sandbox | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._room = _Room(max_waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def num_running(self) -> int:
        """Worker processes alive now."""
        return self._desk.num_running

    def close(self) -> None:
        """End all workers; what was submitted and not graded is given up. The pool may be used
        again: workers start when needed.
        """
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(cancel_futures=True)
        self._desk.close()
        with self._sandbox_lock:
            sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            sandbox.close()

    def grade(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
        """Scores in the order of `responses`; `problems[i]` is what `responses[i]` answers.

        Raises ConfigError on an unknown grader, SandboxError where there are programs to run and
        this machine cannot isolate them.
        """
        return [_score(part) for part in self._begin(problems, responses)]

    def submit(self, problems: Sequence[Problem], responses: Sequence[str]) -> PendingScores:
        """Starts grading and returns at once, or, with too many responses waiting, once fewer do.

        The same scores as from `grade`; from one thread or several, in any order.
        """
        problems, responses = list(problems), list(responses)
        self._room.take(len(responses))
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="grading")
            parts = self._thread.submit(self._begin, problems, responses)
        parts.add_done_callback(lambda done: self._room.give_back(done, len(responses)))
        return PendingScores(parts)

    def _begin(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[_Part]:
        """Strict graders decide; what they leave open goes to where it may hang."""
        assert len(problems) == len(responses), "one problem per response"
        return [self._part(p, r) for p, r in zip(problems, responses, strict=True)]

    def _part(self, problem: Problem, response: str) -> _Part:
        if problem.grader == "code":
            sandbox = self._open_sandbox()
            return sandbox.submit(grade_program, sandbox, problem, response)
        if problem.grader != "math":
            return find_grader(problem.grader)(problem, response)
        strict = strict_score(problem.gold, response)
        if isinstance(strict, Score):
            return strict
        if not self._uses_second:
            return undecided_score(strict, None)
        return _Undecided(strict, self._desk.ask((problem.gold, strict)))

    def _open_sandbox(self) -> Sandbox:
        with self._sandbox_lock:
            if self._sandbox is None:
                self._sandbox = Sandbox(limits=self._code_limits, unsafe=self._unsafe_code)
            return self._sandbox


def _score(part: _Part) -> Score:
    """The score, once it is there."""
    if isinstance(part, Score):
        return part
    if isinstance(part, _Undecided):
        return undecided_score(part.answer, part.opinion.result())
    return part.result()


class _Room:
    """Counts responses that wait, so that an endless queue cannot form."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    def take(self, number: int) -> None:
        """Waits until `number` more are within the limit; more than the limit wait for an empty
        room.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + number <= self._limit)
            self._held += number

    def give_back(self, begun: Future[list[_Part]], number: int) -> None:
        """Each place as soon as its response is graded; all of them where grading cannot begin."""
        if begun.cancelled() or begun.exception() is not None:
            self._give(number)
            return
        for part in begun.result():
            if isinstance(part, Score):
                self._give(1)
            else:
                future = part.opinion if isinstance(part, _Undecided) else part
                future.add_done_callback(lambda _: self._give(1))

    def _give(self, number: int) -> None:
        with self._changed:
            self._held -= number
            self._changed.notify_all()
