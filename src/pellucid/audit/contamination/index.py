"""The n-grams of all evaluation items in sorted tables, and which documents have them.

Of a document that is read, only its words' hashes are looked at. An item of three or four words is
an n-gram of its own length; shorter ones are not scanned.

Legend: U distinct n-grams · O their occurrences in items · W words of all items · H places of
n-grams in documents · R rows of a match · D documents · K lines.
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
from pellucid.audit.contamination.lookup import Ints, SortedHashes, distinct, owners, ranges
from pellucid.audit.contamination.placing import Bools, Hits, Placed, placed
from pellucid.audit.contamination.records import Rule
from pellucid.evidence.core.containment import DECIDING

Floats = NDArray[np.float64]

LEAST_WORDS = 3
NUMBERS_WEIGH = 0.1
"""Share of its weight that an n-gram keeps of which every word is a number."""


class Match(NamedTuple):
    """N-grams of items in documents: one row for each place in an item, in order. All [R]."""

    document: Ints
    item: Ints
    offset: Ints
    """First word of the n-gram in the item. It has `DECIDING` words, or as many as the item."""
    is_near: Bools
    """Whether the document has it in the one place where it has most of the item."""
    is_own: Bools
    """Whether the document has it in lines in which hardly anything but the item stands."""


class _Table:
    """N-grams of one length."""

    def __init__(self, n: int, hashes: Hashes, where: Ints) -> None:
        self.n = n
        order = np.argsort(hashes, kind="stable")
        self.where: Ints = where[order]
        """[O] First words of the occurrences, counted through all items."""
        grams, self.start, self.count = np.unique(
            hashes[order], return_index=True, return_counts=True
        )
        self.grams = SortedHashes(grams)

    def hits(self, words: Words, grams: GramHashes) -> tuple[Ints, Ints, Ints]:
        """(document, index of the n-gram, word of the document) of all n-grams found, unordered."""
        places, found = self.grams.find(grams.of(self.n))
        document = owners(words.first[:-1], len(words.hashes)).take(places)
        whole = np.flatnonzero(places + self.n <= words.first.take(document + 1))
        return document.take(whole), found.take(whole), places.take(whole)

    def holders(self, item_of: Ints) -> Ints:
        """[O] Items that have each occurrence's n-gram."""
        gram, items = np.repeat(np.arange(len(self.start)), self.count), int(item_of[-1]) + 1
        pairs = distinct(gram * items + item_of[self.where])
        return np.bincount(pairs // items, minlength=len(self.start))[gram]


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
        """[W] Item of each word."""
        self.too_short = int((self.lengths < LEAST_WORDS).sum())
        sizes = (DECIDING,) if masked else range(LEAST_WORDS, DECIDING + 1)
        tables = (self._table(words, n) for n in sizes)
        self.tables = [table for table in tables if len(table.start)]
        self._numbers = np.concatenate([[0], np.cumsum(is_number(words.hashes))])
        self.documents: Ints = np.zeros(len(self.item_of), dtype=np.int64)
        """[W] Documents seen so far that have the n-gram which begins at each word."""
        self.other_items: Ints = np.zeros(len(self.item_of), dtype=np.int64)
        """[W] Other items that have it."""
        self.gram_of: Ints = np.zeros(len(self.item_of), dtype=np.int64)
        """[W] Number of the n-gram that begins at each word, the same for equal ones."""
        known = 0
        for table in self.tables:
            self.other_items[table.where] = table.holders(self.item_of) - 1
            self.gram_of[table.where] = known + np.repeat(np.arange(len(table.start)), table.count)
            known += len(table.start)
        most = self.weights(self.other_items)
        self._most: Floats = np.concatenate([[0.0], np.cumsum(most)])
        """[W + 1] What the words before weigh at most, whatever documents are read."""
        self.searched: Ints = self._searched()
        """Words of each item that lie in an n-gram of the tables: the others are stock phrases."""

    def others(self, holding: Ints) -> Ints:
        """[W] Other items and documents that have the n-gram which begins at each word, without so
        many that have it because they hold the item.
        """
        return self.other_items + np.maximum(0, self.documents - holding)

    def weights(self, have_it: NDArray) -> Floats:
        """[W] Weight of each word, 0 to 1, by how many others have the n-gram that begins there:
        the least among the n-grams around it, 0 for stock phrases.
        """
        of_gram = 1.0 / np.sqrt(1.0 + have_it)
        weights = np.full(len(have_it), np.inf)
        for table in self.tables:
            where = table.where
            numbers = self._numbers[where + table.n] - self._numbers[where] == table.n
            around = np.full(len(have_it), np.inf)
            around[where] = of_gram[where] * np.where(numbers, NUMBERS_WEIGH, 1.0)
            for step in range(table.n):
                np.minimum(weights[step:], around[: len(around) - step], out=weights[step:])
        weights[np.isinf(weights)] = 0.0
        return weights

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
        if self.masked:  # without a number there is no twin
            inside &= (
                np.bincount(self.item_of[is_number(words.hashes)], minlength=len(self.lengths))[
                    item
                ]
                > 0
            )
        hashes, item = hashes[inside], item[inside]
        kept = self._without_stock(hashes, item) if n == DECIDING else slice(None)
        return _Table(n, hashes[kept], place[inside][kept])

    def _without_stock(self, hashes: Hashes, item: Ints) -> NDArray[np.bool_]:
        """False for stock phrases, but in items that are mostly made of them: variants of one
        template share all their n-grams, and would be seen by nothing else. Of twins it is enough
        to see those that few others resemble.
        """
        grams, inverse = np.unique(hashes, return_inverse=True)
        pairs = distinct(inverse * (len(self.lengths) + 1) + item)
        holders = np.bincount(pairs // (len(self.lengths) + 1), minlength=len(grams))
        is_stock = holders[inverse] > self.rule.stock_items
        if self.masked:
            return ~is_stock
        stock = np.bincount(item[is_stock], minlength=len(self.lengths))
        grams_of_item = np.bincount(item, minlength=len(self.lengths))
        return ~is_stock | (2 * stock > grams_of_item)[item]

    def take_counts(self) -> Ints:
        """How many documents had each n-gram; counting starts anew."""
        counts = self.documents
        self.documents = np.zeros(len(counts), dtype=np.int64)
        return counts

    def add_counts(self, counts: Ints) -> None:
        """Adds what `take_counts` of the same items' index gave."""
        self.documents += counts

    def match(self, words: Words) -> Match:
        """Candidate pairs of these documents, numbered from 0, with the n-grams that they share.

        Where numbers are masked, equal n-grams stand all over a calculation: one is enough, and no
        place is looked at.
        """
        if self.masked:
            words = mask_numbers(words)
        grams = GramHashes(words.hashes)
        found = [table.hits(words, grams) for table in self.tables]
        if self.masked:
            return self.match_hits([_distinct_hits(*hits) for hits in found])
        hits = self._placed(found)
        return self._rows(self._candidates(hits), words)

    def match_hits(self, hits: Sequence[tuple[Ints, Ints]]) -> Match:
        """`match` of documents whose (document, index of the n-gram) are known for each table, and
        nothing else: all is taken for near, and nothing for a line of its own.
        """
        nowhere = ((document, found, np.zeros_like(found)) for document, found in hits)
        return self._rows(self._candidates(self._placed(list(nowhere))))

    def _placed(self, hits: Sequence[tuple[Ints, Ints, Ints]]) -> Hits:
        """Hits at all places that their n-grams have in items, by document, item and offset."""
        keys = [_NOTHING]
        most = max((int(places.max()) for _, _, places in hits if len(places)), default=0)
        bits = most.bit_length()
        for table, (document, found, places) in zip(self.tables, hits, strict=True):
            hit, where = ranges(table.start.take(found), table.count.take(found))
            above = ((document << self._bits) << bits) | places
            keys.append(above.take(hit) | (table.where.take(where) << bits))
        sorted_keys = np.sort(np.concatenate(keys))
        pair = sorted_keys >> bits
        return Hits(
            pair >> self._bits, pair & ((1 << self._bits) - 1), sorted_keys & ((1 << bits) - 1)
        )

    def _candidates(self, hits: Hits) -> Hits:
        """The hits of pairs that can still count. Counts the documents that have each n-gram."""
        once = np.flatnonzero(_is_new(hits))
        document, where = hits.document.take(once), hits.where.take(once)
        np.add.at(self.documents, where, 1)
        item = self.item_of.take(where)
        begins, new_words = self.new_words_of(document, item, where)
        if not len(begins):
            return hits
        covered = np.add.reduceat(new_words, begins)
        weight = np.add.reduceat(
            self._most.take(where + new_words) - self._most.take(where), begins
        )
        own, rule = item.take(begins), self.rule
        is_whole = rule.whole_counts & (covered == self.searched.take(own))
        least = min(rule.evidence, rule.line_evidence, rule.long_evidence)
        can_count = (covered >= rule.least * self.lengths.take(own)) & (
            (weight >= least) | is_whole
        )
        starts = np.append(once.take(begins), len(hits.where))
        kept = np.flatnonzero(np.repeat(can_count, np.diff(starts)))
        return Hits(*(column.take(kept) for column in hits))

    def _rows(self, hits: Hits, words: Words | None = None) -> Match:
        """Places of one n-gram in one document together; without `words` none is known."""
        item, once = self.item_of.take(hits.where), np.flatnonzero(_is_new(hits))
        offset, length = hits.where - self.first.take(item), self.lengths.take(item)
        if words is None:
            ones = np.ones(len(item), dtype=bool)
            places = Placed(ones, ~ones)
        else:
            places = placed(hits, item, offset, length, words.lines, len(words.hashes))
        is_near, is_own = (
            np.logical_or.reduceat(flags, once) if len(once) else flags for flags in places
        )
        columns = (column.take(once) for column in (hits.document, item, offset))
        return Match(*columns, is_near, is_own)

    def new_words_of(self, document: Ints, item: Ints, offset: Ints) -> tuple[Ints, Ints]:
        """Of rows in order: where each pair begins, and of each row its words that no later one
        covers. Summed over a pair, these are the item's words that are covered.
        """
        if not len(item):
            return _NOTHING, _NOTHING
        last = np.ones(len(item), dtype=bool)
        np.not_equal(item[1:], item[:-1], out=last[:-1])
        last[:-1] |= document[1:] != document[:-1]
        begins = np.flatnonzero(np.append(True, last[:-1]))
        width = np.minimum(DECIDING, self.lengths.take(item))
        reach = np.diff(offset, append=0)
        reach[last] = DECIDING
        return begins, np.minimum(width, reach)


def _distinct_hits(document: Ints, found: Ints, _: Ints) -> tuple[Ints, Ints]:
    bits = int(found.max(initial=0)).bit_length()
    keys = distinct((document << bits) | found)
    return keys >> bits, keys & ((1 << bits) - 1)


def _is_new(hits: Hits) -> Bools:
    """False for further places of an n-gram in one document."""
    is_new = np.ones(len(hits.where), dtype=bool)
    np.not_equal(hits.where[1:], hits.where[:-1], out=is_new[1:])
    is_new[1:] |= hits.document[1:] != hits.document[:-1]
    return is_new


_NOTHING = np.zeros(0, dtype=np.int64)
