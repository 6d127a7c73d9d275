"""Where in a document the n-grams of an item stand: in one place, and in lines of their own.

A copy keeps the order and the distances of its words, give or take what was edited. Phrases that
two texts have in common stand anywhere. Half of an item that was copied by itself fills the line
that it stands in; a phrase is part of another sentence.

Legend: H places of n-grams in documents · K lines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.audit.contamination.lookup import Ints, owners, ranges
from pellucid.evidence.core.containment import DECIDING

Bools = NDArray[np.bool_]

DRIFT_WORDS, DRIFT_SHARE = 8, 4
"""A copy's words are so many, and the item's length divided by this, out of their place."""
OWN_TENTHS = 9
"""Tenths of a line's words from which on it is the item's."""


class Hits(NamedTuple):
    """N-grams of items in documents, by document, item and offset. All [H]."""

    document: Ints
    where: Ints
    """First word in the item, counted through all items."""
    place: Ints
    """First word in the document, counted through all of the batch."""


class Placed(NamedTuple):
    """What places tell. All [H]."""

    is_near: Bools
    """About where the median of the pair's hits says that the item stands."""
    is_own: Bools
    """In lines of which the pair's hits have nearly all words."""


def placed(hits: Hits, item: Ints, offset: Ints, length: Ints, lines: Ints, most: int) -> Placed:
    """The places of hits of items that have `length` words [H]; `lines` [K] is where lines begin,
    of `most` words together.
    """
    if not len(item):
        return Placed(*2 * (np.zeros(0, dtype=bool),))
    is_new = np.append(True, (item[1:] != item[:-1]) | (hits.document[1:] != hits.document[:-1]))
    pair, begins = np.cumsum(is_new) - 1, np.flatnonzero(is_new)
    is_near = _is_near(hits.place - offset, pair, begins, length)
    bits = most.bit_length()
    order = np.argsort((pair << bits) | hits.place)
    ordered, place = pair.take(order), hits.place.take(order)
    width = np.minimum(DECIDING, length.take(order))
    reach = np.diff(place, append=0)
    reach[np.append(ordered[1:] != ordered[:-1], True)] = DECIDING
    np.minimum(reach, width, out=reach)
    is_own = np.empty(len(pair), dtype=bool)
    is_own[order] = _is_own(ordered, place, width, reach, lines, most)
    return Placed(is_near, is_own)


def _is_near(shift: Ints, pair: Ints, begins: Ints, length: Ints) -> Bools:
    least = int(shift.min())
    bits = int(shift.max() - least).bit_length()
    ordered = np.sort((pair << bits) | (shift - least)) & ((1 << bits) - 1)
    counts = np.diff(begins, append=len(pair))
    median = ordered.take(begins + counts // 2) + least
    return np.abs(shift - median.take(pair)) <= DRIFT_WORDS + length // DRIFT_SHARE


def _is_own(pair: Ints, place: Ints, width: Ints, reach: Ints, lines: Ints, most: int) -> Bools:
    """Of hits by pair and place; `reach` counts the words that no later hit of the pair has."""
    bits, line_of = most.bit_length(), owners(lines, most)
    row, word = ranges(place, reach)
    # Ordered: by pair, and within one by line.
    key = (pair << bits).take(row) | line_of.take(word)
    begins = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    covered = np.diff(begins, append=len(key))
    key = key.take(begins)
    words = np.diff(lines, append=most).take(key & ((1 << bits) - 1))
    is_own = 10 * covered >= OWN_TENTHS * words
    ends = (place, place + width - 1)
    of = ((pair << bits) | line_of.take(end) for end in ends)
    return np.logical_and(*(is_own.take(np.searchsorted(key, one)) for one in of))
