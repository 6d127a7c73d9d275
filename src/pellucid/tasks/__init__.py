"""What is asked: prompt templates, and procedural tasks that need no download."""

from __future__ import annotations

from collections.abc import Callable

from pellucid.records import Problem
from pellucid.tasks import arithmetic, bilingual, chain, countdown, smalltalk

ProblemsFn = Callable[[str, int, int], list[Problem]]
"""(split, count, seed) -> problems, a prefix of any longer list. Splits share no structure."""

PROCEDURAL: dict[str, ProblemsFn] = {
    "chain": chain.problems,
    "arithmetic": arithmetic.problems,
    "countdown": countdown.problems,
    "bilingual": bilingual.problems,
    "smalltalk": smalltalk.helpful_problems,
    "smalltalk-safety": smalltalk.safety_problems,
}
