"""Samples of one evaluation, reduced to what claims need: a few counts per item."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.samples import Sample

LONG_ANSWER = 64
"""Longer answers vote by their digest, so that memory stays small."""

FAILED = "\x00"
"""In place of the answer of a sample that was not graded: all of them vote for one wrong answer."""
MAX_ENGINES = 16
NOT_GRADED = ("error", "ungraded")
"""Verdicts that say nothing of the model; samples with one are left out of accuracies."""
LETTERS = {"correct": "c", "wrong": "w", "unparsable": "u", "timeout": "t",
           "error": "e", "ungraded": "n"}  # fmt: skip
"""How a tally writes verdicts down: one letter a sample, in their order."""
_AS_RIGHT = str.maketrans({LETTERS[verdict]: LETTERS["correct"] for verdict in NOT_GRADED})
_AS_WRONG = str.maketrans({LETTERS[verdict]: LETTERS["unparsable"] for verdict in NOT_GRADED})


class ItemTally:
    """Counts over the samples of one item."""

    __slots__ = ("answers", "cluster", "tokens", "truncated", "verdicts")

    def __init__(self, cluster: str, verdicts: str = "") -> None:
        self.cluster, self.verdicts = cluster, verdicts
        self.truncated = self.tokens = 0
        self.answers: list[tuple[str | None, bool]] = []
        """(answer, is correct) of the graded samples, in their order."""

    @property
    def samples(self) -> int:
        return len(self.verdicts)

    @property
    def graded(self) -> int:
        return len(self.verdicts) - self.verdicts.count("e") - self.verdicts.count("n")

    @property
    def correct(self) -> int:
        return self.verdicts.count("c")

    @property
    def parsable(self) -> int:
        return self.graded - self.verdicts.count("u")

    @property
    def errors(self) -> int:
        return self.verdicts.count("e")

    def with_failed(self, *, as_correct: bool) -> ItemTally:
        """A copy in which samples that were not graded count as answers, all right or all wrong."""
        failed = self.samples - self.graded
        table = _AS_RIGHT if as_correct else _AS_WRONG
        made = ItemTally(self.cluster, self.verdicts.translate(table))
        made.truncated, made.tokens = self.truncated, self.tokens
        made.answers = self.answers if as_correct else [(FAILED, False)] * failed + self.answers
        return made

    def add(self, sample: Sample) -> None:
        self.verdicts += LETTERS[sample["verdict"]]
        self.tokens += sample["n_out"]
        self.truncated += sample["finish"] == "length"


def _vote(sample: Sample) -> str | None:
    """What the sample votes for. A withheld answer votes by its digest: equal texts stay equal."""
    answer, redacted = sample["extracted"], sample["redacted"]
    if redacted is not None and "extracted" in redacted["fields"]:
        return redacted["fields"]["extracted"]
    if answer is not None and len(answer) > LONG_ANSWER:
        return hashlib.sha256(answer.strip().encode(errors="surrogatepass")).hexdigest()
    return answer


class Evaluation:
    """`evals/<suite>/<arm>`: a tally per item, in the order of their first samples."""

    def __init__(self, suite: str, arm: str, *, merkle_root: str) -> None:
        self.suite, self.arm, self.merkle_root = suite, arm, merkle_root
        self.keeps_answers = True
        """Votes take most of the memory; only cons@k needs them."""
        self.items: dict[str, ItemTally] = {}
        self.engines: list[dict[str, Any]] = []
        """What answered, without repetition: `Sample.engine`. At most `MAX_ENGINES`."""
        self._last: ItemTally | None = None
        self._votes: dict[tuple[str | None, bool], tuple[str | None, bool]] = {}
        """Of the last item: equal votes are one object, or they would fill the memory."""

    @property
    def num_failed(self) -> int:
        """Samples that count in no accuracy."""
        return sum(tally.samples - tally.graded for tally in self.items.values())

    def found_share(self) -> float:
        """Share of the graded samples in which an answer was found; 0 where none was graded."""
        whole = ItemTally("", "".join([tally.verdicts for tally in self.items.values()]))
        return whole.parsable / whole.graded if whole.graded else 0.0

    def with_failed(self, *, as_correct: bool) -> Evaluation:
        """As if every sample that failed had been answered, rightly or wrongly."""
        made = Evaluation(self.suite, self.arm, merkle_root=self.merkle_root)
        made.items = {
            item: tally.with_failed(as_correct=as_correct) for item, tally in self.items.items()
        }
        return made

    def verdicts_sha256(self) -> str:
        """Of every item's verdicts in their order, its family, cut off samples and tokens: what all
        claims but those of votes are made from. A ledger that holds it fixes the verdicts of
        samples whose texts are withheld later.
        """
        digest = hashlib.sha256()
        for item, tally in self.items.items():
            digest.update(verdict_line(item, tally))
        return digest.hexdigest()

    def votes_sha256(self) -> str:
        """Of which answers to an item are equal, which is what majorities are made from: the number
        of the first equal one, -1 without an answer. Of withheld answers it is the same.
        """
        digest = hashlib.sha256()
        for item, tally in self.items.items():
            digest.update(vote_line(item, tally))
        return digest.hexdigest()

    def add(self, sample: Sample) -> None:
        """Count one more sample."""
        if sample["engine"] not in self.engines and len(self.engines) < MAX_ENGINES:
            self.engines.append(sample["engine"])
        tally = self.items.get(sample["item"])
        if tally is None:
            tally = self.items[sample["item"]] = ItemTally(sample["cluster"])
        tally.add(sample)
        if self.keeps_answers and sample["verdict"] not in NOT_GRADED:
            if tally is not self._last:
                self._last, self._votes = tally, {}
            vote = (_vote(sample), sample["verdict"] == "correct")
            tally.answers.append(self._votes.setdefault(vote, vote))


def verdict_line(item: str, tally: ItemTally) -> bytes:
    """What `Evaluation.verdicts_sha256` reads of an item."""
    row = [item, tally.cluster, tally.verdicts, tally.truncated, tally.tokens]
    return canonical_json(row) + b"\n"


def vote_line(item: str, tally: ItemTally) -> bytes:
    """What `Evaluation.votes_sha256` reads of an item."""
    first: dict[str, int] = {}
    row = [
        -1 if vote is None else first.setdefault(vote.strip(), len(first))
        for vote, _ in tally.answers
    ]
    return canonical_json([item, row]) + b"\n"


def tally_samples(
    samples: Iterable[Sample], *, suite: str, arm: str, merkle_root: str
) -> Evaluation:
    """The whole evaluation at once."""
    evaluation = Evaluation(suite, arm, merkle_root=merkle_root)
    for sample in samples:
        evaluation.add(sample)
    return evaluation
