"""The second grader's process: one JSON question per line in, one JSON opinion per line out.

Started by `GraderPool` as `python -m pellucid.rewards.serve JUDGE MEMORY_MIB LIFE_S`: a plain child
with its own interpreter, no fork of a parent that runs threads, no re-import of its main module. It
may be killed at any moment.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from typing import TextIO

from pellucid.rewards.math import SecondOpinion


def load_judge(path: str) -> SecondOpinion:
    """The function named `module:attribute`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def answer_line(judge: SecondOpinion, line: str) -> dict[str, object]:
    """The reply to one question. Lack of memory is the answer's fault, all else ours."""
    question = json.loads(line)
    try:
        opinion = judge(question["gold"], question["answer"])
        reply = {"verdict": opinion.verdict.value, "detail": opinion.detail}
    except MemoryError:
        reply = {"verdict": "timeout", "detail": "needs more memory than a grader may use"}
    except Exception as error:  # noqa: BLE001  the boundary: any failure becomes a typed reply
        reply = {"verdict": "error", "detail": f"{type(error).__name__}: {error}"[:200]}
    return {"id": question["id"], **reply, "cpu_s": _cpu_s()}


def serve(judge_path: str, memory_mib: int, life_s: float) -> None:
    """Answer until standard input ends. Every question re-arms an alarm that ends the process."""
    replies = _take_stdout()
    try:
        judge = load_judge(judge_path)
    except ImportError as error:
        _send(replies, {"fatal": f"{type(error).__name__}: {error}"})
        return
    _limit_memory(memory_mib)
    _send(replies, {"ready": True, "cpu_s": _cpu_s()})
    for line in sys.stdin:
        # A parent that was killed cannot kill us: the default action of the alarm does.
        signal.setitimer(signal.ITIMER_REAL, life_s)
        reply = answer_line(judge, line)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _send(replies, reply)


def _take_stdout() -> TextIO:
    """Keep the pipe for replies; whatever a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _send(replies: TextIO, message: dict[str, object]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _limit_memory(memory_mib: int) -> None:
    if sys.platform == "linux":
        limit = memory_mib << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
