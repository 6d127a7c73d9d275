"""Remainders: sums, products, powers small and large, and linear congruences."""

from __future__ import annotations

from math import gcd

from pellucid.evidence.draw import Draw
from pellucid.evidence.fresh_items.item import Item


def draw_item(draw: Draw, level: int) -> Item:
    """Level 1 a sum, 2 a product, 3 a small power, 4 a large one, 5 a congruence to be solved."""
    if level == 5:
        return _congruence(draw)
    m = draw.randint(7, 20 + 20 * level)
    a, b = draw.randint(11, 99 * level), draw.randint(11, 99 * level)
    if level == 1:
        return Item(question=_asked(f"{a} + {b}", m), gold=str((a + b) % m))
    if level == 2:
        return Item(question=_asked(f"{a} * {b}", m), gold=str(a * b % m))
    exponent = draw.randint(3, 6) if level == 3 else draw.randint(30, 300)
    base = draw.randint(2, 30)
    return Item(question=_asked(f"{base}^{exponent}", m), gold=str(pow(base, exponent, m)))


def _asked(value: str, m: int) -> str:
    return f"What is the remainder when {value} is divided by {m}?"


def _congruence(draw: Draw) -> Item:
    while True:
        m, a = draw.randint(23, 199), draw.randint(3, 99)
        if gcd(a, m) == 1 and a % m != 1:
            break
    b = draw.randint(1, m - 1)
    question = (
        f"Find the smallest positive integer x such that {a}x leaves the remainder {b} "
        f"when divided by {m}."
    )
    return Item(question=question, gold=str(pow(a, -1, m) * b % m))
