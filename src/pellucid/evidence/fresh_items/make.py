"""Fresh items: a function of the weights and of what the referee chose after they were sealed.

    seed    = SHA-256("pellucid fresh items 1" || weights root || 0x00 || nonce)
    item i  = of family i mod F and level (i div F) mod 5 + 1, key SHA-256(seed || FAMILY/i)

Nobody could train on them, nor choose among models by them, before the nonce was known. What a
preregistration seals is `generator_digest`: the sources of all that turns a nonce into items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pellucid
from pellucid.artifacts import sha256_bytes, sha256_json
from pellucid.errors import DataError
from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items import arithmetic, chain, logic, modular, programs, strings
from pellucid.evidence.fresh_items.item import Item
from pellucid.records import Problem
from pellucid.tasks.lookup import lookup

DOMAIN = b"pellucid fresh items 1"
LEVELS = 5
FAMILIES: dict[str, Callable[[Draw, int], Item]] = {
    "arithmetic": arithmetic.draw_item,
    "modular": modular.draw_item,
    "strings": strings.draw_item,
    "logic": logic.draw_item,
    "programs": programs.draw_item,
    "chain": chain.draw_item,
}
GENERAL = ("arithmetic", "modular", "strings", "logic", "programs")
"""Families for a model of any kind; `chain` is the language of the embedded one."""
_SOURCES = ("evidence/draw.py", "evidence/fresh_items", "tasks/chain.py")
_TRIES = 100
"""For an item unlike those before it: easy families repeat themselves now and then."""


def fresh_seed(weights_root: str, nonce: str) -> bytes:
    """What all items hang on. Raises DataError for an empty nonce: it would be no choice."""
    if not nonce:
        raise DataError("the nonce is empty: give a number or text that nobody could foresee")
    return hashlib.sha256(DOMAIN + weights_root.encode() + b"\0" + nonce.encode()).digest()


def make_items(
    weights_root: str, nonce: str, n: int, families: Sequence[str] = GENERAL
) -> list[Problem]:
    """`n` different problems, families and levels in turn; ids are `fresh/FAMILY-LEVEL/NUMBER`.

    A shorter list is a prefix of a longer one. Raises DataError.
    """
    if n < 1 or not families:
        raise DataError(f"{n} fresh items of {len(families)} families: ask for at least one")
    seed = fresh_seed(weights_root, nonce)
    problems: list[Problem] = []
    asked: set[str] = set()
    for number in range(n):
        name = families[number % len(families)]
        level = number // len(families) % LEVELS + 1
        item = _unlike(asked, seed, name, level, number)
        asked.add(item.question)
        problems.append(
            Problem(
                id=f"fresh/{name}-{level}/{number}",
                question=item.question,
                gold=item.gold,
                grader=item.grader,
                family=item.structure,
            )
        )
    return problems


def _unlike(asked: set[str], seed: bytes, name: str, level: int, number: int) -> Item:
    draw_item = lookup(FAMILIES, name, "family of fresh items", DataError)
    draw = Draw(hashlib.sha256(seed + f"{name}/{number}".encode()).digest())
    for _ in range(_TRIES):
        item = draw_item(draw, level)
        if item.question not in asked:
            return item
    raise DataError(f"family {name} has no more items of level {level}: ask for fewer")


def items_digest(problems: Sequence[Problem]) -> str:
    """SHA-256 over questions, golds and graders, in order."""
    return sha256_json([[p.id, p.question, p.gold, p.grader] for p in problems])


def generator_digest() -> str:
    """SHA-256 over the sources that make items: the same digest gives the same items."""
    root = Path(pellucid.__file__).parent
    files: dict[str, str] = {}
    for name in _SOURCES:
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            files[file.relative_to(root).as_posix()] = sha256_bytes(file.read_bytes())
    return sha256_json(files)
