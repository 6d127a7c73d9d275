"""Graders by name: one table for training and for evaluation."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from pellucid.errors import ConfigError
from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.code import grade_code_problem, read_tests
from pellucid.rewards.constraints import grade_constraints, read_constraints
from pellucid.rewards.countdown import grade_countdown, read_puzzle
from pellucid.rewards.exact import can_read
from pellucid.rewards.gym import grade_gym, read_entry
from pellucid.rewards.math import grade_math_problem
from pellucid.rewards.second import can_parse
from pellucid.rewards.sequence import grade_sequence, read_sequence
from pellucid.rewards.simple import (
    grade_choice,
    grade_exact,
    grade_integer,
    plain_text,
    read_integer,
    read_letter,
)
from pellucid.rewards.smalltalk_judge import grade_smalltalk

GraderFn = Callable[[Problem, str], Score]

OPEN = "open"
"""Grader of problems without a gold."""


def grade_open(problem: Problem, response: str) -> Score:
    """Nothing to compare with: what a response is worth, a reward model says."""
    return Score(verdict=Verdict.UNGRADED, method=OPEN)


GRADERS: dict[str, GraderFn] = {
    "math": grade_math_problem,
    "integer": grade_integer,
    "exact": grade_exact,
    "countdown": grade_countdown,
    "choice": grade_choice,
    "code": grade_code_problem,
    "sequence": grade_sequence,
    "constraints": grade_constraints,
    "reasoning-gym": grade_gym,
    "smalltalk": grade_smalltalk,
    OPEN: grade_open,
}

_READERS: dict[str, Callable[[str], object]] = {
    "countdown": read_puzzle,
    "code": read_tests,
    "sequence": read_sequence,
    "constraints": read_constraints,
    "reasoning-gym": read_entry,
}
"""How structured golds are read: a ValueError says why one cannot be."""


def find_grader(name: str) -> GraderFn:
    """Raises ConfigError that names the nearest grader."""
    if name not in GRADERS:
        near = difflib.get_close_matches(name, GRADERS, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"unknown grader {name!r}; did you mean {near!r}? Graders: {', '.join(GRADERS)}"
        )
    return GRADERS[name]


def check_gold(problem: Problem) -> str | None:
    """Why the gold cannot be used by the problem's grader, or None where it can.

    Data loading refuses such rows. Raises ConfigError on an unknown grader.
    """
    find_grader(problem.grader)
    gold = problem.gold
    if problem.grader == OPEN:
        return None
    if not gold.strip():
        return "gold is empty"
    if problem.grader == "math":
        return _check_math_gold(gold)
    if problem.grader == "integer" and read_integer(gold) is None:
        return f"gold {gold!r} is no integer"
    if problem.grader == "choice" and read_letter(gold) is None:
        return f"gold {gold!r} is no option letter"
    if problem.grader == "exact" and not plain_text(gold):
        return f"gold {gold!r} is empty once its LaTeX is taken away"
    if problem.grader in _READERS:
        try:
            _READERS[problem.grader](gold)
        except ValueError as error:
            return str(error)
    return None


def _check_math_gold(gold: str) -> str | None:
    """Readable by the strict grader, or else by math-verify, asked for few golds in a hundred."""
    if gold.strip() in ("None", "null", "nan"):
        return f"gold is {gold.strip()}"
    return None if can_read(gold) or can_parse(gold) else f"gold {gold!r} cannot be parsed"
