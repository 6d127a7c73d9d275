"""First process of a jail: a warm interpreter that forks one confined process per job.

The judged program can write to two pipes, its printed output and its results, and both are data to
everybody else. How it ended is taken from the kernel by this process, whose descriptors the
program does not hold and whose process it cannot name.
"""

from __future__ import annotations

import bisect  # noqa: F401 - what programs import often, loaded once
import calendar  # noqa: F401
import cmath  # noqa: F401
import copy  # noqa: F401
import datetime  # noqa: F401
import functools  # noqa: F401
import gc
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math  # noqa: F401
import operator  # noqa: F401
import os
import random
import re  # noqa: F401
import select
import signal
import statistics  # noqa: F401
import string  # noqa: F401
import struct
import sys
import time
import types
import typing  # noqa: F401

import confine
import wire
from deadline import Deadline, cpu_seconds

_KEEP = 2000
"""Characters kept of printed output and of messages."""


def main() -> None:
    mode, uid = sys.argv[1], int(sys.argv[2])
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    zygote = Zygote(mode, uid, fds=(requests, answers, nothing))
    _send(answers, zygote.start())
    gc.collect()
    gc.freeze()  # the children share these pages for longer
    while (job := _receive(requests)) is not None:
        _send(answers, zygote.run(job))


class Zygote:
    """`mode`: jail (bubblewrap around it) or unsafe (nothing around it)."""

    def __init__(self, mode: str, uid: int, fds: tuple[int, ...]) -> None:
        self._is_jailed = mode == "jail"
        self._uid = uid
        self._fds = fds
        self._flags = 0
        self._filter = b""

    def start(self) -> dict[str, object]:
        """Find out what this machine allows."""
        if not self._is_jailed:
            return {"ready": True}
        if not confine.can_confine():
            return {"ready": False, "why": "no system-call filter for this architecture"}
        try:
            confine.hide_memory()
            self._filter = confine.build_filter()
        except OSError as error:
            return {"ready": False, "why": str(error)}
        try:
            pid = confine.clone(confine.NEW_NAMESPACES)
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            self._flags = confine.NEW_NAMESPACES
        except OSError as error:
            return {"ready": False, "why": f"no namespaces inside the jail: {error}"}
        return {"ready": True}

    def run(self, job: dict) -> dict[str, object]:
        """Fork, watch, and say how it ended."""
        armed, output, reply = os.pipe(), os.pipe(), os.pipe()
        start = time.monotonic()
        try:
            pid = confine.clone(self._flags)
        except OSError as error:
            for pipe in (armed, output, reply):
                os.close(pipe[0])
                os.close(pipe[1])
            return {"failed": str(error)}
        if pid == 0:
            self._become(job, armed[1], output[1], reply[1])
        for pipe in (armed, output, reply):
            os.close(pipe[1])
        watch = _Watch(output[0], reply[0], int(job["limits"]["output_kib"]) * 1024)
        limits = job["limits"]
        ending = watch.until_end(pid, Deadline(start, limits["timeout_s"], limits["patience"]))
        if not self._flags:
            _kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
        watch.drain()
        confined = os.read(armed[0], 4000)
        for fd in (armed[0], output[0], reply[0]):
            os.close(fd)
        if confined != b"armed":
            return {"failed": confined.decode("utf-8", "replace") or "died before it was confined"}
        return {
            "ending": watch.verdict or ending,
            "status": status,
            "reply": bytes(watch.text[reply[0]]).decode("utf-8", "replace"),
            "output": bytes(watch.text[output[0]][:_KEEP]).decode("utf-8", "replace"),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": time.monotonic() - start,
        }

    def _become(self, job: dict, armed: int, output: int, reply: int) -> None:
        """The child: confine itself, then never return."""
        try:
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            for fd in self._fds:
                os.close(fd)
            if not self._flags:
                os.setsid()
            if self._is_jailed:
                confine.private_tmp(int(job["limits"]["disk_mib"]))
                os.chdir("/tmp")
            confine.limit(job["limits"])
            if self._is_jailed:
                confine.resign(self._uid)
                confine.filter_calls(self._filter)
        except BaseException as error:  # noqa: BLE001 - reported as the instrument's failure
            os.write(armed, f"cannot confine: {error}".encode()[:2000])
            os._exit(1)
        os.write(armed, b"armed")
        os.close(armed)
        random.seed(0)
        try:
            _answer(reply, _work(job))
        finally:
            os._exit(0)


