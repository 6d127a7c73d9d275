"""Problems of reasoning-gym, an optional package with a hundred procedural data sets.

    name = "reasoning-gym/leg_counting"

Its generators have no held-out structures: training and test differ in their seeds alone. Data sets
whose scorers run the answer as Python are refused, because the answer is a model's.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.tasks.lookup import lookup
from pellucid.tasks.splits import SPLITS

PREFIX = "reasoning-gym/"
MOST_ENTRIES = 1_000_000
"""Of one data set and seed."""
_RUNS_TEXT = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")


def problems(name: str, split: str, count: int, seed: int) -> list[Problem]:
    """`count` problems of the data set behind the prefix.

    Raises DataError where the package is missing, the data set unknown or refused.
    """
    lookup(SPLITS, split, f"split of {name}", DataError)
    dataset_name = name.removeprefix(PREFIX)
    own_seed = _seed(dataset_name, split, seed)
    found: list[Problem] = []
    for index in range(count):
        entry = make_entry(dataset_name, own_seed, index)
        gold = {"dataset": dataset_name, "seed": own_seed, "index": index}
        found.append(
            Problem(
                id=f"{name}/{split}/{seed}-{index}",
                question=entry["question"],
                gold=json.dumps(gold | {"answer": entry["answer"]}, ensure_ascii=False),
                grader="reasoning-gym",
            )
        )
    return found


@functools.lru_cache(maxsize=10_000)
def make_entry(name: str, seed: int, index: int) -> Mapping[str, Any]:
    """An entry as the package makes it, with `question`, `answer` and what its scorer needs."""
    entry: Mapping[str, Any] = make_dataset(name, seed)[index]
    return entry


@functools.lru_cache(maxsize=16)
def make_dataset(name: str, seed: int) -> Any:
    """A data set of the package; see `problems` for what is raised."""
    try:
        from reasoning_gym import factory
    except ImportError as error:
        raise DataError(
            f"{PREFIX}{name} needs the package reasoning-gym: install pellucid[reasoning-gym]"
        ) from error
    lookup(factory.DATASETS, name, "data set of reasoning-gym", DataError)
    try:
        dataset = factory.create_dataset(name, seed=seed, size=MOST_ENTRIES)
    except (ValueError, AssertionError) as error:  # how the package says that values do not fit
        raise DataError(
            f"{PREFIX}{name} cannot be made with its default values ({error}): choose another"
        ) from error
    if _RUNS_TEXT.search(inspect.getsource(sys.modules[type(dataset).__module__])):
        raise DataError(
            f"{PREFIX}{name} is refused: its module runs text as Python, and a model's answer "
            "must not be run; choose another data set"
        )
    return dataset


def _seed(name: str, split: str, seed: int) -> int:
    """Entry i of seed s is entry i - 1 of s + 1: hashing keeps splits and seeds apart."""
    text = f"reasoning-gym/{name}/{split}/{seed}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
