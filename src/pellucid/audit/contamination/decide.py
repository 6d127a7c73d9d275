"""From n-grams in common to a verdict on each pair: words are weighted by rarity.

The weight of an n-gram is 1 where one document and one item have it, and falls with the logarithm
of how many have it, as in retrieval. Numbers one after the other weigh less: they stand in every
calculation, and in every list. A word weighs as much as the commonest n-gram around it. What
is divided by what is of one item alone, so an item that was copied a thousand times still counts.

Legend: U distinct n-grams · P pairs · R rows of a match.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.contamination.index import ItemIndex, Match
from pellucid.audit.contamination.lookup import distinct
from pellucid.audit.contamination.records import Kind, Rule
from pellucid.evidence.core.containment import DECIDING, Containment

Floats = NDArray[np.float64]

NUMBERS_WEIGH = 0.4
"""Share of its weight that an n-gram keeps of which every word is a number."""


class Decided(NamedTuple):
    """Pairs that count. All [P]."""

    document: NDArray[np.int64]
    item: NDArray[np.int64]
    weighted: Floats
    evidence: Floats
    is_sure: NDArray[np.bool_]
    """False: counts only if all of the item's words are found, stock phrases too."""


def decide(
    index: ItemIndex, rows: Match, num_documents: int, *, below: float = math.inf
) -> tuple[Decided, Floats]:
    """The pairs that count, and of each item the largest unweighted coverage by a document whose
    number is smaller than `below`.
    """
    rule, largest = index.rule, np.zeros(len(index.lengths))
    begins, new_words = index.new_words_of(rows)
    document, item = rows.document[begins], rows.item[begins]
    if not len(begins):
        nothing = np.zeros(0)
        return Decided(document, item, nothing, nothing, nothing.astype(bool)), largest
    weight = np.concatenate([[0.0], np.cumsum(word_weights(index, num_documents))])
    start = index.first[rows.item] + rows.offset
    found = weight[start + new_words] - weight[start]
    evidence = np.add.reduceat(found, begins)
    whole = np.maximum(weight[index.first[item + 1]] - weight[index.first[item]], 1e-9)
    weighted = np.minimum(1.0, evidence / whole)
    longest = _longest_run(rows.offset, found, begins)
    covered = np.add.reduceat(new_words, begins)
    real = document < below
    np.maximum.at(largest, item[real], covered[real] / index.lengths[item[real]])
    is_sure = (
        ((weighted >= rule.coverage) & (evidence >= rule.evidence))
        | ((longest >= rule.run_coverage * whole) & (longest >= rule.evidence))
        | ((longest >= rule.long_coverage * whole) & (longest >= rule.long_evidence))
    )
    can_be_whole = rule.whole_counts & (covered == index.searched[item])
    columns = (document, item, weighted, evidence, is_sure)
    return Decided(*(column[is_sure | can_be_whole] for column in columns)), largest


def kind_of(rule: Rule, exact: Containment, is_sure: bool) -> Kind | None:
    """What a pair is, its words counted; None: it does not count. No twin is asked about."""
    if exact.found and (is_sure or exact.covered == exact.length):
        return "full" if exact.coverage >= rule.full else "partial"
    return None


def _longest_run(offset: NDArray[np.int64], found: Floats, begins: NDArray[np.int64]) -> Floats:
    """[P] Weight of each pair's heaviest run; `found` is what each row adds to its pair [R]."""
    is_new = np.append(True, np.diff(offset) > DECIDING)
    is_new[begins] = True
    runs = np.add.reduceat(found, np.flatnonzero(is_new))
    return np.maximum.reduceat(runs, np.cumsum(is_new)[begins] - 1)


def word_weights(index: ItemIndex, num_documents: int) -> Floats:
    """Weight, 0 to 1, of each word of all items, one after the other. Stock phrases weigh 0."""
    total = num_documents + len(index.lengths) + 1
    weights = np.full(int(index.lengths.sum()), np.inf)
    for table in index.tables:
        gram = np.repeat(np.arange(len(table.start)), table.count)
        pairs = distinct(gram * len(index.lengths) + index.item_of[table.where])
        holders = np.bincount(pairs // len(index.lengths), minlength=len(table.start))
        have_it = np.maximum(2, table.documents + holders)
        rarity = np.log(total / have_it) / np.log(total / 2)
        rarity[table.is_numbers] *= NUMBERS_WEIGH
        for step in range(table.n):
            np.minimum.at(weights, table.where + step, rarity[gram])
    weights[np.isinf(weights)] = 0.0
    return weights
