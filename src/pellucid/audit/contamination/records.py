"""What a scan compares, and what it finds. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from pellucid.evidence.core.containment import Containment

Kind = Literal["full", "partial", "twin"]
"""full: (nearly) all of the item stands in the document. partial: enough of what is rare in it.
twin: only with its numbers masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An evaluation item. Example: Item(suite="gsm8k/test", row=17, text="Janet's ducks …")"""

    suite: str
    row: int
    """Counted from 0, in the suite's file or split."""
    text: str
    """The question alone: answers are short, and stand everywhere."""
    answer: str = ""
    """Only the self-test uses it, to plant leaks with their answer."""
    name: str = ""
    """The id of a problem, where it has one."""

    @property
    def id(self) -> str:
        """`suite/row`, or the problem's own."""
        return self.name or f"{self.suite}/{self.row}"


class Source(Protocol):
    """Documents of a training corpus: a file, or problems in memory. It is sent to processes."""

    @property
    def name(self) -> str:
        """Path or data set: the first half of a reference."""
        ...

    def documents(self) -> Iterator[tuple[int, str]]:
        """(row from 0, text), the same at every call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a document counts as holding an item.

    Coverage is a share of the item's words that lie in n-grams found. Evidence is the weight of
    these words, which falls with all others that have them too (see `decide`).
    """

    coverage: float = 0.5
    """Least share that stands in one place of the document."""
    evidence: float = 1.8
    """Least weight there, times this share: stock phrases add up to little."""
    long_coverage: float = 0.35
    """Least share of words one after the other whose weight is `long_evidence`: a run."""
    long_evidence: float = 8.0
    line_coverage: float = 0.2
    """Least share that stands in lines of the document in which hardly anything else does."""
    line_evidence: float = 1.5
    """Least weight there."""
    full: float = 0.9
    """From this share of its words on, an item that counts is there "in full". A document that has
    so much has the words because it has the item: that makes them no commoner."""
    whole_counts: bool = True
    """All words of an item need no evidence: so short items are seen."""
    least: float = 0.2
    """Least share of the item's words, unweighted: below, a pair is no candidate."""
    stock_items: int = 16
    """N-grams that more items share are stock phrases, and count for nothing."""

    @property
    def threshold(self) -> float:
        """No pair counts below this share of its item."""
        return min(self.coverage, self.long_coverage, self.line_coverage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A training document and an evaluation item that it holds."""

    source: str
    row: int
    item: Item
    kind: Kind
    weighted: float
    """Share of the item's weight that was found."""
    evidence: float
    """Weight found, in words that nothing else has."""
    exact: tuple[Containment, ...]
    """Word by word, for the n-grams of `LENGTHS`; of a twin, with numbers masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCount:
    """What was read of a source."""

    name: str
    documents: int
    characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """All that a scan found."""

    rule: Rule
    items: Sequence[Item]
    too_short: int
    """Items of fewer than three words: not scanned."""
    sources: tuple[SourceCount, ...]
    pairs: tuple[Pair, ...]
    """By source and row."""
    coverages: tuple[float, ...]
    """Of each item the largest coverage by one document, in 5-word n-grams and not weighted; 0
    where it stayed below `Rule.least`."""

    @property
    def num_documents(self) -> int:
        return sum(source.documents for source in self.sources)

    def without(self, source: str) -> Scan:
        """The same without the pairs of one source."""
        return replace(self, pairs=tuple(p for p in self.pairs if p.source != source))

    def leaked_documents(self) -> set[tuple[str, int]]:
        """(source, row) of documents that hold an item; twins are not counted."""
        return {(p.source, p.row) for p in self.pairs if p.kind != "twin"}

    def leaked_items(self) -> set[tuple[str, int]]:
        """(suite, row) of items that stand in a document; twins are not counted."""
        return {(p.item.suite, p.item.row) for p in self.pairs if p.kind != "twin"}

    def twin_items(self) -> set[tuple[str, int]]:
        """(suite, row) of items of which the corpus has only a templated twin."""
        twins = {(p.item.suite, p.item.row) for p in self.pairs if p.kind == "twin"}
        return twins - self.leaked_items()
