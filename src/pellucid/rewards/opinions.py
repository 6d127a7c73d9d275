"""Second opinions on answers: questions from any thread, to workers that can be killed.

    ask ──► inbox ──► one thread: hand out, watch, kill, account ──► Future of each question
                      (lives while questions are open)

Every question carries its number and its own future, so an opinion cannot reach another one,
whatever hangs or dies on the way. No process starts before a question needs it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from pellucid.records import Verdict
from pellucid.rewards.math import Opinion
from pellucid.rewards.worker import Worker

CACHE_SIZE = 100_000
"""Opinions kept. A pair of gold and answer recurs over the samples of a group and over epochs."""
_RETRY_FACTOR = 2.0
"""More time for an item whose worker was starved of CPU: that is not the answer's fault."""
_COSTLY_SHARE = 0.5
"""Share of its time limit an item must have computed for to be costly rather than starved."""

Pair = tuple[str, str]
"""Gold and extracted answer."""


@dataclass(slots=True)
class _Question:
    pair: Pair
    future: Future[Opinion] = field(default_factory=Future)
    num_failures: int = 0


class Questions:
    """Which questions wait, which failed how often. Used by one thread."""

    MAX_BAD_STARTS = 3

    def __init__(
        self, *, timeout_s: float, on_settled: Callable[[Pair, Opinion | None], None]
    ) -> None:
        """`on_settled` hears of every question before its future does; None: no opinion came."""
        self.queue: deque[int] = deque()
        self._on_settled = on_settled
        self._timeout_s = timeout_s
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count()
        self._num_bad_starts = 0

    def __len__(self) -> int:
        """Questions without an answer."""
        return len(self._open)

    def add(self, question: _Question) -> None:
        if not self._open:
            self._num_bad_starts = 0
        number = next(self._numbers)
        self._open[number] = question
        self.queue.append(number)

    def pair(self, item: int) -> Pair:
        return self._open[item].pair

    def limit_s(self, item: int) -> float:
        """Time limit of the item's next try, wall seconds."""
        return self._timeout_s * (_RETRY_FACTOR if self._open[item].num_failures else 1.0)

    def settle(self, item: int, opinion: Opinion) -> None:
        question = self._open.pop(item)
        self._on_settled(question.pair, opinion)
        question.future.set_result(opinion)

    def note_failure(self, item: int, *, is_hung: bool, cpu_s: float) -> None:
        """The worker hung or died on this item: once more on a fresh one, unless it was costly."""
        limit_s = self.limit_s(item)
        question = self._open[item]
        question.num_failures += 1
        is_second = question.num_failures > 1
        if is_hung and (is_second or cpu_s >= _COSTLY_SHARE * limit_s):
            self.settle(
                item, Opinion(verdict=Verdict.TIMEOUT, detail=f"no answer in {limit_s:g} s")
            )
        elif is_second:
            self.settle(
                item, Opinion(verdict=Verdict.ERROR, detail="the grader process died twice")
            )
        else:
            self.queue.append(item)

    def note_bad_start(self) -> None:
        self._num_bad_starts += 1
        if self._num_bad_starts >= self.MAX_BAD_STARTS:
            self.fail_all("grader processes die or hang while starting")

    def fail_all(self, reason: str) -> None:
        """The instrument failed: everything still open is an error, never wrong."""
        self.queue.clear()
        for item in list(self._open):
            self.settle(item, Opinion(verdict=Verdict.ERROR, detail=reason))

    def give_up(self, error: Exception) -> None:
        """A defect of ours: whoever waits for an opinion gets the exception."""
        self.queue.clear()
        while self._open:
            _, question = self._open.popitem()
            self._on_settled(question.pair, None)
            question.future.set_exception(error)


