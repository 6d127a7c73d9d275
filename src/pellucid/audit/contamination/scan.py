"""Scans sources for evaluation items: once for candidates, again for the documents that count.

    pass 1, a process a source    text → hashes of words → n-grams that items have → candidates
    between                       rarity of each n-gram over all sources → pairs that count
    pass 2, a process a source    the rows of those pairs read again, and compared word by word

The second form of every text has its numbers masked, which finds templated twins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from pellucid.audit.contamination.decide import Decided, decide
from pellucid.audit.contamination.hashing import BATCH_BYTES, WordHasher
from pellucid.audit.contamination.index import Ints, ItemIndex, Match
from pellucid.audit.contamination.records import Item, Kind, Pair, Rule, Scan, Source, SourceCount
from pellucid.evidence.core.containment import (
    DECIDING,
    LENGTHS,
    Containment,
    counted,
    grams_of,
    words,
)

TWIN_RULE = Rule(coverage=0.7, evidence=8.0, whole_counts=False)
"""For texts with masked numbers. Short items are all templates then: evidence is always asked."""

_ROWS = 1 << 40
"""More rows than a source has."""


class _Indexes(NamedTuple):
    hasher: WordHasher
    plain: ItemIndex
    masked: ItemIndex


class _Read(NamedTuple):
    """What pass 1 brings back of one source; documents are numbered by row."""

    count: SourceCount
    plain: Match
    masked: Match
    plain_counts: list[Ints]
    masked_counts: list[Ints]


@dataclass(frozen=True, slots=True)
class _Found:
    """A pair that counts."""

    row: int
    item: int
    kind: Kind
    weighted: float
    evidence: float


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
            for read in run(_read, sources):
                plain.add_counts(read.plain_counts)
                masked.add_counts(read.masked_counts)
                reads.append(read)
                if progress is not None:
                    progress(len(reads), len(sources))
            found, largest = self._decide(reads, real)
            jobs = [(sources[i], pairs, self.items) for i, pairs in found.items()]
            pairs = [pair for checked in run(_check, jobs) for pair in checked]
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
        total = sum(read.count.documents for read in reads)
        plain_rows = _joined([read.plain for read in reads])
        plain, largest = decide(self._indexes.plain, plain_rows, total, below=real * _ROWS)
        masked, _ = decide(self._indexes.masked, _joined([read.masked for read in reads]), total)
        seen = set(zip(plain.document.tolist(), plain.item.tolist(), strict=True))
        found: dict[int, list[_Found]] = {}
        for document, pair in [*_pairs(plain, ("partial", "full")), *_pairs(masked, ("twin",) * 2)]:
            if pair.kind != "twin" or (document, pair.item) not in seen:
                found.setdefault(document // _ROWS, []).append(pair)
        ordered = {source: sorted(found[source], key=lambda p: p.row) for source in sorted(found)}
        return ordered, largest


def _joined(matches: Sequence[Match]) -> Match:
    """Rows of all sources; a document is numbered by source and row."""
    numbered = [m._replace(document=m.document + i * _ROWS) for i, m in enumerate(matches)]
    return Match(*(np.concatenate(columns) for columns in zip(*numbered, strict=True)))


def _pairs(decided: Decided, kinds: tuple[Kind, Kind]) -> Iterator[tuple[int, _Found]]:
    for document, item, weighted, evidence, is_full in zip(*decided, strict=True):
        yield (
            int(document),
            _Found(
                int(document) % _ROWS,
                int(item),
                kinds[int(is_full)],
                round(float(weighted), 4),
                round(float(evidence), 2),
            ),
        )


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


def _read(source: Source) -> _Read:
    """Pass 1 of one source."""
    indexes = _STATE[0]
    matches: tuple[list[Match], list[Match]] = ([], [])
    documents = characters = 0
    for rows, texts in _batches(source.documents()):
        hashed = indexes.hasher.hash(texts)
        for index, into in zip((indexes.plain, indexes.masked), matches, strict=True):
            match = index.match(hashed)
            into.append(match._replace(document=rows[match.document]))
        documents += len(texts)
        characters += sum(map(len, texts))
    return _Read(
        SourceCount(name=source.name, documents=documents, characters=characters),
        _stacked(matches[0]),
        _stacked(matches[1]),
        indexes.plain.take_counts(),
        indexes.masked.take_counts(),
    )


def _stacked(matches: Sequence[Match]) -> Match:
    nothing = Match(*(np.zeros(0, dtype=np.int64) for _ in Match._fields))
    return Match(*(np.concatenate(columns) for columns in zip(nothing, *matches, strict=True)))


def _batches(documents: Iterable[tuple[int, str]]) -> Iterator[tuple[Ints, list[str]]]:
    """Documents together that have some `BATCH_BYTES`; a longer one is a batch of its own."""
    rows: list[int] = []
    texts: list[str] = []
    size = 0
    for row, text in documents:
        if texts and size + len(text) > BATCH_BYTES:
            yield np.array(rows, dtype=np.int64), texts
            rows, texts, size = [], [], 0
        rows.append(row)
        texts.append(text)
        size += len(text)
    if texts:
        yield np.array(rows, dtype=np.int64), texts


def _check(job: tuple[Source, Sequence[_Found], Sequence[Item]]) -> list[Pair]:
    """Pass 2 of one source: word by word, so that no collision of hashes is reported."""
    source, found, items = job
    by_row: dict[int, list[_Found]] = {}
    for pair in found:
        by_row.setdefault(pair.row, []).append(pair)
    asked: dict[tuple[int, bool], list[str]] = {}
    pairs: list[Pair] = []
    for row, text in source.documents():
        if row not in by_row:
            continue
        document = _Document(text)
        for pair in by_row.pop(row):
            key = pair.item, pair.kind == "twin"
            if key not in asked:
                asked[key] = words(items[pair.item].text, masked=key[1])
            exact = tuple(document.holds(asked[key], n, masked=key[1]) for n in LENGTHS)
            if exact[LENGTHS.index(DECIDING)].found:
                pairs.append(_as_pair(source.name, pair, items[pair.item], exact))
        if not by_row:
            break
    return pairs


class _Document:
    """A document's n-grams, each set made once for all items that it may hold."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: dict[bool, list[str]] = {}
        self._grams: dict[tuple[bool, int], set[tuple[str, ...]]] = {}

    def holds(self, item: Sequence[str], n: int, *, masked: bool) -> Containment:
        """`containment` of an item's words."""
        size = min(n, len(item))
        if masked not in self._words:
            self._words[masked] = words(self._text, masked=masked)
        if (masked, size) not in self._grams:
            self._grams[masked, size] = set(grams_of(self._words[masked], size))
        return counted(grams_of(item, size), self._grams[masked, size], size)


def _as_pair(name: str, found: _Found, item: Item, exact: tuple[Containment, ...]) -> Pair:
    return Pair(
        source=name,
        row=found.row,
        item=item,
        kind=found.kind,
        weighted=found.weighted,
        evidence=found.evidence,
        exact=exact,
    )
