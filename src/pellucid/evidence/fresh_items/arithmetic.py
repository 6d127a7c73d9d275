"""Integer expressions with brackets: level n has n + 1 operations, and larger numbers."""

from __future__ import annotations

from typing import NamedTuple

from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.item import Item

_LARGEST = (20, 30, 50, 70, 99)
_STRENGTH = {"+": 1, "-": 1, "*": 2}


class _Part(NamedTuple):
    text: str
    value: int
    strength: int
    """Of the outermost operation; 3 for a number."""


def draw_item(draw: Draw, level: int) -> Item:
    """An expression of `level` 1 … 5; the answer may be negative."""
    part = _expression(draw, level + 1, _LARGEST[level - 1])
    return Item(question=f"Calculate {part.text}.", gold=str(part.value))


def _expression(draw: Draw, operations: int, largest: int) -> _Part:
    if operations == 0:
        value = draw.randint(2, largest)
        return _Part(str(value), value, 3)
    on_the_left = draw.below(operations)
    left = _expression(draw, on_the_left, largest)
    operator = draw.choice("+-*")
    right = _expression(draw, operations - 1 - on_the_left, largest)
    strength = _STRENGTH[operator]
    text = f"{_text(left, strength)} {operator} {_text(right, strength + (operator == '-'))}"
    values = {
        "+": left.value + right.value,
        "-": left.value - right.value,
        "*": left.value * right.value,
    }
    return _Part(text, values[operator], strength)


def _text(part: _Part, needed: int) -> str:
    return part.text if part.strength >= needed else f"({part.text})"
