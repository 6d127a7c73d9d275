"""Procedural tasks hold out structures, not instances: a structure's name decides its split."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.tasks.lookup import lookup

SPLITS = {"train": "train", "test": "test"}
# Tries a task may spend on one problem before it counts as exhausted.
_TRIES = 2000


def split_of(structure: str, test_share: float) -> str:
    """`train` or `test`, a function of the structure alone and the same on every machine."""
    digest = hashlib.blake2b(structure.encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") < test_share * 2**64 else "train"


def draw_distinct(
    task: str,
    split: str,
    count: int,
    seed: int,
    draw: Callable[[random.Random, int], Problem | None],
) -> list[Problem]:
    """`count` distinct problems from `draw(generator, number)`, which answers None for a bad draw.

    A shorter list is a prefix of a longer one. DataError: unknown split, or too few are possible.
    """
    lookup(SPLITS, split, f"split of {task}", DataError)
    generator = random.Random(f"{task}/{split}/{seed}")
    found: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for number in range(count):
        for _ in range(_TRIES):
            problem = draw(generator, number)
            if problem is not None and (problem.question, problem.gold) not in seen:
                break
        else:
            raise DataError(
                f"{task} {split} has only {number} distinct problems of this kind, {count} were "
                "asked for: lower the limit"
            )
        seen.add((problem.question, problem.gold))
        found.append(problem)
    return found
