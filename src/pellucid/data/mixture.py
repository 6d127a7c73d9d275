"""Several tasks mixed into one endless row of problems, a function of (seed, position) alone.

    weights 0.5, 0.3, 0.2   a b a c a b a c b a | a b a c …   of each task its next problem

Whose turn a position is, Tijdeman's rule for the chairman assignment problem says (Discrete
Mathematics 32, 1980, pp. 323–330): among the tasks that are not ahead of their share, the one that
would fall behind first. So of any first n positions a task has its share of n to less than one, and
of any n consecutive ones to less than two. The problems of a task come in seeded shuffles, one an
epoch, and a single task is the case of one weight. There is no cursor to save and none to lose.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pellucid.config import TaskEntry
from pellucid.data.load import load_problems
from pellucid.errors import ConfigError
from pellucid.records import Problem


class Part(NamedTuple):
    """One task of a mixture."""

    problems: Sequence[Problem]
    weight: float


class Turn(NamedTuple):
    """Whose a position is."""

    part: int
    number: int
    """Positions of the same part before it, within the period of the turns."""


@dataclass(slots=True)
class Mixture:
    """Problems by position. Example: Mixture([Part(gsm8k, 0.7), Part(mbpp, 0.3)], seed=0)."""

    parts: Sequence[Part]
    seed: int
    _shares: tuple[int, ...] = field(init=False)
    """Weights as whole numbers without a common divisor: positions of each part in a period."""
    _turns: list[Turn] = field(init=False, default_factory=list)
    """The turns of the first period, as far as they were asked for."""
    _counts: list[int] = field(init=False)
    """Turns of each part so far."""
    _orders: dict[int, tuple[int, list[int]]] = field(init=False, default_factory=dict)
    """Of each part, the epoch that was asked for last and its shuffle."""

    def __post_init__(self) -> None:
        """Raises ConfigError without parts, or where one has no problem."""
        if not self.parts or not all(part.problems for part in self.parts):
            raise ConfigError("a mixture needs at least one task, and each task a problem")
        weights = [Fraction(str(part.weight)) for part in self.parts]  # 0.3 is three tenths
        scale = math.lcm(*(w.denominator for w in weights))
        whole = [int(w * scale) for w in weights]
        self._shares = tuple(n // math.gcd(*whole) for n in whole)
        self._counts = [0] * len(whole)

    @classmethod
    def single(cls, problems: Sequence[Problem], seed: int) -> Mixture:
        """A mixture of one task."""
        return cls([Part(problems, 1.0)], seed)

    @property
    def problems(self) -> list[Problem]:
        """All problems, part by part."""
        return [problem for part in self.parts for problem in part.problems]

    def window(self, first: int, count: int) -> list[Problem]:
        """The problems of `count` positions from `first` (from 0)."""
        return [self.at(position) for position in range(first, first + count)]

    def at(self, position: int) -> Problem:
        """The problem of a position (from 0)."""
        periods, place = divmod(position, sum(self._shares))
        part, number = self._turn(place)
        number += periods * self._shares[part]
        problems = self.parts[part].problems
        epoch, offset = divmod(number, len(problems))
        return problems[self._order(part, epoch)[offset]]

    def another(self, position: int, draw: random.Random) -> Problem:
        """A problem drawn from the part whose turn it is: replacing keeps the shares."""
        part = self._turn(position % sum(self._shares)).part
        return draw.choice(self.parts[part].problems)

    def _order(self, part: int, epoch: int) -> list[int]:
        if part not in self._orders or self._orders[part][0] != epoch:
            order = list(range(len(self.parts[part].problems)))
            random.Random(f"epoch/{self.seed}/{epoch}").shuffle(order)
            self._orders[part] = (epoch, order)
        return self._orders[part][1]

    def _turn(self, place: int) -> Turn:
        while len(self._turns) <= place:
            part = next_turn(self._shares, self._counts)
            self._turns.append(Turn(part, self._counts[part]))
            self._counts[part] += 1
        return self._turns[place]


def next_turn(shares: Sequence[int], counts: Sequence[int]) -> int:
    """Whose turn is next, where part i has the share `shares[i]` and had `counts[i]` turns.

    In units of the whole W = sum of shares, part i is owed shares[i]·n − counts[i]·W at the n-th
    turn. Those owed at least 1/(2k−2) of a turn may come, and the most urgent one does: the least
    (W − owed − W/(2k−2)) / shares[i]. Ties go to the first.
    """
    if len(shares) == 1:
        return 0
    whole, slack = sum(shares), 2 * len(shares) - 2
    turn = sum(counts) + 1
    owed = [share * turn - count * whole for share, count in zip(shares, counts, strict=True)]
    ready = [i for i, debt in enumerate(owed) if debt * slack >= whole]
    return min(ready, key=lambda i: Fraction((whole - owed[i]) * slack - whole, shares[i]))


def load_mixture(
    entries: Sequence[TaskEntry], *, seed: int, data_dir: Path | str | None = None
) -> Mixture:
    """The problems of all entries, mixed by weight.

    Raises DataError where a task is unknown or its data missing, ConfigError without entries.
    """
    parts = [
        Part(load_problems(e.name, e.split, limit=e.limit, data_dir=data_dir, seed=seed), e.weight)
        for e in entries
    ]
    return Mixture(parts, seed)
