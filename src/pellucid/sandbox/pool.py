"""Several jails at once: programs in, runs out, in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from pellucid.sandbox.isolation import require_isolation
from pellucid.sandbox.jail import Jail, JailError
from pellucid.sandbox.records import Job, Limits, Outcome, Run

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = ParamSpec("Given")
_TRIES = 2
"""A jail that fails is thrown away, and the job tried once more in a fresh one."""


class Sandbox:
    """Runs untrusted programs. Use as a context manager, or call `close`.

    Example:
        with Sandbox() as sandbox:
            run = sandbox.run(Job(code="def f(x): return x + 1", calls=("f(1)",)))
    """

    def __init__(
        self, *, limits: Limits | None = None, num_jails: int = 0, unsafe: bool = False
    ) -> None:
        """`num_jails` 0: one per CPU. `unsafe`: resource limits only, no isolation at all.

        Raises SandboxError where this machine cannot isolate and `unsafe` is not given.
        """
        if not unsafe:
            require_isolation()
        self.limits = limits or Limits()
        self.unsafe = unsafe
        self._num_jails = num_jails or len(os.sched_getaffinity(0))
        self._executor: ThreadPoolExecutor | None = None
        self._idle: list[Jail] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all jails; what is submitted and not begun is cancelled. The sandbox may be used
        again.
        """
        with self._lock:
            idle, self._idle = self._idle, []
            executor, self._executor = self._executor, None
        for jail in idle:
            jail.close()
        if executor is not None:
            executor.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`work` of each item, as many at a time as there are jails; `work` calls `run`."""
        return list(self._threads().map(work, items))

    def submit(
        self, work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs
    ) -> Future[Result]:
        """Starts `work`, which calls `run`, as soon as a jail is free."""
        return self._threads().submit(work, *args, **kwargs)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._num_jails, thread_name_prefix="jail")
            return self._executor

    def run_all(self, jobs: Sequence[Job]) -> list[Run]:
        """Runs in the order of the jobs."""
        return self.map(self._run_here, jobs)

    def run(self, job: Job) -> Run:
        """One job. The outcome is `error` where the instrument failed twice."""
        if threading.current_thread().name.startswith("jail"):
            return self._run_here(job)
        return self.run_all([job])[0]

    def _run_here(self, job: Job) -> Run:
        """On a thread of the executor, which outlives the jails that it starts."""
        for _ in range(_TRIES):
            try:
                jail = self._take()
            except JailError as error:
                failure = str(error)
                continue
            try:
                run = jail.run(job, self.limits)
            except JailError as error:
                failure = str(error)
                jail.close()
            except BaseException:
                jail.close()
                raise
            else:
                self._give(jail)
                return run
        return Run(outcome=Outcome.ERROR, detail=f"the sandbox failed: {failure}")

    def _take(self) -> Jail:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Jail(unsafe=self.unsafe)

    def _give(self, jail: Jail) -> None:
        with self._lock:
            if self._executor is not None:
                self._idle.append(jail)
                return
        jail.close()
