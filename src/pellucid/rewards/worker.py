"""One killable child process that runs the second grader, as the pool sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

START_LIMIT_S = 120.0
"""Importing sympy takes seconds on a loaded machine; no answer is blamed for it."""
_LIFE_FACTOR = 4.0
"""An orphaned worker ends itself after this many item time limits."""


class Worker:
    """A child process, busy with at most one item."""

    def __init__(self, judge: str, *, timeout_s: float, memory_mib: int) -> None:
        # The child must find the same packages as the parent, whatever path the parent was given.
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pellucid.rewards.serve",
                judge,
                str(memory_mib),
                str(_LIFE_FACTOR * timeout_s),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C goes to the parent, which closes its workers
        )
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._out = self._process.stdout
        self._in = self._process.stdin
        os.set_blocking(self._out.fileno(), False)
        self._pending = b""
        self._cpu_before_s = 0.0
        self.is_ready = False
        self.item: int | None = None
        """Item in work."""
        self.deadline = time.monotonic() + START_LIMIT_S

    def fileno(self) -> int:
        """For selectors: readable when a reply, or the end of the process, is there."""
        return self._out.fileno()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, item: int, gold: str, answer: str, *, limit_s: float) -> None:
        """Start on an item. Raises OSError where the process is gone."""
        question = json.dumps({"id": item, "gold": gold, "answer": answer})
        self.item = item
        self.deadline = time.monotonic() + limit_s
        self._in.write(question.encode() + b"\n")
        self._in.flush()

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """Replies that arrived, and whether the process has ended."""
        has_ended = False
        while True:
            try:
                chunk = os.read(self._out.fileno(), 65536)
            except BlockingIOError:
                break
            if not chunk:
                has_ended = True
                break
            self._pending += chunk
        *lines, self._pending = self._pending.split(b"\n")
        replies = [json.loads(line) for line in lines]
        for reply in replies:
            self._cpu_before_s = reply.get("cpu_s", self._cpu_before_s)
        return replies, has_ended

    def kill(self) -> float:
        """End the process at once; CPU seconds it had spent on the item in work."""
        if self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)  # Popen.kill would reap, and lose the usage
        for pipe in (self._in, self._out):
            with contextlib.suppress(BrokenPipeError):  # an unsent question to a dead process
                pipe.close()
        if self._process.returncode is not None:
            return 0.0
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return max(0.0, usage.ru_utime + usage.ru_stime - self._cpu_before_s)
