"""What is asked: prompt templates, and procedural tasks that need no download."""

from __future__ import annotations

import functools
from collections.abc import Callable

from pellucid.records import Problem
from pellucid.tasks import (
    arithmetic,
    bilingual,
    boolean,
    chain,
    constraints,
    countdown,
    gym,
    knights,
    smalltalk,
    sorting,
)

ProblemsFn = Callable[[str, int, int], list[Problem]]
"""(split, count, seed) -> problems, a prefix of any longer list. Splits share no structure."""

PROCEDURAL: dict[str, ProblemsFn] = {
    "chain": chain.problems,
    "arithmetic": arithmetic.problems,
    "countdown": countdown.problems,
    "knights": knights.problems,
    "sorting": sorting.problems,
    "boolean": boolean.problems,
    "constraints": constraints.problems,
    "bilingual": bilingual.problems,
    "smalltalk": smalltalk.helpful_problems,
    "smalltalk-safety": smalltalk.safety_problems,
    "smalltalk-judged": smalltalk.judged_helpful_problems,
    "smalltalk-safety-judged": smalltalk.judged_safety_problems,
}


def procedural(name: str) -> ProblemsFn | None:
    """The task of that name, also one of reasoning-gym; None where it is no procedural task."""
    if name.startswith(gym.PREFIX):
        return functools.partial(gym.problems, name)
    return PROCEDURAL.get(name)
