"""From n-grams in common to a verdict on each pair: words are weighted by rarity.

The weight of an n-gram is 1 where one document and one item have it, and falls with the logarithm
of how many have it, as in retrieval. A word weighs as much as the commonest n-gram around it. What
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

Floats = NDArray[np.float64]


class Decided(NamedTuple):
    """Pairs that count. All [P]."""

    document: NDArray[np.int64]
    item: NDArray[np.int64]
    weighted: Floats
    evidence: Floats
    is_full: NDArray[np.bool_]


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
    evidence = np.add.reduceat(weight[start + new_words] - weight[start], begins)
    whole = weight[index.first[item + 1]] - weight[index.first[item]]
    weighted = np.minimum(1.0, evidence / np.maximum(whole, 1e-9))
    coverage = np.add.reduceat(new_words, begins) / index.lengths[item]
    real = document < below
    np.maximum.at(largest, item[real], coverage[real])
    is_full = coverage >= rule.full
    is_whole = coverage >= 1.0
    counts = (rule.whole_counts & is_whole) | (
        (weighted >= rule.coverage) & (evidence >= rule.evidence)
    )
    columns = (document, item, weighted, evidence, is_full)
    return Decided(*(column[counts] for column in columns)), largest


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
        for step in range(table.n):
            np.minimum.at(weights, table.where + step, rarity[gram])
    weights[np.isinf(weights)] = 0.0
    return weights
