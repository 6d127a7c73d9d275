"""What a generator of fresh items returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question with its answer. Example: Item(question="Calculate 3 + 4 * 2.", gold="11")"""

    question: str
    gold: str
    grader: str = "integer"
    """Name in the table of `pellucid.rewards`."""
    structure: str = ""
    """Items of one structure are variants of each other; empty: the item stands alone."""
