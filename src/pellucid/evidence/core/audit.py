"""A human audit of verdicts: which samples are drawn, and what their labels say of the graders.

    population   samples of the audited evaluations on which a grader came to a verdict
    contested    those of them on which two graders differ, or the second one alone decided
    order        SHA-256 of AUDIT_CONTEXT, the seed, a zero byte and the sample's leaf
    drawn        of the contested the first `contested`, of the others the first `n`, in this order

A leaf is that of the whole sample, also where its text was withheld afterwards. Without a seed of
somebody's own, the seed is the digest of the evaluations' recorded roots: it is fixed when the last
sample is, and nobody can try several. Labels and their numbers: `audit_numbers`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypedDict

from pellucid.evidence.core.agreement import CELLS, Stratum
from pellucid.evidence.core.canonical import leaf_hash, sha256_json
from pellucid.evidence.core.samples import Sample
from pellucid.evidence.core.statistics import StatisticsError, jackknife
from pellucid.evidence.core.tally import NOT_GRADED

AUDITS = "audits/"
"""Folder of a dossier: audits/NAME/ with draw.json, labels-BY.jsonl, result.json."""
GRADERS = "graders"
"""Name of the audit of the graders that are programs."""
AUDIT_CONTEXT = b"pellucid-audit-v1\x00"
LABELS_PREDICATE = "urn:pellucid:audit-labels:v1"
LABELS = ("correct", "wrong", "unsure")
SURE = LABELS[:2]
KNOWN_PAIRS = 10_000
"""Pairs whose key is remembered."""
MOST_DRAWN = 10_000
"""Samples of one stratum."""
SECOND_METHOD = "math-verify"
"""`Sample.method` where the second grader alone decided."""


class Drawn(TypedDict):
    """One sample that a person is shown."""

    leaf: str
    evaluation: str
    item: str
    k: int


class Population(TypedDict):
    """How many samples could have been drawn."""

    contested: int
    other: int


class DrawFile(TypedDict):
    """audits/NAME/draw.json"""

    v: int
    name: str
    seed: str
    n: int
    contested: int
    """Contested samples that are drawn at most."""
    evaluations: list[str]
    """Sorted."""
    second: str | None
    """SHA-256 of audits/NAME/second.json; None: no second grader was asked."""
    population: Population
    drawn: list[Drawn]
    """In the order of the draw, which mixes contested and other samples."""


class SecondFile(TypedDict):
    """audits/NAME/second.json: what another grader says of every (gold, extracted answer) pair.

    Pairs are named by `pair_key`; those that are not listed were judged alike.
    """

    v: int
    name: str
    version: str
    graders: list[str]
    """Graders (`Sample.grader`) whose pairs it was asked about."""
    pairs: int
    """Different pairs that it was asked about."""
    differ: list[str]
    failed: list[str]
    """No opinion came: a time limit, or an error."""


class Label(TypedDict):
    """One line of audits/NAME/labels-BY.jsonl, in the order of the draw."""

    v: int
    draw: str
    """SHA-256 of draw.json."""
    leaf: str
    label: str
    """One of `LABELS`."""


class LabelsPredicate(TypedDict):
    """Of the envelope on a file of labels, audits/NAME/labels-BY.dsse.json."""

    v: int
    by: str
    public_key: str | None
    time: str


class Opinion(NamedTuple):
    """What is known of a sample's verdict."""

    is_right: bool
    is_contested: bool


class Opinions(Protocol):
    """Reads verdicts of samples."""

    def of(self, sample: Sample, leaf: bytes) -> Opinion | None:
        """None: nobody came to a verdict, so the sample is not in the population."""
        ...


def default_seed(recorded_roots: Iterable[str]) -> str:
    """The seed that nobody chose."""
    return sha256_json(sorted(recorded_roots))


def pair_key(grader: str, gold_sha256: str, answer_sha256: str) -> str:
    """Names a pair by digests of canonical JSON, so that it is found where texts are withheld."""
    return sha256_json([grader, gold_sha256, answer_sha256])


def answer_pair(sample: Sample) -> tuple[str, str] | None:
    """Digests of gold and extracted answer; None: no answer was found."""
    withheld = sample["redacted"]["fields"] if sample["redacted"] is not None else {}
    gold, answer = withheld.get("gold"), withheld.get("extracted")
    if answer is None:
        if sample["extracted"] is None:
            return None
        answer = sha256_json(sample["extracted"])
    return gold or sha256_json(sample["gold"]), answer


class GraderOpinions:
    """Verdicts of the graders that are programs, with those of a second one where it was asked."""

    def __init__(self, second: SecondFile | None) -> None:
        self._graders = frozenset(second["graders"]) if second is not None else frozenset()
        self._differ = frozenset(second["differ"]) if second is not None else frozenset()
        self._failed = frozenset(second["failed"]) if second is not None else frozenset()
        self._by_cluster: dict[str, list[int]] = {}
        """Family -> samples on which both spoke, and those on which they differ."""
        self._keys: dict[tuple[str, str | None, str | None], str | None] = {}
        self.num_failed = 0

    def of(self, sample: Sample, leaf: bytes) -> Opinion | None:
        if sample["verdict"] in NOT_GRADED:
            return None
        is_right = sample["verdict"] == "correct"
        if sample["method"] == SECOND_METHOD:
            return Opinion(is_right, True)
        return Opinion(is_right, self._is_contested(sample))

    def _is_contested(self, sample: Sample) -> bool:
        if sample["grader"] not in self._graders:
            return False
        key = self._key(sample)
        if key is None:
            return False
        if key in self._failed:
            self.num_failed += 1
            return True
        counts = self._by_cluster.setdefault(sample["cluster"], [0, 0])
        counts[0] += 1
        counts[1] += key in self._differ
        return key in self._differ

    def _key(self, sample: Sample) -> str | None:
        """Of the sample's pair; samples of one item often end alike."""
        texts = (sample["grader"], sample["gold"], sample["extracted"])
        if sample["redacted"] is None and texts in self._keys:
            return self._keys[texts]
        pair = answer_pair(sample)
        key = None if pair is None else pair_key(sample["grader"], *pair)
        if sample["redacted"] is None:
            if len(self._keys) >= KNOWN_PAIRS:
                self._keys.clear()
            self._keys[texts] = key
        return key

    @property
    def num_asked(self) -> int:
        """Samples on which both graders spoke."""
        return sum(asked for asked, _ in self._by_cluster.values())

    def disagreement(self) -> tuple[float, float, float] | None:
        """Share of the samples with an answer on which the two differ, with its 95 % interval over
        families of problems; None: the second was never asked, or of one family alone.
        """
        sums = [(float(differ), float(asked)) for asked, differ in self._by_cluster.values()]
        try:
            found = jackknife(sums, lambda s: s[0] / s[1], is_share=True)
        except StatisticsError:
            return None
        return found.value, found.low, found.high