class _Watch:
    """Reads both pipes up to a bound each, until the process ends or must be ended."""

    def __init__(self, output: int, reply: int, bound: int) -> None:
        self.text = {output: bytearray(), reply: bytearray()}
        self._bound = bound
        self.verdict = ""
        for fd in self.text:
            os.set_blocking(fd, False)

    def until_end(self, pid: int, deadline: Deadline) -> str:
        """`exit`, or `timeout` or `output` where it had to be killed."""
        ended = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        for fd in self.text:
            poll.register(fd, select.POLLIN)
        try:
            while True:
                now = time.monotonic()
                if now >= deadline.at and not deadline.extend(now, cpu_seconds(pid)):
                    os.kill(pid, signal.SIGKILL)
                    return "timeout"
                events = dict(poll.poll(max(0.0, deadline.at - now) * 1000))
                for fd in [fd for fd in events if fd != ended]:
                    if not self._read(fd):
                        poll.unregister(fd)
                if self.verdict:
                    os.kill(pid, signal.SIGKILL)
                    return self.verdict
                if ended in events:
                    return "exit"
        finally:
            os.close(ended)

    def drain(self) -> None:
        """What was still in the pipes when the process ended."""
        for fd in self.text:
            while not self.verdict and self._read(fd):
                pass

    def _read(self, fd: int) -> bool:
        """Whether more may follow."""
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return False
        self.text[fd] += chunk
        if len(self.text[fd]) > self._bound:
            self.verdict = "output"
        return bool(chunk)


def _kill_group(pid: int) -> None:
    """Without a process namespace only the program's session can be ended."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _work(job: dict) -> dict[str, object]:
    """In the judged process: whatever is done to this code, what leaves it is only data."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    space = module.__dict__
    for i, data in enumerate(job["values"]):
        space[f"_hole_{i}"] = wire.decode(data)
    values: list[object] = []
    where = "the program"
    try:
        for name in ("setup", "code"):
            where = f"the {'program' if name == 'code' else name}"
            exec(compile(job[name], f"<{name}>", "exec", dont_inherit=True), space)  # noqa: S102
        for call in job["calls"]:
            where = call
            values.append(wire.encode(eval(call, space)))  # noqa: S307 - that is the task
        if job["tail"]:
            where = "the tests"
            exec(compile(job["tail"], "<tests>", "exec", dont_inherit=True), space)  # noqa: S102
    except BaseException as error:  # noqa: BLE001 - all that a program may raise
        kind = "memory" if isinstance(error, MemoryError) else "raised"
        return {kind: f"{where[:200]}: {type(error).__name__}: {_text(error)}"}
    return {"values": values, "token": job["token"]}


def _text(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except BaseException:  # noqa: BLE001 - the program's own __str__
        return ""


def _answer(fd: int, answer: dict[str, object]) -> None:
    try:
        text = json.dumps(answer)
    except (MemoryError, RecursionError, ValueError) as error:
        kind = "memory" if isinstance(error, MemoryError) else "raised"
        text = json.dumps({kind: f"results: {type(error).__name__}"})
    left = memoryview(text.encode())
    while left:
        left = left[os.write(fd, left) :]


def _receive(fd: int) -> dict | None:
    head = _read_exactly(fd, 4)
    if head is None:
        return None
    body = _read_exactly(fd, struct.unpack("!I", head)[0])
    return None if body is None else json.loads(body)


def _read_exactly(fd: int, size: int) -> bytes | None:
    got = bytearray()
    while len(got) < size:
        chunk = os.read(fd, size - len(got))
        if not chunk:
            return None
        got += chunk
    return bytes(got)


def _send(fd: int, frame: dict[str, object]) -> None:
    body = json.dumps(frame).encode()
    left = memoryview(struct.pack("!I", len(body)) + body)
    while left:
        left = left[os.write(fd, left) :]


if __name__ == "__main__":
    main()
