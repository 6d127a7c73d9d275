"""Of pairs that count, the n-grams in common, as `containment` counts them word by word.

All pairs of a batch are counted at once, from hashes under another key than that of the search: two
n-grams would have to collide under both to be taken for one.

Legend: P pairs · W words · I items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.audit.contamination.hashing import (
    GramHashes,
    Hashes,
    WordHasher,
    Words,
    mask_numbers,
    mixed,
)
from pellucid.audit.contamination.lookup import Ints, SortedHashes, distinct, ranges
from pellucid.evidence.core.containment import LENGTHS, Containment

_KEY = 3
"""Not that of the search."""
_OWNER = np.uint64(0xC2B2AE3D27D4EB4F)


class PairCounter:
    """Counts what documents hold of items. Example: PairCounter(items).count(texts, [0], [7])"""

    def __init__(self, items: Sequence[str]) -> None:
        self._hasher = WordHasher(_KEY)
        plain = self._hasher.hash(items)
        self._items = {False: plain, True: mask_numbers(plain)}

    def count(
        self, texts: Sequence[str], document: Ints, item: Ints, *, masked: bool = False
    ) -> list[tuple[Containment, ...]]:
        """For each pair [P] of a text's and an item's number, a count for each of `LENGTHS`.

        `masked`: in the number-masked form.
        """
        documents = self._hasher.hash(texts)
        if masked:
            documents = mask_numbers(documents)
        items = self._items[masked]
        lengths = np.diff(items.first).take(item)
        columns = []
        for n in LENGTHS:
            counts = np.zeros((len(item), len(Containment._fields)), dtype=np.int64)
            sizes = np.minimum(n, lengths)
            for size in np.unique(sizes[sizes > 0]).tolist():
                pairs = np.flatnonzero(sizes == size)
                there, of = _picked(documents, document.take(pairs))
                here, whose = _picked(items, item.take(pairs))
                counts[pairs] = _counts(there, here, size, of, whose)
            columns.append([Containment(*row) for row in counts.tolist()])
        return list(zip(*columns, strict=True))


def _counts(documents: Words, items: Words, size: int, document: Ints, item: Ints) -> Ints:
    """[P, 4] The fields of `Containment`, of pairs whose items have `size` words or more."""
    owner, place = _places(documents, size, np.arange(len(documents.first) - 1))
    grams = GramHashes(documents.hashes).of(size)
    there = _keys(grams.take(place), owner)
    grams = GramHashes(items.hashes).of(size)
    which, place = _places(items, size, item)
    # A key belongs to one document; an item's n-gram that occurs twice is found twice in it.
    wanted, number = np.unique(_keys(grams.take(place), document.take(which)), return_inverse=True)
    is_there = np.zeros(len(wanted), dtype=bool)
    is_there[SortedHashes(wanted).find(there)[1]] = True
    query = np.flatnonzero(is_there.take(number))
    bits = len(wanted).bit_length()
    once = distinct((which.take(query) << bits) | number.take(query)) >> bits
    pair, at = which.take(query), place.take(query)
    reach = np.full(len(at), size)
    np.minimum(reach[:-1], np.diff(at), out=reach[:-1], where=pair[1:] == pair[:-1])
    return np.stack(
        [
            np.bincount(once, minlength=len(item)),
            _totals(items, grams, size).take(item),
            np.bincount(pair, weights=reach, minlength=len(item)).astype(np.int64),
            np.diff(items.first).take(item),
        ],
        axis=1,
    )


def _totals(items: Words, grams: Hashes, size: int) -> Ints:
    """[I] Distinct n-grams of each item."""
    number = len(items.first) - 1
    owner, place = _places(items, size, np.arange(number))
    bits = number.bit_length()
    above = np.uint64(64 - bits)
    keys = (owner.astype(np.uint64) << above) | (grams.take(place) >> np.uint64(bits))
    return np.bincount((distinct(keys) >> above).view(np.int64), minlength=number)


def _picked(words: Words, owners: Ints) -> tuple[Words, Ints]:
    """The words of some texts alone, each once, and the owners' numbers among these."""
    once, number = np.unique(owners, return_inverse=True)
    counts = words.first.take(once + 1) - words.first.take(once)
    _, place = ranges(words.first.take(once), counts)
    first = np.concatenate([[0], np.cumsum(counts)])
    return Words(words.hashes.take(place), first, first[:-1]), number


def _places(words: Words, size: int, owners: Ints) -> tuple[Ints, Ints]:
    """(which owner, first word) of all n-grams of some texts."""
    first = words.first.take(owners)
    return ranges(first, np.maximum(0, words.first.take(owners + 1) - first - size + 1))


def _keys(grams: Hashes, owner: Ints) -> Hashes:
    """A hash of n-gram and owner."""
    return mixed(mixed(grams + owner.astype(np.uint64) * _OWNER))
