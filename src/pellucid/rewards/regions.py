"""Conditions on one real variable as unions of intervals: `x > 1`, `(1, oo)`, `|x| > 1`."""

from __future__ import annotations

import string

from pellucid.rewards import algebra
from pellucid.rewards.algebra import UndecidedError, Value
from pellucid.rewards.shapes import Infinite, Interval, Number, Region, Relation, Sequence, Shape

REALS = Region((Interval(None, False, None, False),))
_INTERVAL_BRACKETS = ("()", "[]", "[)", "(]")


def as_region(shape: Shape) -> Region | None:
    """The part of the real line that the shape describes, or None where it describes none."""
    if isinstance(shape, Region):
        return shape
    if isinstance(shape, Relation):
        return _condition(shape)
    if isinstance(shape, Sequence):
        if len(shape.items) == 2 and shape.brackets in _INTERVAL_BRACKETS:
            return _interval(shape)
        if shape.brackets == "{}":
            points = [item.value for item in shape.items if isinstance(item, Number)]
            if len(points) == len(shape.items):
                return Region(tuple(Interval(p, True, p, True) for p in points))
    return None


def union(regions: list[Region]) -> Region:
    """All their intervals in order. Overlaps stay: two unions are compared as they are written."""
    intervals = [interval for region in regions for interval in region.intervals]
    return Region(tuple(sorted(intervals, key=_start)))


def same_region(a: Region, b: Region) -> bool | None:
    """Interval by interval; None where an end cannot be decided."""
    if len(a.intervals) != len(b.intervals):
        return False
    verdicts: list[bool | None] = []
    for one, other in zip(union([a]).intervals, union([b]).intervals, strict=True):
        verdicts.append((one.has_low, one.has_high) == (other.has_low, other.has_high))
        verdicts.append(_same_end(one.low, other.low))
        verdicts.append(_same_end(one.high, other.high))
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _same_end(a: Value | None, b: Value | None) -> bool | None:
    if a is None or b is None:
        return a is b
    return algebra.equal(a, b)


def _start(interval: Interval) -> float:
    if interval.low is None:
        return -float("inf")
    number = algebra.numeric(interval.low)
    if number is None:
        raise UndecidedError("interval with a symbolic end")
    return number.real


def _interval(shape: Sequence) -> Region | None:
    first, last = shape.items
    starts = isinstance(first, Number) or first == Infinite(-1)
    ends = isinstance(last, Number) or last == Infinite(1)
    if not (starts and ends):
        return None
    low = first.value if isinstance(first, Number) else None
    high = last.value if isinstance(last, Number) else None
    opens, closes = shape.brackets
    has_low, has_high = opens == "[" and low is not None, closes == "]" and high is not None
    return Region((Interval(low, has_low, high, has_high),))


def _condition(relation: Relation) -> Region | None:
    left, right, closed = relation.left, relation.right, relation.op == "<="
    if relation.op == "!=" and algebra.as_variable(left) and algebra.numeric(right) is not None:
        below, above = Interval(None, False, right, False), Interval(right, False, None, False)
        return Region((below, above))
    if relation.op not in ("<", "<="):
        return None
    if algebra.as_variable(left) and algebra.numeric(right) is not None:
        return Region((Interval(None, False, right, closed),))
    if algebra.as_variable(right) and algebra.numeric(left) is not None:
        return Region((Interval(left, closed, None, False),))
    if _is_absolute(left) and _is_positive(right):
        return Region((Interval(algebra.negate(right), closed, right, closed),))
    if _is_absolute(right) and _is_positive(left):
        below = Interval(None, False, algebra.negate(left), closed)
        return Region((below, Interval(left, closed, None, False)))
    return None


def _is_positive(value: Value) -> bool:
    number = algebra.numeric(value)
    return number is not None and number.real > algebra.APART


def _is_absolute(value: Value) -> bool:
    """Whether it is |v| of a single variable v."""
    return any(
        algebra.equal(value, algebra.opaque("abs", algebra.symbol(name), value=None)) is True
        for name in string.ascii_letters
        if name not in "ei"
    )
