"""Sorted 64-bit hashes, and where in them others stand: a few steps each, not a binary search.

A table of booleans says of nearly all that are not there that they are not; the first bits of those
left say where to begin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.contamination.hashing import Hashes

Ints = NDArray[np.int64]

_FILTER_LOAD = 16
"""Slots of the table of booleans for each hash."""
_LEAST_BITS = 10


class SortedHashes:
    """Hashes, each once and in order [U]. Example: SortedHashes(grams).find(others)"""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        self._shift, slots, most = self._slots(_FILTER_LOAD)
        self._is_used = np.zeros(most, dtype=bool)
        self._is_used[slots] = True
        self._wide_shift, slots, most = self._slots(1)
        counts = np.bincount(slots, minlength=most)
        self._begin: Ints = np.cumsum(counts) - counts
        """Where each range of hashes begins."""

    def _slots(self, load: int) -> tuple[np.uint64, Ints, int]:
        """Bits to shift out for a slot, the slot of each hash, and how many slots there are."""
        bits = max(_LEAST_BITS, (len(self.hashes) * load).bit_length())
        shift = np.uint64(64 - bits)
        return shift, (self.hashes >> shift).view(np.int64), 1 << bits

    def find(self, others: Hashes) -> tuple[Ints, Ints]:
        """(place among the others, index here) of those that are here, in no order."""
        places = np.flatnonzero(self._is_used.take((others >> self._shift).view(np.int64)))
        others = others.take(places)
        found = self._begin.take((others >> self._wide_shift).view(np.int64))
        all_places, all_found = [places[:0]], [found[:0]]
        while len(found):
            there = self.hashes.take(found, mode="clip")
            real = there == others
            all_places.append(places[real])
            all_found.append(found[real])
            ahead = np.flatnonzero((there < others) & (found + 1 < len(self.hashes)))
            places, others, found = places.take(ahead), others.take(ahead), found.take(ahead) + 1
        return np.concatenate(all_places), np.concatenate(all_found)


def distinct(keys: NDArray) -> NDArray:
    """Sorted, each value once."""
    keys = np.sort(keys)
    is_new = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
    return keys[is_new]


def owners(begins: Ints, most: int) -> Ints:
    """[most] Which of the ranges that begin there, one after the other, each number is in."""
    return np.repeat(np.arange(len(begins)), np.diff(begins, append=most))


def ranges(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """(which range, number) of all numbers of ranges that begin at `starts` and have `counts`."""
    which = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return which, starts.take(which) + within
