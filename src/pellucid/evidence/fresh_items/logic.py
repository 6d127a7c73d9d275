"""Who stands where in a row: level n has n + 2 people, and just enough clues for one order.

Clues are of three kinds (before, right behind, place); they are thinned out until none can be
spared. Guessing a name helps one time in n + 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import permutations
from operator import and_
from typing import NamedTuple

from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.item import Item

_PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "June")
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")


class _Clue(NamedTuple):
    kind: str
    """`before`, `behind` (right behind), or `not` (not at a place)."""
    one: str
    other: str | int

    def holds(self, row: Sequence[str]) -> bool:
        if self.kind == "not":
            return row[int(self.other)] != self.one
        gap = row.index(str(self.other)) - row.index(self.one)
        return gap > 0 if self.kind == "before" else gap == -1

    def say(self) -> str:
        if self.kind == "not":
            return f"{self.one} is not {_PLACES[int(self.other)]}."
        where = "somewhere in front of" if self.kind == "before" else "directly behind"
        return f"{self.one} is {where} {self.other}."


def draw_item(draw: Draw, level: int) -> Item:
    """A row of level + 2 people; asked is who stands at one place."""
    row = draw.shuffled(_PEOPLE)[: level + 2]
    names = sorted(row)
    clues = _thinned(draw.shuffled(_true_clues(row)), names)
    place = draw.below(len(row))
    question = (
        f"{', '.join(names[:-1])} and {names[-1]} stand in a row, one behind the other. "
        f"{' '.join(clue.say() for clue in clues)} "
        f"Who is {_PLACES[place]}, counted from the front? Answer with the name."
    )
    return Item(question=question, gold=row[place], grader="exact")


def _true_clues(row: Sequence[str]) -> list[_Clue]:
    size = range(len(row))
    before = [_Clue("before", row[i], row[j]) for i in size for j in size if i < j]
    behind = [_Clue("behind", row[i + 1], row[i]) for i in size[:-1]]
    absent = [_Clue("not", row[i], j) for i in size for j in size if i != j]
    return before + behind + absent


def _thinned(clues: list[_Clue], names: Sequence[str]) -> list[_Clue]:
    """The first clues that leave a single order, less those that the others imply."""
    left = every = list(permutations(names))
    used: list[_Clue] = []
    for clue in clues:
        fitting = [row for row in left if clue.holds(row)]
        if len(fitting) < len(left):
            left, used = fitting, [*used, clue]
        if len(left) == 1:
            break
    # Bit i of a clue: whether it holds in order i. Together they must leave one bit.
    bits = {clue: sum(clue.holds(row) << i for i, row in enumerate(every)) for clue in used}
    for clue in list(used):
        others = [c for c in used if c is not clue]
        together = reduce(and_, (bits[c] for c in others), (1 << len(every)) - 1)
        if together.bit_count() == 1:
            used = others
    return used
