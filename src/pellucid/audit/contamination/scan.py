"""Scans sources for evaluation items: once for candidates, again for the documents that count.

    pass 1, a process a source    text → hashes of words → n-grams that items have → candidates
    between                       rarity of each n-gram over all sources → pairs that count
    pass 2, a process a source    the n-grams of those pairs counted under another key

Texts with candidates are kept between the passes while they are few, and else read again.

The second form of every text has its numbers masked, which finds templated twins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from pellucid.audit.contamination.counting import PairCounter
from pellucid.audit.contamination.decide import Decided, decide, kind_of
from pellucid.audit.contamination.hashing import BATCH_BYTES, WordHasher
from pellucid.audit.contamination.index import ItemIndex, Match
from pellucid.audit.contamination.lookup import Ints, distinct
from pellucid.audit.contamination.records import Item, Kind, Pair, Rule, Scan, Source, SourceCount
from pellucid.evidence.core.containment import DECIDING, LENGTHS, Containment

TWIN_RULE = Rule(
    coverage=0.8,
    evidence=3.0,
    long_coverage=0.8,
    line_evidence=math.inf,
    whole_counts=False,
    least=0.8,
)
"""For texts with masked numbers. Short items are all templates then: evidence is always asked."""
SIBLING = 0.95
"""Masked coverage from which on two texts differ in their numbers alone."""

_ROWS = 1 << 40
"""More rows than a source has."""
KEPT_CHARACTERS = 1 << 27
"""Of texts kept between the passes, of all sources together."""
_COUNTED_CHARACTERS = 1 << 19
"""Of texts whose pairs are counted at once."""


class _Indexes(NamedTuple):
    hasher: WordHasher
    plain: ItemIndex
    masked: ItemIndex
    counter: PairCounter


class _Read(NamedTuple):
    """What pass 1 brings back of one source; documents are numbered by row."""

    count: SourceCount
    plain: Match
    masked: Match
    plain_counts: Ints
    masked_counts: Ints
    texts: dict[int, str] | None
    """Row -> text of those with candidates; None where they are too many."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A pair that counts."""

    row: int
    item: int
    is_twin: bool
    is_sure: bool
    weighted: float
    evidence: float
    coverage: float