class Chosen(NamedTuple):
    """A drawn sample."""

    order: int
    leaf: str
    evaluation: str
    item: str
    k: int
    is_right: bool
    is_contested: bool


class Watcher:
    """Sees every sample of the audited evaluations, and keeps those that the seed draws."""

    def __init__(self, draw: DrawFile, opinions: Opinions) -> None:
        self.draw, self.opinions = draw, opinions
        self._prefix = AUDIT_CONTEXT + draw["seed"].encode(errors="surrogatepass") + b"\x00"
        self._heaps: dict[bool, list[tuple[int, Chosen]]] = {True: [], False: []}
        """Contested or not -> the first ones, the last of them on top."""
        self._most = {True: draw["contested"], False: draw["n"]}
        self.population = {True: 0, False: 0}
        self.sizes: dict[str, int] = dict.fromkeys(draw["evaluations"], 0)
        """Evaluation -> its part of the population."""

    def watch(
        self, rows: Iterable[tuple[bytes, Sample]], evaluation: str
    ) -> Iterator[tuple[bytes, Sample]]:
        """The (line, sample) rows of an audited evaluation, looked at as they pass."""
        for line, sample in rows:
            redacted = sample["redacted"]
            leaf = leaf_hash(line) if redacted is None else bytes.fromhex(redacted["leaf"])
            self.take(leaf, sample, evaluation)
            yield line, sample

    def take(self, leaf: bytes, sample: Sample, evaluation: str) -> None:
        """Count one more sample of the evaluation."""
        opinion = self.opinions.of(sample, leaf)
        if opinion is None:
            return
        is_contested = opinion.is_contested
        self.population[is_contested] += 1
        self.sizes[evaluation] += 1
        heap, most = self._heaps[is_contested], self._most[is_contested]
        order = int.from_bytes(hashlib.sha256(self._prefix + leaf).digest(), "big")
        if not most or (len(heap) == most and -heap[0][0] < order):
            return
        chosen = Chosen(order, leaf.hex(), evaluation, sample["item"], sample["k"], *opinion)
        push = heapq.heappush if len(heap) < most else heapq.heappushpop
        push(heap, (-order, chosen))

    def chosen(self) -> list[Chosen]:
        """What is drawn, in order."""
        return sorted(chosen for heap in self._heaps.values() for _, chosen in heap)

    def drawn(self) -> list[Drawn]:
        """As it stands in draw.json."""
        return [
            {"leaf": c.leaf, "evaluation": c.evaluation, "item": c.item, "k": c.k}
            for c in self.chosen()
        ]

    def strata(self, labels: Mapping[str, str]) -> list[Stratum]:
        """Both parts of the population with what was labelled of them, by `labels` (leaf ->
        label); `unsure` is no label.
        """
        verdicts = {c.leaf: c.is_right for c in self.chosen()}
        return [
            _stratum(size, [(verdicts[leaf], labels.get(leaf)) for leaf in leaves])
            for size, leaves in self._parts()
        ]

    def strata_between(self, a: Mapping[str, str], b: Mapping[str, str]) -> list[Stratum]:
        """The same of two labellers, where both are sure."""
        return [
            _stratum(
                size,
                [(a[leaf] == "correct", b.get(leaf)) for leaf in leaves if a.get(leaf) in SURE],
            )
            for size, leaves in self._parts()
        ]

    def with_unsure_as_errors(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels, and against the grader wherever nobody is sure."""
        against = {c.leaf: "wrong" if c.is_right else "correct" for c in self.chosen()}
        return {leaf: labels[leaf] if labels.get(leaf) in SURE else label
                for leaf, label in against.items()}  # fmt: skip

    def _parts(self) -> Iterator[tuple[int, list[str]]]:
        for is_contested, heap in self._heaps.items():
            yield self.population[is_contested], [chosen.leaf for _, chosen in heap]


def _stratum(size: int, pairs: Iterable[tuple[bool, str | None]]) -> Stratum:
    """`pairs`: (first verdict, label of the second)."""
    cells = [(first, label == "correct") for first, label in pairs if label in SURE]
    yes_yes, yes_no, no_yes, no_no = (cells.count(cell) for cell in CELLS)
    return Stratum(size, (yes_yes, yes_no, no_yes, no_no))


def common_labels(sheets: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all labellers say of a sample; `unsure` where they differ."""
    leaves = dict.fromkeys(leaf for sheet in sheets for leaf in sheet)
    said = {leaf: {sheet[leaf] for sheet in sheets if leaf in sheet} for leaf in leaves}
    return {leaf: labels.pop() if len(labels) == 1 else "unsure" for leaf, labels in said.items()}
