"""Child processes: one that leaves a result file, or one that prints records as it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 12

RECORD = '{"record": true'
"""How a line begins that a peer reports something with; its other output is ignored."""


def result_of(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs `command --result FILE` and returns what it wrote, or why it did not.

    Either way `status` (`ok` or `failed`), `wall_s`, and where it failed `error` and `log_tail`.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        target, log = Path(folder, "result.json"), Path(folder, "log")
        with log.open("wb") as sink:
            child = _start([*command, "--result", str(target)], environment, sink, sink)
            with _ended(child, timeout_s) as late:
                child.wait()
        wall = {"wall_s": round(time.monotonic() - start, 2)}
        if child.returncode == 0 and target.exists():
            return {"status": "ok", **json.loads(target.read_text()), **wall}
        return {**_failure(child.returncode, late.is_set(), timeout_s, log), **wall}


def records_of(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the records that the command prints as they come; last, where it failed, why."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as sink:
            child = _start(command, environment, subprocess.PIPE, sink)
            assert child.stdout is not None, "asked for"
            with _ended(child, timeout_s) as late, child.stdout:
                for line in child.stdout:
                    text = line.decode(errors="replace").strip()
                    if text.startswith(RECORD):
                        yield {"status": "ok", **json.loads(text)}
                child.wait()
        if child.returncode != 0:
            yield _failure(child.returncode, late.is_set(), timeout_s, log)


def _start(
    command: Sequence[str], environment: Mapping[str, str] | None, stdout: Any, stderr: Any
) -> subprocess.Popen[bytes]:
    """A child with a process group of its own, so that what it forks can be ended with it."""
    return subprocess.Popen(
        command, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
    )


@contextmanager
def _ended(child: subprocess.Popen[bytes], timeout_s: float) -> Iterator[threading.Event]:
    """The child and what it forked are gone afterwards, and at the latest after `timeout_s`."""
    late = threading.Event()

    def end() -> None:
        late.set()
        _end_group(child.pid)

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        _end_group(child.pid)
        child.wait()


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of them have ended by themselves


def _failure(returncode: int, is_late: bool, timeout_s: float, log: Path) -> dict[str, Any]:
    tail = [_plain(t) for t in log.read_text(errors="replace").splitlines() if t.strip()]
    if is_late:
        error = f"ended after {timeout_s:.0f} s"
    else:
        error = tail[-1] if tail else f"ended with status {returncode} and no word"
    return {"status": "failed", "error": error, "log_tail": tail[-TAIL_LINES:]}


def _plain(line: str) -> str:
    """Without the folders of this machine."""
    for path, name in ((ROOT, "."), (sys.prefix, "PYTHON"), (tempfile.gettempdir(), "TMP")):
        line = line.replace(str(path), name)
    return line[:400]
