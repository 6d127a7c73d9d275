"""The scan's own test: known leaks, of five kinds, planted among documents of the user's corpus.

Half of an item of a dozen words is a stock phrase, and no scan can tell. So the recall is also told
by the length of the items, and from which length on every kind is found.

A recall measured on somebody else's corpus says little: whether stock phrases drown a leak depends
on the corpus and on the suite. So items are planted into copies of real documents, scanned together
with the corpus, and the share that is found is printed beside every result.

What is flagged beside the plants is either a leak or a mistake, and no program knows which. The
documents of which a full copy was found are no mistake; the others bound the false positives.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pellucid.audit.contamination.corpus import TextSource
from pellucid.audit.contamination.records import Item, Scan, Source
from pellucid.audit.contamination.scan import Scanner
from pellucid.evidence.core.containment import words
from pellucid.stats import Estimate, wilson

PLANTED = "planted leaks"
"""Name of the source that holds them."""
PER_KIND = 200
_HOSTS = 500
"""Documents of the corpus that leaks are planted into."""
_HOST_CHARACTERS = 2000
LENGTH_STEPS = (0, 10, 14, 18, 25, 40)
"""Words of an item, as they are compared, from which on its recall is told apart."""
RELIABLE = 0.95
"""Recall from which on a scan counts as seeing leaks."""
LEAST_PLANTED = 20
"""Leaks of a kind: of fewer, no recall is claimed."""


def _verbatim(rng: random.Random, item: Item, vocabulary: Sequence[str]) -> str:
    return f"{item.text}\n{item.answer}"


def _restyled(rng: random.Random, item: Item, vocabulary: Sequence[str]) -> str:
    """Other case, punctuation and white space."""
    restyled = [rng.choice((str.upper, str.lower, str.title))(word) for word in item.text.split()]
    text = "  ".join(restyled)
    for mark in ".,;:?!":
        text = text.replace(mark, f" {rng.choice('.,;:?!')}")
    return f"«{text}»\n{item.answer}"


def _question(rng: random.Random, item: Item, vocabulary: Sequence[str]) -> str:
    return item.text


def _half(rng: random.Random, item: Item, vocabulary: Sequence[str]) -> str:
    split = item.text.split()
    middle = (len(split) + 1) // 2
    return " ".join(split[:middle] if rng.random() < 0.5 else split[len(split) - middle :])


def _edited(rng: random.Random, item: Item, vocabulary: Sequence[str]) -> str:
    """Every eighth word is another one of the corpus."""
    first = rng.randrange(8)
    split = item.text.split()
    split[first::8] = [rng.choice(vocabulary) for _ in split[first::8]]
    return " ".join(split)


LEAKS: dict[str, Callable[[random.Random, Item, Sequence[str]], str]] = {
    "verbatim": _verbatim,
    "case and punctuation": _restyled,
    "question without answer": _question,
    "half copy": _half,
    "one word in eight edited": _edited,
}
"""Kind of leak -> how an item becomes one."""


class Plant(NamedTuple):
    """A planted leak. Example: Plant("half copy", 31, True)"""

    kind: str
    words: int
    """Of the item, as they are compared."""
    is_found: bool


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How many planted leaks were found."""

    plants: Sequence[Plant]
    documents: int
    """Documents of the corpus."""
    flagged: int
    """Documents of the corpus that hold an item, by the rule."""
    at_most_false: int
    """Of these, the ones without a full copy: no more than so many are flagged by mistake."""

    @property
    def recall(self) -> float:
        """Share of all planted leaks that were found; 0 where nothing was planted."""
        return sum(plant.is_found for plant in self.plants) / max(1, len(self.plants))

    @property
    def recalls(self) -> dict[str, Estimate]:
        """Kind of leak -> share found, with Wilson's interval."""
        return self.recalls_of(0)

    def recalls_of(self, least: int, below: float = math.inf) -> dict[str, Estimate]:
        """`recalls` of items that have at least so many words, and fewer than `below`."""
        found: dict[str, list[bool]] = {}
        for plant in self.plants:
            if least <= plant.words < below:
                found.setdefault(plant.kind, []).append(plant.is_found)
        return {kind: wilson(sum(own), len(own)) for kind, own in found.items()}

    @property
    def reliable_from(self) -> int | None:
        """Least words of an item from which on every kind is found as `RELIABLE` says, or better;
        None where no such length was seen. An estimate from the leaks that were planted.
        """
        for least in LENGTH_STEPS:
            recalls = self.recalls_of(least).values()
            if recalls and all(e.value >= RELIABLE and e.n >= LEAST_PLANTED for e in recalls):
                return least
        return None

    @property
    def by_length(self) -> list[tuple[int, float, dict[str, Estimate]]]:
        """(least words, recall, recall by kind) of the items between two of `LENGTH_STEPS`."""
        told = []
        for least, below in zip(LENGTH_STEPS, (*LENGTH_STEPS[1:], math.inf), strict=True):
            own = [plant.is_found for plant in self.plants if least <= plant.words < below]
            if own:
                told.append((least, sum(own) / len(own), self.recalls_of(least, below)))
        return told

    def as_json(self) -> dict[str, object]:
        """For scan.json."""
        return {
            "recall": {kind: round(e.value, 4) for kind, e in self.recalls.items()},
            "recall_ci95": {
                kind: [round(e.low, 4), round(e.high, 4)] for kind, e in self.recalls.items()
            },
            "planted": {kind: e.n for kind, e in self.recalls.items()},
            "recall_by_length": [
                {
                    "words_from": least,
                    "recall": {kind: round(e.value, 4) for kind, e in recalls.items()},
                    "planted": {kind: e.n for kind, e in recalls.items()},
                }
                for least, _, recalls in self.by_length
            ],
            "reliable_from_words": self.reliable_from,
            "false_positives": self.at_most_false,
            "false_positives_is": "upper bound: documents flagged without holding a full copy",
            "flagged": self.flagged,
            "documents": self.documents,
        }


