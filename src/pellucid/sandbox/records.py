"""What goes into the sandbox and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pellucid.config import CODE_TIMEOUT_S


class Outcome(StrEnum):
    """How the run of one program ended. All but `error` are the program's doing."""

    PASSED = "passed"
    WRONG = "wrong"
    """A test failed, or the program raised, crashed or left before its tests were done."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output-limit"
    ERROR = "error"
    """The instrument failed: the jail could not be started, or did not keep its protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use. Example: Limits(timeout_s=2.0, memory_mib=256)"""

    timeout_s: float = CODE_TIMEOUT_S
    """Wall seconds of the program with all its tests; CPU seconds of each process as well."""
    patience: float = 4.0
    """A program that computes and was given less CPU time than that, because the machine is busy,
    may take up to so many times as many wall seconds.
    """
    memory_mib: int = 512
    """Address space of each process."""
    processes: int = 16
    """Processes and threads together."""
    disk_mib: int = 16
    """Size of the private /tmp, and of the largest file."""
    output_kib: int = 1024
    """Printed text, and separately the encoded results."""
    open_files: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process's work: run `code`, then evaluate `calls` and send the values back as data.

    Example: Job(code="def f(x): return x + 1", calls=("f(1)", "f(2)"))
    """

    code: str
    calls: tuple[str, ...] = ()
    setup: str = ""
    """Run before `code`, in the same module."""
    tail: str = ""
    """Statements run last, in the program's own process."""
    values: tuple[Any, ...] = ()
    """Encoded values (`inside.wire`) that `code` and `calls` see as `_hole_0`, `_hole_1`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process did. Example: Run(outcome=Outcome.PASSED, values=(2, 3))"""

    outcome: Outcome
    """`passed`: everything was evaluated. Says nothing of whether the values are right."""
    detail: str = ""
    values: tuple[Any, ...] = ()
    """Encoded values of the calls; all or none."""
    output: str = ""
    """First characters of what the program printed unbuffered."""
    cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Verdict on a program under its tests.

    Example: Judgement(outcome=Outcome.WRONG, detail="assert f(2) == 3: got 4")
    """

    outcome: Outcome
    detail: str = ""
    num_tests: int = 0
    num_weak: int = 0
    """Tests that could only be run inside the program's own process: easier to forge."""
    run: Run | None = field(default=None, repr=False)
