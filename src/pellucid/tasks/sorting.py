"""Sorting by a stated rule: numbers or words, three to eight of them.

    Sort by last digit, equal ones by size: 41, 30, 21        30, 21, 41

The structure is the rule with the order in which the input stands (its ranks, 3 1 2): one in five
is held out, whatever the numbers or words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.tasks.lookup import lookup
from pellucid.tasks.splits import draw_distinct, split_of

LENGTHS = {"train": (3, 4, 5, 6, 7, 8), "test": (4, 5, 6, 7, 8)}
"""How many things are sorted, in turn. Three stand in too few orders to hold one out."""
TEST_SHARE = 0.2
LARGEST_NUMBER = 999
WORDS = (
    "apple", "arm", "autumn", "bell", "bird", "bread", "bridge", "candle", "cat", "chair", "cloud",
    "coat", "corn", "desk", "dog", "door", "dust", "eagle", "ear", "field", "fire", "fish", "fog",
    "forest", "garden", "gate", "glass", "grain", "hand", "harbour", "hat", "hill", "horse", "ice",
    "ink", "island", "jar", "key", "kitchen", "lamp", "leaf", "letter", "lion", "map", "market",
    "milk", "mirror", "moon", "nail", "needle", "nut", "oak", "orange", "owl", "paper", "pear",
    "pond", "queen", "rain", "ring", "river", "rope", "salt", "ship", "shoe", "silver", "snow",
    "spoon", "star", "stone", "sugar", "table", "tea", "thread", "tree", "valley", "village",
    "water", "wheel", "window", "wolf", "wood", "yard",
)  # fmt: skip


class _Rule(NamedTuple):
    words: str
    key: Callable[[Any], Any]
    is_numeric: bool


_RULES = {
    "rising": _Rule("from the smallest to the largest", lambda n: n, True),
    "falling": _Rule("from the largest to the smallest", lambda n: -n, True),
    "last-digit": _Rule(
        "by their last digit, the smaller number first where it is the same",
        lambda n: (n % 10, n),
        True,
    ),
    "digit-sum": _Rule(
        "by the sum of their digits, the smaller number first where it is the same",
        lambda n: (sum(map(int, str(n))), n),
        True,
    ),
    "alphabet": _Rule("in alphabetical order", lambda w: w, False),
    "length": _Rule(
        "from the shortest to the longest, in alphabetical order where the length is the same",
        lambda w: (len(w), w),
        False,
    ),
}


def problems(split: str, count: int, seed: int) -> list[Problem]:
    """`count` distinct problems of three (test: four) to eight things, under every rule in turn."""
    lengths = lookup(LENGTHS, split, "split of sorting", DataError)

    def draw(generator: random.Random, number: int) -> Problem | None:
        size = lengths[number % len(lengths)]
        name = list(_RULES)[number // len(lengths) % len(_RULES)]
        rule = _RULES[name]
        pool: Sequence[Any] = range(1, LARGEST_NUMBER + 1) if rule.is_numeric else WORDS
        things = generator.sample(pool, size)
        right = sorted(things, key=rule.key)
        structure = f"{name}/{'-'.join(str(right.index(thing)) for thing in things)}"
        home = "train" if size == LENGTHS["train"][0] else split_of(structure, TEST_SHARE)
        if right == things or home != split:
            return None
        what = "numbers" if rule.is_numeric else "words"
        return Problem(
            id=f"sorting/{split}/{seed}-{number}",
            question=f"Sort these {what} {rule.words}: {_listed(things)}. The answer is all of "
            "them in the new order, with commas between.",
            gold=_listed(right),
            grader="sequence",
            family=f"sorting/{structure}",
        )

    return draw_distinct("sorting", split, count, seed, draw)


def _listed(things: Sequence[Any]) -> str:
    return ", ".join(map(str, things))