def scan_and_test(
    scanner: Scanner,
    sources: Sequence[Source],
    *,
    seed: int = 0,
    per_kind: int = PER_KIND,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Scan, SelfTest]:
    """Scans the sources with leaks planted among them; the scan returned is without those."""
    texts, answers = plant(scanner.items, sources, seed=seed, per_kind=per_kind)
    both = scanner.scan(
        sources, planted=TextSource(PLANTED, texts), workers=workers, progress=progress
    )
    seen = {(p.row, p.item.id) for p in both.pairs if p.source == PLANTED and p.kind != "twin"}
    scan = both.without(PLANTED)
    plants = [
        Plant(kind, len(words(item.text)), (row, item.id) in seen)
        for row, (kind, item) in enumerate(answers)
    ]
    flagged = scan.leaked_documents()
    full = {(p.source, p.row) for p in scan.pairs if p.kind == "full"}
    return scan, SelfTest(
        plants=plants,
        documents=scan.num_documents,
        flagged=len(flagged),
        at_most_false=len(flagged - full),
    )


def plant(
    items: Sequence[Item], sources: Sequence[Source], *, seed: int, per_kind: int
) -> tuple[list[str], list[tuple[str, Item]]]:
    """(documents with a leak each, (kind, item) of each): items in a seeded order, all equally."""
    hosts = _hosts(sources)
    vocabulary = [word for host in hosts for word in host.split()] or ["word"]
    rng = random.Random(f"leaks/{seed}")
    order = rng.sample(range(len(items)), len(items))
    texts: list[str] = []
    answers: list[tuple[str, Item]] = []
    for kind, make in LEAKS.items():
        for place in itertools.islice(itertools.cycle(order), per_kind if items else 0):
            host = rng.choice(hosts) if hosts else ""
            leak = make(rng, items[place], vocabulary)
            texts.append(f"{host}\n{leak}" if rng.random() < 0.5 else f"{leak}\n{host}")
            answers.append((kind, items[place]))
        order = order[per_kind % max(1, len(order)) :] + order[: per_kind % max(1, len(order))]
    return texts, answers


def _hosts(sources: Sequence[Source]) -> list[str]:
    """The first documents of each source."""
    each = max(1, _HOSTS // max(1, len(sources)))
    first = (itertools.islice(source.documents(), each) for source in sources)
    return [text[:_HOST_CHARACTERS] for documents in first for _, text in documents]
