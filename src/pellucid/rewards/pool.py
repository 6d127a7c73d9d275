"""Grades batches: strict graders in this process, math-verify in workers that can be killed,
programs in the sandbox.

The i-th score belongs to the i-th response, whatever hangs or dies on the way: every question
carries its index, and results are laid into their places. No process starts before one is needed.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Self

from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.code import grade_code_batch
from pellucid.rewards.math import Opinion, strict_score, undecided_score
from pellucid.rewards.table import find_grader
from pellucid.rewards.worker import Worker
from pellucid.sandbox import Sandbox

MATH_VERIFY = "pellucid.rewards.second:math_verify_opinion"
CACHE_SIZE = 100_000
"""Opinions kept. A pair of gold and answer recurs over the samples of a group and over epochs."""
_RETRY_FACTOR = 2.0
"""More time for an item whose worker was starved of CPU: that is not the answer's fault."""
_COSTLY_SHARE = 0.5
"""Share of its time limit an item must have computed for to be costly rather than starved."""

_Pair = tuple[str, str]


class GraderPool:
    """Grader of many responses (`protocols.Grader`). Use as a context manager, or call `close`.

    Example:
        with GraderPool() as pool:
            scores = pool.grade(problems, responses)
    """

    def __init__(
        self,
        *,
        math_verify: bool = True,
        num_workers: int = 0,
        timeout_s: float = 5.0,
        memory_mib: int = 4096,
        judge: str = MATH_VERIFY,
        unsafe_code: bool = False,
    ) -> None:
        """`num_workers` 0: half the CPUs, at most 4. `judge`: second grader, `module:function`.

        `unsafe_code`: run programs without isolation where this machine has none.
        """
        self._uses_second = math_verify
        self._num_workers = num_workers or max(1, min(4, (os.cpu_count() or 2) // 2))
        self._timeout_s = timeout_s
        self._memory_mib = memory_mib
        self._judge = judge
        self._cache: dict[_Pair, Opinion] = {}
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._unsafe_code = unsafe_code
        self._sandbox: Sandbox | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def num_running(self) -> int:
        """Worker processes alive now."""
        return len(self._workers)

    def close(self) -> None:
        """End all workers. The pool may be used again: workers start when needed."""
        with self._lock:
            for worker in self._workers:
                worker.kill()
            self._workers.clear()
            if self._sandbox is not None:
                self._sandbox.close()

    def grade(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Score]:
        """Scores in the order of `responses`; `problems[i]` is what `responses[i]` answers.

        Raises ConfigError on an unknown grader, SandboxError where there are programs to run and
        this machine cannot isolate them.
        """
        assert len(problems) == len(responses), "one problem per response"
        programs = self._grade_programs(problems, responses)
        firsts = [
            programs[i] if i in programs else self._first(problem, responses[i])
            for i, problem in enumerate(problems)
        ]
        asked = [
            (p.gold, first) if isinstance(first, str) else None
            for p, first in zip(problems, firsts, strict=True)
        ]
        opinions = self._opinions({pair for pair in asked if pair})
        return [
            first if isinstance(first, Score) else undecided_score(first, opinions.get(pair))
            for first, pair in zip(firsts, asked, strict=True)
        ]

    def _grade_programs(
        self, problems: Sequence[Problem], responses: Sequence[str]
    ) -> dict[int, Score]:
        places = [i for i, problem in enumerate(problems) if problem.grader == "code"]
        if not places:
            return {}
        with self._lock:
            if self._sandbox is None:
                self._sandbox = Sandbox(unsafe=self._unsafe_code)
            sandbox = self._sandbox
        scores = grade_code_batch(
            sandbox, [problems[i] for i in places], [responses[i] for i in places]
        )
        return dict(zip(places, scores, strict=True))

    def _first(self, problem: Problem, response: str) -> Score | str:
        if problem.grader == "math":
            return strict_score(problem.gold, response)
        return find_grader(problem.grader)(problem, response)

    def _opinions(self, pairs: Iterable[_Pair]) -> dict[_Pair | None, Opinion]:
        if not self._uses_second:
            return {}
        with self._lock:
            pairs = sorted(pairs)
            fresh = [pair for pair in pairs if pair not in self._cache]
            found = dict(zip(fresh, self._ask_all(fresh), strict=True)) if fresh else {}
            opinions = {pair: found.get(pair) or self._cache[pair] for pair in pairs}
            for pair, opinion in found.items():
                if opinion.verdict is not Verdict.ERROR:  # an instrument may have been mended
                    self._cache[pair] = opinion
            while len(self._cache) > CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            return opinions

    def _ask_all(self, pairs: list[_Pair]) -> list[Opinion]:
        """One opinion per pair, in order."""
        batch = _Batch(pairs, timeout_s=self._timeout_s)
        try:
            while not batch.is_done:
                self._fill(batch)
                self._wait(batch)
        except OSError as error:
            batch.fail_rest(f"cannot run a grader process: {error}")
        finally:
            # Interrupted, or failed early: a late reply must never reach the next batch.
            for worker in [worker for worker in self._workers if worker.item is not None]:
                self._drop(worker)
        return batch.results()

    def _fill(self, batch: _Batch) -> None:
        """Start workers up to the work left, and hand each idle one an item."""
        wanted = min(self._num_workers, batch.num_open)
        while len(self._workers) < wanted:
            worker = Worker(self._judge, timeout_s=self._timeout_s, memory_mib=self._memory_mib)
            self._workers.append(worker)
        for worker in list(self._workers):
            if worker.is_ready and worker.item is None and batch.queue:
                item = batch.queue.popleft()
                try:
                    worker.ask(item, *batch.pairs[item], limit_s=batch.limit_s(item))
                except OSError:  # it died while idle: the item is not to blame
                    self._drop(worker)
                    batch.queue.appendleft(item)

    def _wait(self, batch: _Batch) -> None:
        """Collect replies until the next deadline; kill and account for what hangs or has died."""
        watched = [w for w in self._workers if w.item is not None or not w.is_ready]
        if not watched:
            return
        with selectors.DefaultSelector() as selector:
            for worker in watched:
                selector.register(worker, selectors.EVENT_READ)
            pause = min(worker.deadline for worker in watched) - time.monotonic()
            ready = {key.fileobj for key, _ in selector.select(max(0.0, pause))}
        for worker in watched:
            has_ended = self._read(worker, batch) if worker in ready else False
            if has_ended:
                self._lose(worker, batch, is_hung=False)
            elif time.monotonic() > worker.deadline and (
                worker.item is not None or not worker.is_ready
            ):
                self._lose(worker, batch, is_hung=True)

    def _read(self, worker: Worker, batch: _Batch) -> bool:
        replies, has_ended = worker.receive()
        for reply in replies:
            if "fatal" in reply:
                batch.fail_rest(f"the second grader cannot run: {reply['fatal']}")
            elif "ready" in reply:
                worker.is_ready = True
            else:
                batch.settle(
                    reply["id"], Opinion(verdict=Verdict(reply["verdict"]), detail=reply["detail"])
                )
                worker.item = None
        return has_ended

    def _lose(self, worker: Worker, batch: _Batch, *, is_hung: bool) -> None:
        cpu_s = self._drop(worker)
        if worker.item is not None:
            batch.note_failure(worker.item, is_hung=is_hung, cpu_s=cpu_s)
        elif not worker.is_ready:
            batch.note_bad_start()

    def _drop(self, worker: Worker) -> float:
        self._workers.remove(worker)
        return worker.kill()


class _Batch:
    """Bookkeeping of one call: which items wait, which failed how often, which are settled."""

    MAX_BAD_STARTS = 3

    def __init__(self, pairs: list[_Pair], *, timeout_s: float) -> None:
        self.pairs = pairs
        self.queue = deque(range(len(pairs)))
        self._timeout_s = timeout_s
        self._done: dict[int, Opinion] = {}
        self._failures: dict[int, int] = {}
        self._bad_starts = 0

    @property
    def num_open(self) -> int:
        return len(self.pairs) - len(self._done)

    @property
    def is_done(self) -> bool:
        return self.num_open == 0

    def limit_s(self, item: int) -> float:
        """Time limit of the item's next try, wall seconds."""
        return self._timeout_s * (_RETRY_FACTOR if item in self._failures else 1.0)

    def settle(self, item: int, opinion: Opinion) -> None:
        self._done.setdefault(item, opinion)

    def note_failure(self, item: int, *, is_hung: bool, cpu_s: float) -> None:
        """The worker hung or died on this item: once more on a fresh one, unless it was costly."""
        limit_s = self.limit_s(item)
        num_failures = self._failures[item] = self._failures.get(item, 0) + 1
        if is_hung and (num_failures > 1 or cpu_s >= _COSTLY_SHARE * limit_s):
            self.settle(
                item, Opinion(verdict=Verdict.TIMEOUT, detail=f"no answer in {limit_s:g} s")
            )
        elif num_failures > 1:
            self.settle(
                item, Opinion(verdict=Verdict.ERROR, detail="the grader process died twice")
            )
        else:
            self.queue.append(item)

    def note_bad_start(self) -> None:
        self._bad_starts += 1
        if self._bad_starts >= self.MAX_BAD_STARTS:
            self.fail_rest("grader processes die or hang while starting")

    def fail_rest(self, reason: str) -> None:
        """The instrument failed: everything still open is an error, never wrong."""
        for item in range(len(self.pairs)):
            self.settle(item, Opinion(verdict=Verdict.ERROR, detail=reason))

    def results(self) -> list[Opinion]:
        return [self._done[item] for item in range(len(self.pairs))]
