"""From n-grams in common to a verdict on each pair: words are weighted by who else has them.

An n-gram weighs 1 if nobody else has it, and 1/sqrt(1 + n) if n others do: other items, and
documents that have it without having the item. A document with all of the item (`Rule.full`) makes
its words no commoner, so an item that was copied a thousand times still counts. Numbers one after
the other weigh less: they stand in every calculation, and in every list. A word weighs as much as
the commonest n-gram around it.

Legend: W words of all items · P pairs · R rows of a match.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.contamination.index import Floats, ItemIndex, Match
from pellucid.audit.contamination.lookup import Ints
from pellucid.audit.contamination.records import Kind, Rule
from pellucid.evidence.core.containment import DECIDING, Containment


class Decided(NamedTuple):
    """Pairs that count. All [P]."""

    document: NDArray[np.int64]
    item: NDArray[np.int64]
    weighted: Floats
    evidence: Floats
    coverage: Floats
    """Share of the item's words that lie in n-grams found, stock phrases not counted."""
    is_sure: NDArray[np.bool_]
    """False: counts only if all of the item's words are found, stock phrases too."""


class _Pairs:
    """The pairs of a match, and sums over some of their rows."""

    def __init__(self, index: ItemIndex, rows: Match) -> None:
        self.index, self.rows = index, rows
        begins, new_words = index.new_words_of(rows.document, rows.item, rows.offset)
        self.document, self.item = rows.document[begins], rows.item[begins]
        self.length = index.lengths[self.item]
        self.of_row = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(new_words)))
        self.covered = np.add.reduceat(new_words, begins) if len(begins) else new_words
        """Words of the item, for each pair."""
        self.there = self._there()
        """The same, each n-gram once. An item that repeats itself has more of its words covered
        than it has words in common with a document."""
        least = index.rule.full * self.length
        self.holds = (self.covered >= least) & (self.there >= least)
        self._weight = self._weights()

    def _there(self) -> Floats:
        rows = self.rows
        gram = self.index.gram_of[self.index.first[rows.item] + rows.offset]
        bits = len(self.index.gram_of).bit_length()
        _, first = np.unique((self.of_row << bits) | gram, return_index=True)
        once = np.sort(first)
        columns = (column.take(once) for column in (rows.document, rows.item, rows.offset))
        return self._sums(self.of_row.take(once), self.index.new_words_of(*columns)[1])

    def _sums(self, pair: Ints, values: NDArray) -> Floats:
        return np.bincount(pair, weights=values, minlength=len(self.item))

    def _weights(self) -> Floats:
        """[2, W + 1] Of all words before: for documents that hold the item, and for others, which
        are not counted among those that have it as well.
        """
        index, rows = self.index, self.rows
        where = index.first[rows.item] + rows.offset
        holding = np.bincount(where[self.holds[self.of_row]], minlength=len(index.documents))
        others = index.others(holding)
        both = (index.weights(others), index.weights(np.maximum(others - 1, index.other_items)))
        return np.stack([np.concatenate([[0.0], np.cumsum(weights)]) for weights in both])

    def found(self, chosen: NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
        """(share, weight) of the items' words in the rows that are chosen, for each pair; no more
        words than the document has.
        """
        place = np.arange(len(self.of_row)) if chosen is None else np.flatnonzero(chosen)
        _, pair, new_words, weight = self._weighed(place)
        words = self._sums(pair, new_words)
        kept = np.minimum(1.0, self.there / np.maximum(1, words))
        return words * kept / np.maximum(1, self.length), self._sums(pair, weight) * kept

    def longest(self, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """(share, weight) of each pair's heaviest run: words of the item one after the other."""
        place = np.flatnonzero(chosen)
        offset, pair, new_words, weight = self._weighed(place)
        is_new = np.append(True, (pair[1:] != pair[:-1]) | (np.diff(offset) > DECIDING))
        begins = np.flatnonzero(is_new[: len(pair)])
        if not len(begins):
            return np.zeros(len(self.item)), np.zeros(len(self.item))
        words, weight = np.add.reduceat(new_words, begins), np.add.reduceat(weight, begins)
        pair = pair.take(begins)
        words = np.minimum(words, self.there.take(pair))
        order = np.lexsort((weight, pair))
        heaviest = order[np.append(pair[1:] != pair[:-1], True)]
        both = np.zeros((2, len(self.item)))
        both[:, pair[heaviest]] = words[heaviest], weight[heaviest]
        return both[0] / np.maximum(1, self.length), both[1]

    def _weighed(self, place: Ints) -> tuple[Ints, Ints, Ints, Floats]:
        """(offset, pair, words that no later row covers, their weight) of some rows."""
        rows, pair = self.rows, self.of_row.take(place)
        item, offset = rows.item.take(place), rows.offset.take(place)
        _, new_words = self.index.new_words_of(rows.document.take(place), item, offset)
        start, kind = self.index.first.take(item) + offset, 1 - self.holds.take(pair)
        weight = self._weight[kind, start + new_words] - self._weight[kind, start]
        return offset, pair, new_words, weight

    def whole(self) -> Floats:
        """Weight of each pair's item."""
        first, kind = self.index.first, 1 - self.holds
        weight = self._weight[kind, first[self.item + 1]] - self._weight[kind, first[self.item]]
        return np.maximum(weight, 1e-9)


def decide(index: ItemIndex, rows: Match, *, below: float = math.inf) -> tuple[Decided, Floats]:
    """The pairs that count, and of each item the largest coverage by a document whose number is
    smaller than `below`.
    """
    rule, largest = index.rule, np.zeros(len(index.lengths))
    pairs = _Pairs(index, rows)
    coverage = pairs.covered / np.maximum(1, pairs.length)
    real = pairs.document < below
    np.maximum.at(largest, pairs.item[real], coverage[real])
    _, evidence = pairs.found()
    near, weight = pairs.found(rows.is_near)
    is_sure = (near >= rule.coverage) & (near * weight >= rule.evidence)
    run, weight = pairs.longest(rows.is_near)
    is_sure |= (run >= rule.long_coverage) & (weight >= rule.long_evidence)
    own, weight = pairs.found(rows.is_own)
    is_sure |= (own >= rule.line_coverage) & (weight >= rule.line_evidence)
    can_be_whole = rule.whole_counts & (pairs.covered == index.searched[pairs.item])
    weighted = np.minimum(1.0, evidence / pairs.whole())
    columns = (pairs.document, pairs.item, weighted, evidence, coverage, is_sure)
    return Decided(*(column[is_sure | can_be_whole] for column in columns)), largest


def kind_of(rule: Rule, exact: Containment, is_sure: bool) -> Kind | None:
    """What a pair is, its words counted; None: it does not count. No twin is asked about."""
    if exact.found and (is_sure or exact.covered == exact.length):
        return "full" if exact.coverage >= rule.full else "partial"
    return None
