"""One jail: a bubblewrap process with a warm interpreter inside, asked over two pipes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import selectors
import signal
import struct
import subprocess
import time
from dataclasses import asdict
from typing import Any, Self

from pellucid.sandbox.isolation import PROGRAM_UID, jail_command, unsafe_command
from pellucid.sandbox.records import Job, Limits, Outcome, Run

START_LIMIT_S = 60.0
_GRACE_S = 15.0
"""The zygote ends a program at its limit; if it says nothing for so much longer, it is broken."""
_MAX_FRAME = 2**26
_SERIAL = itertools.count()


class JailError(Exception):
    """The instrument failed: the jail did not start or broke its protocol."""


class Jail:
    """Runs one program after the other, each in a process and /tmp of its own.

    Must be closed; the thread that starts it must outlive it (the kernel ends a jail with the
    thread that started it).
    """

    def __init__(self, *, unsafe: bool = False) -> None:
        """Raises JailError where it cannot start, SandboxError where bubblewrap is missing."""
        if unsafe:
            command = unsafe_command()
        else:
            is_root = os.geteuid() == 0
            uid = PROGRAM_UID + os.getpid() % 100_000 * 1000 + next(_SERIAL) % 1000
            command = jail_command(uid=uid if is_root else 0)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
        except OSError as error:
            raise JailError(str(error)) from error
        self._is_jailed = not unsafe
        try:
            ready = self._receive(time.monotonic() + START_LIMIT_S)
        except JailError:
            said = self._last_words()
            self.close()
            raise JailError(said or "it ended while starting") from None
        if not ready.get("ready"):
            self.close()
            raise JailError(str(ready.get("why")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it with everything inside."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def run(self, job: Job, limits: Limits) -> Run:
        """Run one job. Raises JailError where the jail itself failed."""
        token = secrets.token_hex(16)
        request = {**asdict(job), "limits": asdict(limits), "token": token}
        self._send(request)
        most_s = limits.timeout_s * limits.patience
        report = self._receive(time.monotonic() + most_s + _GRACE_S)
        if "failed" in report:
            raise JailError(str(report["failed"]))
        return _read_report(report, limits, token, num_calls=len(job.calls))

    def _send(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        left = memoryview(struct.pack("!I", len(body)) + body)
        assert self._process.stdin is not None
        try:
            while left:
                left = left[self._process.stdin.write(left) :]
        except OSError as error:
            raise JailError(f"the jail is gone: {error}") from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        (size,) = struct.unpack("!I", self._read(4, deadline))
        if size > _MAX_FRAME:
            raise JailError("the jail's answer has an impossible length")
        try:
            frame = json.loads(self._read(size, deadline))
        except ValueError as error:
            raise JailError("the jail's answer is no JSON") from error
        if not isinstance(frame, dict):
            raise JailError("the jail's answer is no object")
        return frame

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        fd, got = self._process.stdout.fileno(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while len(got) < size:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise JailError("the jail does not answer")
                chunk = os.read(fd, size - len(got))
                if not chunk:
                    raise JailError("the jail has ended")
                got += chunk
        return bytes(got)

    def _last_words(self) -> str:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stderr is not None
        return " ".join(self._process.stderr.read(2000).decode("utf-8", "replace").split())


def _read_report(report: dict[str, Any], limits: Limits, token: str, *, num_calls: int) -> Run:
    """The zygote's word on how it ended is trusted; `reply` is the program's, and is only data."""

    def ended(outcome: Outcome, detail: str = "", values: tuple[Any, ...] = ()) -> Run:
        return Run(
            outcome=outcome,
            detail=detail,
            values=values,
            output=report["output"],
            cpu_s=report["cpu_s"],
            wall_s=report["wall_s"],
        )

    if report["ending"] == "timeout":
        return ended(Outcome.TIMEOUT, f"not done in {limits.timeout_s:g} s")
    if report["ending"] == "output":
        return ended(Outcome.OUTPUT_LIMIT, f"wrote more than {limits.output_kib} KiB")
    code = os.waitstatus_to_exitcode(report["status"])
    if code == -signal.SIGXCPU or (
        code == -signal.SIGKILL and report["cpu_s"] >= limits.timeout_s - 0.5
    ):
        return ended(Outcome.TIMEOUT, f"computed for more than {limits.timeout_s:g} s")
    if code == -signal.SIGKILL:
        return ended(Outcome.MEMORY, "killed by the kernel")
    try:
        reply = json.loads(report["reply"])
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        return ended(Outcome.WRONG, f"ended without results, exit code {code}")
    for kind, outcome in (("memory", Outcome.MEMORY), ("raised", Outcome.WRONG)):
        if kind in reply:
            return ended(outcome, str(reply[kind])[:600])
    values = reply.get("values")
    if reply.get("token") != token or not isinstance(values, list) or len(values) != num_calls:
        return ended(Outcome.WRONG, "ended with something that is no result")
    return ended(Outcome.PASSED, values=tuple(values))
