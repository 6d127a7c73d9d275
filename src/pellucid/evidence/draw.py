"""Random choices as a function of a key alone: SHA-256 in counter mode, not Python's `random`.

Items made from a referee's nonce must come out alike on every machine and version, today and in ten
years, so the whole definition is in this file:

    word i of a key = the first 8 bytes, big-endian, of SHA-256(key || i as 8 bytes, big-endian)
    below(n)        = the next word modulo n; words from the last multiple of n on are skipped
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_WORDS = 1 << 64


class Draw:
    """A stream of choices. Example: Draw(b"key").below(10) is always the same digit."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._next = 0

    def below(self, n: int) -> int:
        """An integer from 0 … n - 1, each as likely. ValueError for n < 1."""
        if n < 1:
            raise ValueError(f"nothing to choose from {n} values")
        whole = _WORDS - _WORDS % n
        while (word := self._word()) >= whole:
            continue
        return word % n

    def randint(self, low: int, high: int) -> int:
        """An integer from low … high, both included; the name is that of `random.Random`, so that
        tasks can draw from either."""
        return low + self.below(high - low + 1)

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[self.below(len(options))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in a random order (Fisher and Yates)."""
        order = list(options)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def _word(self) -> int:
        block = hashlib.sha256(self._key + self._next.to_bytes(8, "big")).digest()
        self._next += 1
        return int.from_bytes(block[:8], "big")
