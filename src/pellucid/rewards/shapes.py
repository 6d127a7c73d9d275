"""The shapes of answers: number, word, list, tuple, set, intervals, relation, matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pellucid.rewards.algebra import Value


@dataclass(frozen=True, slots=True)
class Number:
    """A number or an expression."""

    value: Value
    is_percent: bool = False


@dataclass(frozen=True, slots=True)
class Infinite:
    """Plus or minus infinity."""

    sign: int


@dataclass(frozen=True, slots=True)
class Word:
    """An answer in words, casefolded."""

    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """Several answers."""

    items: tuple[Shape, ...]
    brackets: str
    """As written: `()`, `[]`, `[)`, `(]`; `{}` a set, `:` a ratio, `±` two signs, empty a list."""


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple[Shape, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """`left op right` with op `=`, `<`, `<=` or `!=`; `>` is turned around."""

    left: Value
    op: str
    right: Value


@dataclass(frozen=True, slots=True)
class Assignment:
    """`x = answer` or `f(x) = answer`."""

    name: str
    shape: Shape


class Interval(NamedTuple):
    """From `low` to `high`; None is infinity."""

    low: Value | None
    has_low: bool
    high: Value | None
    has_high: bool


@dataclass(frozen=True, slots=True)
class Region:
    """A union of intervals of the real line, in order."""

    intervals: tuple[Interval, ...]


Shape = Number | Infinite | Word | Sequence | Matrix | Relation | Assignment | Region
