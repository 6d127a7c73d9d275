"""Exact comparison of two mathematical answers."""

from __future__ import annotations

from fractions import Fraction

from pellucid.rewards.latex import tidy


def compare(gold: str, answer: str) -> bool | None:
    """True or False where it is certain, None where this grader cannot decide."""
    left, right = tidy(gold), tidy(answer)
    if left == right:
        return True
    try:
        return Fraction(left) == Fraction(right)
    except (ValueError, ZeroDivisionError):
        return None
