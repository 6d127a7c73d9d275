"""The n-grams of all evaluation items in sorted tables, and which documents have them.

Of a document that is read, only its words' hashes are looked at. An item of three or four words is
an n-gram of its own length; shorter ones are not scanned.

Legend: U distinct n-grams · O their occurrences in items · R rows of a match · D documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.contamination.hashing import (
    GramHashes,
    Hashes,
    WordHasher,
    Words,
    gram_hashes,
    is_number,
    mask_numbers,
)
from pellucid.audit.contamination.lookup import Ints, SortedHashes, distinct, ranges
from pellucid.audit.contamination.records import Rule
from pellucid.evidence.core.containment import DECIDING

LEAST_WORDS = 3


class Match(NamedTuple):
    """N-grams of items in documents: one row for each place in an item. All [R]."""

    document: Ints
    item: Ints
    offset: Ints
    """First word of the n-gram in the item. It has `DECIDING` words, or as many as the item."""


class _Table:
    """N-grams of one length."""

    def __init__(self, n: int, hashes: Hashes, where: Ints, numbers: NDArray[np.bool_]) -> None:
        self.n = n
        order = np.argsort(hashes, kind="stable")
        self.where: Ints = where[order]
        """[O] First words of the occurrences, counted through all items."""
        grams, self.start, self.count = np.unique(
            hashes[order], return_index=True, return_counts=True
        )
        self.grams = SortedHashes(grams)
        self.is_numbers = numbers[order][self.start]
        """[U] Whether all words of the n-gram are numbers."""
        self.documents = np.zeros(len(grams), dtype=np.int64)
        """[U] Documents seen so far that have the n-gram."""

    def hits(self, words: Words, grams: GramHashes) -> tuple[Ints, Ints]:
        """(document, index of the n-gram), each pair once, by document."""
        places, found = self.grams.find(grams.of(self.n))
        document = np.searchsorted(words.first, places, side="right") - 1
        whole = places + self.n <= words.first.take(document + 1)
        bits = len(self.start).bit_length()
        keys = distinct((document[whole] << bits) | found[whole])
        return keys >> bits, keys & ((1 << bits) - 1)

    def places(self, document: Ints, found: Ints) -> tuple[Ints, Ints]:
        """(document, place of an n-gram in an item) of each hit, for all places of its n-gram."""
        hit, place = ranges(self.start.take(found), self.count.take(found))
        return document.take(hit), self.where.take(place)


class ItemIndex:
    """The items' n-grams, stock phrases left out; counts the documents that have each."""

    def __init__(
        self, texts: Sequence[str], hasher: WordHasher, rule: Rule, *, masked: bool = False
    ) -> None:
        self.masked, self.rule = masked, rule
        words = hasher.hash(texts)
        if masked:
            words = mask_numbers(words)
        self.lengths: Ints = np.diff(words.first)
        """Words of each item."""
        self.first = words.first
        self._bits = int(words.first[-1]).bit_length()
        self.item_of: Ints = np.repeat(np.arange(len(self.lengths)), self.lengths)
        """Item of each word."""
        self.too_short = int((self.lengths < LEAST_WORDS).sum())
        sizes = (DECIDING,) if masked else range(LEAST_WORDS, DECIDING + 1)
        tables = (self._table(words, n) for n in sizes)
        self.tables = [table for table in tables if len(table.start)]
        self.searched: Ints = self._searched()
        """Words of each item that lie in an n-gram of the tables: the others are stock phrases."""

    def _searched(self) -> Ints:
        is_searched = np.zeros(len(self.item_of), dtype=bool)
        for table in self.tables:
            for step in range(table.n):
                is_searched[table.where + step] = True
        return np.bincount(self.item_of[is_searched], minlength=len(self.lengths))

    def _table(self, words: Words, n: int) -> _Table:
        """All n-grams of the deciding length; of a shorter one, those that are whole items."""
        hashes = gram_hashes(words.hashes, n)
        place = np.arange(len(hashes))
        item = np.searchsorted(words.first, place, side="right") - 1
        offset = place - words.first[item]
        inside = offset + n <= self.lengths[item]
        if n < DECIDING:
            inside &= self.lengths[item] == n
        hashes, item = hashes[inside], item[inside]
        kept = self._without_stock(hashes, item) if n == DECIDING else slice(None)
        where = place[inside][kept]
        before = np.concatenate([[0], np.cumsum(is_number(words.hashes))])
        return _Table(n, hashes[kept], where, before[where + n] - before[where] == n)

    def _without_stock(self, hashes: Hashes, item: Ints) -> NDArray[np.bool_]:
        """False for stock phrases, but in items that are mostly made of them: variants of one
        template share all their n-grams, and would be seen by nothing else.
        """
        grams, inverse = np.unique(hashes, return_inverse=True)
        pairs = distinct(inverse * (len(self.lengths) + 1) + item)
        holders = np.bincount(pairs // (len(self.lengths) + 1), minlength=len(grams))
        is_stock = holders[inverse] > self.rule.stock_items
        stock = np.bincount(item[is_stock], minlength=len(self.lengths))
        grams_of_item = np.bincount(item, minlength=len(self.lengths))
        return ~is_stock | (2 * stock > grams_of_item)[item]

    def take_counts(self) -> list[Ints]:
        """How many documents had each n-gram, by table; counting starts anew."""
        counts = [table.documents for table in self.tables]
        for table in self.tables:
            table.documents = np.zeros(len(table.start), dtype=np.int64)
        return counts

    def add_counts(self, counts: Sequence[Ints]) -> None:
        """Adds what `take_counts` of the same items' index gave."""
        for table, more in zip(self.tables, counts, strict=True):
            table.documents += more

    def match(self, words: Words) -> Match:
        """Candidate pairs of these documents, numbered from 0, with the n-grams that they share."""
        if self.masked:
            words = mask_numbers(words)
        grams = GramHashes(words.hashes)
        return self.match_hits([table.hits(words, grams) for table in self.tables])

    def match_hits(self, hits: Sequence[tuple[Ints, Ints]]) -> Match:
        """`match` of documents whose (document, index of the n-gram) are known for each table."""
        keys = [_NOTHING]
        for table, (document, found) in zip(self.tables, hits, strict=True):
            np.add.at(table.documents, found, 1)
            document, where = table.places(document, found)
            keys.append((document << self._bits) | where)
        return self._candidates(np.sort(np.concatenate(keys)))

    def _candidates(self, keys: Ints) -> Match:
        """The rows of pairs that can still count, by document, item and offset."""
        document, where = keys >> self._bits, keys & ((1 << self._bits) - 1)
        item = self.item_of.take(where)
        rows = Match(document, item, where - self.first.take(item))
        begins, new_words = self.new_words_of(rows)
        if not len(begins):
            return rows
        covered = np.add.reduceat(new_words, begins)
        own = item.take(begins)
        is_whole = self.rule.whole_counts & (covered == self.searched.take(own))
        can_count = (covered >= self.rule.least * self.lengths.take(own)) & (
            (covered >= self.rule.evidence) | is_whole
        )
        kept = np.flatnonzero(np.repeat(can_count, np.diff(begins, append=len(new_words))))
        return Match(*(column.take(kept) for column in rows))

    def new_words_of(self, rows: Match) -> tuple[Ints, Ints]:
        """Of rows in order: where each pair begins, and of each row its words that no later one
        covers. Summed over a pair, these are the item's words that are covered.
        """
        if not len(rows.item):
            return _NOTHING, _NOTHING
        last = np.ones(len(rows.item), dtype=bool)
        np.not_equal(rows.item[1:], rows.item[:-1], out=last[:-1])
        last[:-1] |= rows.document[1:] != rows.document[:-1]
        begins = np.flatnonzero(np.append(True, last[:-1]))
        width = np.minimum(DECIDING, self.lengths.take(rows.item))
        reach = np.diff(rows.offset, append=0)
        reach[last] = DECIDING
        return begins, np.minimum(width, reach)


_NOTHING = np.zeros(0, dtype=np.int64)