class OpinionDesk:
    """Takes questions, gives futures. The workers stay until `close`."""

    def __init__(self, judge: str, *, num_workers: int, timeout_s: float, memory_mib: int) -> None:
        """`judge`: the second grader, `module:function`."""
        self._judge = judge
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._memory_mib = memory_mib
        self._questions = Questions(timeout_s=timeout_s, on_settled=self._remember)
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        """Guards all below; the two above belong to the thread while it lives."""
        self._cache: dict[Pair, Opinion] = {}
        self._asked: dict[Pair, Future[Opinion]] = {}
        self._inbox: list[_Question] = []
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] = (-1, -1)
        self._is_closing = False

    @property
    def num_running(self) -> int:
        """Worker processes alive now."""
        return len(self._workers)

    def ask(self, pair: Pair) -> Future[Opinion]:
        """The opinion on (gold, answer); every question is answered, `error` at worst. Equal
        questions share a future: do not cancel it.
        """
        with self._lock:
            if pair in self._asked:
                return self._asked[pair]
            question = _Question(pair)
            if pair in self._cache:
                question.future.set_result(self._cache[pair])
                return question.future
            self._asked[pair] = question.future
            self._inbox.append(question)
            self._rouse()
            return question.future

    def close(self) -> None:
        """Answers what is open with `error` and ends the workers. It may be used again."""
        with self._lock:
            thread, self._is_closing = self._thread, True
            if thread is not None:
                self._rouse()
        if thread is not None:
            thread.join()
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        with self._lock:
            self._is_closing = False

    def _remember(self, pair: Pair, opinion: Opinion | None) -> None:
        with self._lock:
            del self._asked[pair]
            # An instrument may have been mended: its errors are not kept.
            if opinion is not None and opinion.verdict is not Verdict.ERROR:
                self._cache[pair] = opinion
                while len(self._cache) > CACHE_SIZE:
                    del self._cache[next(iter(self._cache))]

    def _rouse(self) -> None:
        """Starts the thread, or wakes it. The lock is held."""
        if self._thread is not None:
            with contextlib.suppress(BlockingIOError):  # so full that it wakes in any case
                os.write(self._wake[1], b"!")
            return
        self._wake = os.pipe()
        for fd in self._wake:
            os.set_blocking(fd, False)
        self._thread = threading.Thread(target=self._serve, name="opinions", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Runs until no question is open."""
        while self._has_work():
            try:
                self._fill()
                self._wait()
            except OSError as error:
                self._questions.fail_all(f"cannot run a grader process: {error}")
                self._drop_busy()
            except Exception as error:  # noqa: BLE001 - raised again where opinions are read
                self._questions.give_up(error)
                self._drop_busy()

    def _has_work(self) -> bool:
        """Takes the inbox in; false, and the thread is no more, where nothing is open."""
        with self._lock:
            for question in self._inbox:
                self._questions.add(question)
            self._inbox.clear()
            is_closing = self._is_closing
        if is_closing:
            self._questions.fail_all("the grader pool was closed")
            self._drop_busy()
        if len(self._questions):
            return True
        with self._lock:
            if self._inbox:
                return True
            for fd in self._wake:
                os.close(fd)
            self._thread = None
            return False

    def _fill(self) -> None:
        """Start workers up to the work left, and hand each idle one an item."""
        questions = self._questions
        while len(self._workers) < min(self._num_workers, len(questions)):
            worker = Worker(self._judge, timeout_s=self._timeout_s, memory_mib=self._memory_mib)
            self._workers.append(worker)
        for worker in list(self._workers):
            if worker.is_ready and worker.item is None and questions.queue:
                item = questions.queue.popleft()
                try:
                    worker.ask(item, *questions.pair(item), limit_s=questions.limit_s(item))
                except OSError:  # it died while idle: the item is not to blame
                    self._drop(worker)
                    questions.queue.appendleft(item)

    def _wait(self) -> None:
        """Collect replies until the next deadline or question; kill and account for what hangs or
        has died.
        """
        watched = [w for w in self._workers if w.item is not None or not w.is_ready]
        if not watched:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake[0], selectors.EVENT_READ)
            for worker in watched:
                selector.register(worker, selectors.EVENT_READ)
            pause = min(worker.deadline for worker in watched) - time.monotonic()
            ready = {key.fileobj for key, _ in selector.select(max(0.0, pause))}
        if self._wake[0] in ready:
            os.read(self._wake[0], 65536)
        for worker in watched:
            if worker not in self._workers:  # dropped since
                continue
            has_ended = self._read(worker) if worker in ready else False
            if has_ended:
                self._lose(worker, is_hung=False)
            elif time.monotonic() > worker.deadline and (
                worker.item is not None or not worker.is_ready
            ):
                self._lose(worker, is_hung=True)

    def _read(self, worker: Worker) -> bool:
        replies, has_ended = worker.receive()
        for reply in replies:
            if "fatal" in reply:
                self._questions.fail_all(f"the second grader cannot run: {reply['fatal']}")
                self._drop_busy()
            elif "ready" in reply:
                worker.is_ready = True
            else:
                worker.item = None
                self._questions.settle(
                    reply["id"], Opinion(verdict=Verdict(reply["verdict"]), detail=reply["detail"])
                )
        return has_ended

    def _lose(self, worker: Worker, *, is_hung: bool) -> None:
        cpu_s = self._drop(worker)
        if worker.item is not None:
            self._questions.note_failure(worker.item, is_hung=is_hung, cpu_s=cpu_s)
        elif not worker.is_ready:
            self._questions.note_bad_start()

    def _drop_busy(self) -> None:
        """What they were asked is settled already: their replies must reach nobody."""
        for worker in [worker for worker in self._workers if worker.item is not None]:
            self._drop(worker)

    def _drop(self, worker: Worker) -> float:
        self._workers.remove(worker)
        return worker.kill()
