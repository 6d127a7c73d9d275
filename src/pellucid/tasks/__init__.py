"""What is asked: prompt templates, and procedural tasks that need no download."""

from __future__ import annotations

from collections.abc import Callable

from pellucid.records import Problem
from pellucid.tasks import arithmetic, chain, countdown

ProblemsFn = Callable[[str, int, int], list[Problem]]
"""(split, count, seed) -> problems, a prefix of any longer list. Splits share no structure."""

PROCEDURAL: dict[str, ProblemsFn] = {
    "chain": chain.problems,
    "arithmetic": arithmetic.problems,
    "countdown": countdown.problems,
}
