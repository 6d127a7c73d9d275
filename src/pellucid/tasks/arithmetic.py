"""Integer expressions of one to four operations: difficulty grows with the number of operations.

    Calculate 7 * (12 - 5) + 3.        52

The structure is the expression with its numbers removed, `n*(n-n)+n`. One structure in five is held
out: a test problem's structure occurs in no training problem. Single operations are training only.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from pellucid.records import Problem
from pellucid.tasks.splits import draw_distinct, split_of

MAX_OPERATIONS = 4
TEST_SHARE = 0.2
MAX_VALUE = 9999
"""Largest intermediate or final value: beyond it the task is digit work, not reasoning."""
# Numbers get smaller as operations grow in number, so that values stay below MAX_VALUE.
_LARGEST = {1: 99, 2: 50, 3: 30, 4: 20}
_STRENGTH = {"+": 1, "-": 1, "*": 2}


class _Expression(NamedTuple):
    text: str
    structure: str
    value: int
    strength: int
    """Of the outermost operation; 3 for a number."""
    largest: int
    """Largest absolute value on the way."""


def problems(split: str, count: int, seed: int) -> list[Problem]:
    """`count` distinct problems, operations growing 1, 2, 3, 4, 1, … (test: from 2)."""

    def draw(generator: random.Random, number: int) -> Problem | None:
        least = 1 if split == "train" else 2
        operations = least + number % (MAX_OPERATIONS - least + 1)
        expression = _draw_expression(generator, operations, _LARGEST[operations])
        home = "train" if operations == 1 else split_of(expression.structure, TEST_SHARE)
        if home != split or expression.largest > MAX_VALUE:
            return None
        return Problem(
            id=f"arithmetic/{split}/{seed}-{number}",
            question=f"Calculate {expression.text}.",
            gold=str(expression.value),
            grader="math",
            family=f"arithmetic/{expression.structure}",
        )

    return draw_distinct("arithmetic", split, count, seed, draw)


def _draw_expression(generator: random.Random, operations: int, largest: int) -> _Expression:
    if operations == 0:
        value = generator.randint(1, largest)
        return _Expression(str(value), "n", value, 3, value)
    on_the_left = generator.randint(0, operations - 1)
    left = _draw_expression(generator, on_the_left, largest)
    operator = generator.choice("+-*")
    right = _draw_expression(generator, operations - 1 - on_the_left, largest)
    strength = _STRENGTH[operator]
    # Brackets only where they change the value: "a - (b + c)" but "a + b - c".
    left_text, left_structure = _bracketed(left, left.strength < strength)
    needs = right.strength < strength or (right.strength == strength and operator == "-")
    right_text, right_structure = _bracketed(right, needs)
    value = {
        "+": left.value + right.value,
        "-": left.value - right.value,
        "*": left.value * right.value,
    }[operator]
    return _Expression(
        f"{left_text} {operator} {right_text}",
        f"{left_structure}{operator}{right_structure}",
        value,
        strength,
        max(abs(value), left.largest, right.largest),
    )


def _bracketed(expression: _Expression, needed: bool) -> tuple[str, str]:
    if needed:
        return f"({expression.text})", f"({expression.structure})"
    return expression.text, expression.structure