class Scanner:
    """Evaluation items, made ready to be looked for. Example: Scanner(items).scan(sources)"""

    def __init__(
        self, items: Sequence[Item], *, rule: Rule | None = None, twin_rule: Rule = TWIN_RULE
    ) -> None:
        self.items, self.rule = list(items), rule or Rule()
        texts = [item.text for item in items]
        hasher = WordHasher()
        self._indexes = _Indexes(
            hasher,
            ItemIndex(texts, hasher, self.rule),
            ItemIndex(texts, hasher, twin_rule, masked=True),
            PairCounter(texts),
        )

    def scan(
        self,
        sources: Sequence[Source],
        *,
        planted: Source | None = None,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Scan:
        """Looks for the items in all sources, in so many processes.

        `planted` is one more source, of known leaks: its pairs are among those found, and neither
        its documents nor its coverages are counted. `progress` is called with sources read and all
        of them. What a source raises comes through.
        """
        real, sources = len(sources), [*sources, *([planted] if planted else [])]
        plain, masked = self._indexes.plain, self._indexes.masked
        reads: list[_Read] = []
        with _mapper(workers, self._indexes) as run:
            budget = KEPT_CHARACTERS // len(sources) if sources else 0
            for read in run(_read, [(source, budget) for source in sources]):
                plain.add_counts(read.plain_counts)
                masked.add_counts(read.masked_counts)
                reads.append(read)
                if progress is not None:
                    progress(len(reads), len(sources))
            found, largest = self._decide(reads, real)
            jobs = [(sources[i], reads[i].texts, pairs) for i, pairs in found.items()]
            counted = run(_count, jobs)
            pairs = [
                pair
                for (i, own), counts in zip(found.items(), counted, strict=True)
                for pair in self._counting(sources[i].name, own, counts)
            ]
        plain.take_counts(), masked.take_counts()
        return Scan(
            rule=self.rule,
            items=self.items,
            too_short=plain.too_short,
            sources=tuple(read.count for read in reads[:real]),
            pairs=tuple(pairs),
            coverages=tuple(round(float(value), 4) for value in largest),
        )

    def _decide(
        self, reads: Sequence[_Read], real: int
    ) -> tuple[dict[int, list[_Found]], Sequence[float]]:
        """Pairs that count by source, and the largest coverage of each item in the real ones."""
        plain_rows = _joined([read.plain for read in reads])
        plain, largest = decide(self._indexes.plain, plain_rows, below=real * _ROWS)
        masked, _ = decide(self._indexes.masked, _joined([read.masked for read in reads]))
        masked = self._not_sure_otherwise(plain, masked)
        found: dict[int, list[_Found]] = {}
        for document, pair in [*_pairs(plain, is_twin=False), *_pairs(masked, is_twin=True)]:
            found.setdefault(document // _ROWS, []).append(pair)
        ordered = {
            source: sorted(found[source], key=lambda p: (p.row, p.is_twin))
            for source in sorted(found)
        }
        return ordered, largest

    def _not_sure_otherwise(self, plain: Decided, masked: Decided) -> Decided:
        """The twins without those that count in any case."""
        _, number = np.unique([*plain.document, *masked.document], return_inverse=True)
        keys = number * len(self.items) + np.concatenate([plain.item, masked.item])
        of_plain, of_masked = np.split(keys, [len(plain.item)])
        is_full = plain.coverage >= self.rule.full
        is_left = ~np.isin(of_masked, of_plain[plain.is_sure & is_full])
        is_left &= (masked.coverage >= SIBLING) | ~np.isin(of_masked, of_plain[plain.is_sure])
        return Decided(*(column[is_left] for column in masked))

    def _counting(
        self, name: str, found: Sequence[_Found], counts: Sequence[tuple[Containment, ...]]
    ) -> Iterator[Pair]:
        """Pairs of one source that count, by what was counted in them; twins where nothing else.

        A part that differs from the item in its numbers alone is a twin.
        """
        siblings = {(p.row, p.item) for p in found if p.is_twin and p.coverage >= SIBLING}
        others = set()
        for pair, exact in zip(found, counts, strict=True):
            deciding = exact[LENGTHS.index(DECIDING)]
            if pair.is_twin:
                is_new = (pair.row, pair.item) not in others
                kind: Kind | None = "twin" if deciding.found and is_new else None
            else:
                kind = kind_of(self.rule, deciding, pair.is_sure)
                if kind == "partial" and (pair.row, pair.item) in siblings:
                    kind = None
                others.add((pair.row, pair.item) if kind else None)
            if kind is not None:
                yield Pair(
                    source=name,
                    row=pair.row,
                    item=self.items[pair.item],
                    kind=kind,
                    weighted=pair.weighted,
                    evidence=pair.evidence,
                    exact=exact,
                )


def _joined(matches: Sequence[Match]) -> Match:
    """Rows of all sources; a document is numbered by source and row."""
    numbered = [m._replace(document=m.document + i * _ROWS) for i, m in enumerate(matches)]
    return Match(*(np.concatenate(columns) for columns in zip(*numbered, strict=True)))


def _pairs(decided: Decided, *, is_twin: bool) -> Iterator[tuple[int, _Found]]:
    columns = (column.tolist() for column in decided)
    for document, item, weighted, evidence, coverage, is_sure in zip(*columns, strict=True):
        numbers = round(weighted, 4), round(evidence, 2), coverage
        yield document, _Found(document % _ROWS, item, is_twin, is_sure, *numbers)


# What runs in each process


_STATE: list[_Indexes] = []
"""The indexes of this process: sent once, not with every source."""


def _start(indexes: _Indexes) -> None:
    _STATE[:] = [indexes]


class _mapper:
    """`map` here, or over processes. Results come in order."""

    def __init__(self, workers: int, indexes: _Indexes) -> None:
        self.workers, self.indexes = workers, indexes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Callable[..., Iterable]:
        if self.workers <= 1:
            _start(self.indexes)
            return map
        self._pool = ProcessPoolExecutor(
            self.workers,
            mp_context=get_context("spawn"),
            initializer=_start,
            initargs=(self.indexes,),
        )
        return self._pool.map

    def __exit__(self, *_: object) -> None:
        _STATE.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _read(job: tuple[Source, int]) -> _Read:
    """Pass 1 of one source."""
    source, budget = job
    indexes = _STATE[0]
    matches: tuple[list[Match], list[Match]] = ([], [])
    documents = characters = 0
    kept: dict[int, str] | None = {}
    for rows, texts in _batches(source.documents()):
        hashed = indexes.hasher.hash(texts)
        found = indexes.plain.match(hashed), indexes.masked.match(hashed)
        for match, into in zip(found, matches, strict=True):
            into.append(match._replace(document=rows[match.document]))
        if kept is not None:
            for number in distinct(np.concatenate([m.document for m in found])).tolist():
                kept[int(rows[number])] = texts[number]
                budget -= len(texts[number])
            kept = kept if budget >= 0 else None
        documents += len(texts)
        characters += sum(map(len, texts))
    return _Read(
        SourceCount(name=source.name, documents=documents, characters=characters),
        _stacked(matches[0]),
        _stacked(matches[1]),
        indexes.plain.take_counts(),
        indexes.masked.take_counts(),
        kept,
    )


def _stacked(matches: Sequence[Match]) -> Match:
    types = (*[np.int64] * 3, bool, bool)
    nothing = Match(*(np.zeros(0, dtype=kind) for kind in types))
    return Match(*(np.concatenate(columns) for columns in zip(nothing, *matches, strict=True)))


def _batches(
    documents: Iterable[tuple[int, str]], most: int = BATCH_BYTES
) -> Iterator[tuple[Ints, list[str]]]:
    """Documents together that have so many characters; a longer one is a batch of its own."""
    rows: list[int] = []
    texts: list[str] = []
    size = 0
    for row, text in documents:
        if texts and size + len(text) > most:
            yield np.array(rows, dtype=np.int64), texts
            rows, texts, size = [], [], 0
        rows.append(row)
        texts.append(text)
        size += len(text)
    if texts:
        yield np.array(rows, dtype=np.int64), texts


def _count(
    job: tuple[Source, dict[int, str] | None, Sequence[_Found]],
) -> list[tuple[Containment, ...]]:
    """Pass 2 of one source: the n-grams of each pair, in their order."""
    source, kept, found = job
    counter = _STATE[0].counter
    by_row: dict[int, list[int]] = {}
    for place, pair in enumerate(found):
        by_row.setdefault(pair.row, []).append(place)
    counts: list[tuple[Containment, ...]] = [()] * len(found)
    for rows, texts in _batches(_texts_of(source, kept, by_row), _COUNTED_CHARACTERS):
        pairs = [(number, place) for number, row in enumerate(rows) for place in by_row[int(row)]]
        for is_twin in (False, True):
            own = [(n, place) for n, place in pairs if found[place].is_twin == is_twin]
            if own:
                document = np.array([n for n, _ in own])
                item = np.array([found[place].item for _, place in own])
                counted = counter.count(texts, document, item, masked=is_twin)
                for (_, place), exact in zip(own, counted, strict=True):
                    counts[place] = exact
    return counts


def _texts_of(
    source: Source, kept: dict[int, str] | None, rows: Collection[int]
) -> Iterator[tuple[int, str]]:
    """(row, text) of the rows asked for, read again where they were not kept."""
    if kept is not None:
        yield from ((row, kept[row]) for row in rows)
        return
    left = len(rows)
    for row, text in source.documents():
        if row in rows:
            yield row, text
            left -= 1
        if not left:
            return
