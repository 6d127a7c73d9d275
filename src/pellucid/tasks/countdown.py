"""Countdown: write an expression over given numbers that equals a target. Solvable by construction.

    Numbers 3, 7 and 25, target 46:  25 + 3 * 7

The target is the value of a random expression over the numbers, every step a positive integer.
The structure is the multiset of numbers: one in ten is held out, whatever its targets.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from pellucid.records import Problem
from pellucid.tasks.splits import draw_distinct, split_of

NUMBERS = (3, 4)
"""How many numbers a problem has, in turn."""
LARGEST_NUMBER = 50
TARGETS = range(10, 1000)
TEST_SHARE = 0.1


def problems(split: str, count: int, seed: int) -> list[Problem]:
    """`count` distinct problems, of three and four numbers in turn."""

    def draw(generator: random.Random, number: int) -> Problem | None:
        size = NUMBERS[number % len(NUMBERS)]
        numbers = [generator.randint(1, LARGEST_NUMBER) for _ in range(size)]
        structure = ",".join(str(n) for n in sorted(numbers))
        if split_of(structure, TEST_SHARE) != split:
            return None
        target = _reach(generator, numbers)
        if target not in TARGETS or target in numbers:
            return None
        return Problem(
            id=f"countdown/{split}/{seed}-{number}",
            question=_question(numbers, target),
            gold=json.dumps({"numbers": numbers, "target": target}),
            grader="countdown",
            family=f"countdown/{structure}",
        )

    return draw_distinct("countdown", split, count, seed, draw)


def _question(numbers: Sequence[int], target: int) -> str:
    listed = ", ".join(str(n) for n in numbers[:-1])
    return (
        f"Use each of the numbers {listed} and {numbers[-1]} exactly once, with +, -, *, / and "
        f"brackets, to write an expression that equals {target}. The answer is the expression."
    )


def _reach(generator: random.Random, numbers: Sequence[int]) -> int:
    """Join random pairs until one value is left; every step gives a positive integer."""
    values = list(numbers)
    while len(values) > 1:
        generator.shuffle(values)
        a, b = values.pop(), values.pop()
        results = [a + b, a * b]
        if a > b:
            results.append(a - b)
        if a % b == 0 and b > 1:
            results.append(a // b)
        values.append(generator.choice(results))
    return values[0]
