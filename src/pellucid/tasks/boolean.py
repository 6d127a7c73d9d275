"""Boolean expressions: the values of three at once, so that guessing helps one time in eight.

    1. not (True and False)   2. False or not True   3. …        true, false, …

The structure is an expression without its constants, `not (v and v)`: one in five is held out, so
no expression of a test problem occurs in training with other constants.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.tasks.lookup import lookup
from pellucid.tasks.splits import SPLITS, draw_distinct, split_of

OPERATIONS = (2, 3, 4, 5, 6)
"""Of each expression, in turn."""
EXPRESSIONS = 3
TEST_SHARE = 0.2


class Expression(NamedTuple):
    """An expression in the words of Python."""

    text: str
    structure: str
    value: bool
    strength: int
    """Of the outermost operation: or 1, and 2, not 3, a constant 4."""


def problems(split: str, count: int, seed: int) -> list[Problem]:
    """`count` distinct problems; expressions have two to six operations in turn."""

    def draw(generator: random.Random, number: int) -> Problem:
        operations = OPERATIONS[number % len(OPERATIONS)]
        drawn: list[Expression] = []
        while len(drawn) < EXPRESSIONS:  # a fifth of all is at home in the rarer split
            expression = _draw(generator, operations)
            if split_of(expression.structure, TEST_SHARE) == split:
                drawn.append(expression)
        listed = " ".join(f"{i}. {e.text}." for i, e in enumerate(drawn, 1))
        return Problem(
            id=f"boolean/{split}/{seed}-{number}",
            question="What is the value of each expression? `not` binds before `and`, and `and` "
            f"before `or`. {listed} The answer is a word for each, true or false, in this order, "
            "with commas between.",
            gold=", ".join(str(e.value).lower() for e in drawn),
            grader="sequence",
            family=f"boolean/{'; '.join(e.structure for e in drawn)}",
        )

    lookup(SPLITS, split, "split of boolean", DataError)  # or no expression were ever at home
    return draw_distinct("boolean", split, count, seed, draw)


def _draw(generator: random.Random, operations: int) -> Expression:
    if operations == 0:
        value = generator.random() < 0.5
        return Expression(str(value), "v", value, 4)
    operator = generator.choice(("and", "or", "not"))
    if operator == "not":
        inner = _draw(generator, operations - 1)
        text, structure = _bracketed(inner, inner.strength < 3)
        return Expression(f"not {text}", f"not {structure}", not inner.value, 3)
    on_the_left = generator.randint(0, operations - 1)
    left = _draw(generator, on_the_left)
    right = _draw(generator, operations - 1 - on_the_left)
    strength = 2 if operator == "and" else 1
    left_text, left_structure = _bracketed(left, left.strength < strength)
    right_text, right_structure = _bracketed(right, right.strength < strength)
    value = left.value and right.value if operator == "and" else left.value or right.value
    return Expression(
        f"{left_text} {operator} {right_text}",
        f"{left_structure} {operator} {right_structure}",
        value,
        strength,
    )


def _bracketed(expression: Expression, needed: bool) -> tuple[str, str]:
    if needed:
        return f"({expression.text})", f"({expression.structure})"
    return expression.text, expression.structure
