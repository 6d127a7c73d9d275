"""Pairs counted all at once have the counts that word-by-word comparison gives."""

import random

import numpy as np
import pytest

from pellucid.audit.contamination import scan as scanning
from pellucid.audit.contamination.corpus import TextSource
from pellucid.audit.contamination.counting import PairCounter
from pellucid.audit.contamination.lookup import SortedHashes, distinct, ranges
from pellucid.audit.contamination.records import Item
from pellucid.audit.contamination.scan import Scanner
from pellucid.evidence.core.containment import LENGTHS, containment, words


def text(rng, count, vocabulary="a b c 7 12 \\frac \\left"):
    return " ".join(rng.choices(vocabulary.split(), k=count))


@pytest.mark.parametrize("masked", [False, True])
def test_counts_are_those_of_a_word_by_word_comparison(masked):
    rng = random.Random(3)
    items = [text(rng, rng.randint(0, 30)) for _ in range(40)]
    texts = [text(rng, rng.randint(0, 60)) for _ in range(20)]
    texts[3] += items[5] + " , " + items[5]
    pairs = [(d, i) for d in range(20) for i in range(40) if rng.random() < 0.5 or d == 3]
    document, item = np.array(pairs).T
    found = PairCounter(items).count(texts, document, item, masked=masked)
    expected = [
        tuple(
            containment(words(items[i], masked=masked), words(texts[d], masked=masked), n)
            for n in LENGTHS
        )
        for d, i in pairs
    ]
    assert found == expected
    assert sum(counts[2].found for counts in found) > 0


def test_every_hash_that_is_there_is_found_and_no_other():
    rng = np.random.default_rng(0)
    some = distinct(rng.integers(0, 1 << 64, 5000, dtype=np.uint64))
    crowded = distinct(np.concatenate([some[:50], np.arange(40, dtype=np.uint64)]))
    last = np.array([0, (1 << 64) - 1], dtype=np.uint64)
    for here in (some, crowded, distinct(np.concatenate([some, last])), some[:0]):
        others = np.concatenate([some[::3], rng.permutation(crowded), last, some + np.uint64(1)])
        places, found = SortedHashes(here).find(others)
        index = {value: number for number, value in enumerate(here.tolist())}
        expected = {p: index[v] for p, v in enumerate(others.tolist()) if v in index}
        assert dict(zip(places.tolist(), found.tolist(), strict=True)) == expected
        assert len(places) == len(expected)


def test_ranges_are_written_out_one_after_the_other():
    which, number = ranges(np.array([5, 9, 0]), np.array([2, 0, 3]))
    assert which.tolist() == [0, 0, 2, 2, 2]
    assert number.tolist() == [5, 6, 0, 1, 2]


def test_texts_that_are_too_many_to_keep_are_read_again(monkeypatch):
    rng = random.Random(4)
    item = Item(suite="s", row=0, text=text(rng, 20, "one two three four five six seven eight"))
    sources = [
        TextSource(f"c{n}", [text(rng, 30, "x y z u v w") for _ in range(6)] + [item.text])
        for n in range(2)
    ]
    kept = Scanner([item]).scan(sources)
    reads = []
    monkeypatch.setattr(TextSource, "documents", _counting(reads, TextSource.documents))
    monkeypatch.setattr(scanning, "KEPT_CHARACTERS", 10)
    assert Scanner([item]).scan(sources) == kept
    assert [(p.source, p.row) for p in kept.pairs] == [("c0", 6), ("c1", 6)]
    assert reads == ["c0", "c1", "c0", "c1"]


def _counting(into, documents):
    def counted(self):
        into.append(self.name)
        return documents(self)

    return counted
