"""Samples of one evaluation, reduced to what claims need: a few counts per item."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pellucid.evidence.core.samples import Sample

LONG_ANSWER = 64
"""Longer answers vote by their digest, so that memory stays small."""

NOT_GRADED = ("error", "ungraded")
"""Verdicts that say nothing of the model; samples with one are left out of accuracies."""


class ItemTally:
    """Counts over the samples of one item."""

    __slots__ = ("answers", "cluster", "correct", "errors", "graded", "parsable", "samples",
                 "tokens", "truncated")  # fmt: skip

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.samples = self.graded = self.correct = self.parsable = 0
        self.truncated = self.errors = self.tokens = 0
        self.answers: list[tuple[str | None, bool]] = []
        """(answer, is correct) of the graded samples, in their order."""

    def add(self, sample: Sample) -> None:
        verdict = sample["verdict"]
        self.samples += 1
        self.tokens += sample["n_out"]
        self.truncated += sample["finish"] == "length"
        self.errors += verdict == "error"
        if verdict not in NOT_GRADED:
            self.graded += 1
            self.correct += verdict == "correct"
            self.parsable += verdict != "unparsable"


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
        self._last: ItemTally | None = None
        self._votes: dict[tuple[str | None, bool], tuple[str | None, bool]] = {}
        """Of the last item: equal votes are one object, or they would fill the memory."""

    def add(self, sample: Sample) -> None:
        """Count one more sample."""
        tally = self.items.get(sample["item"])
        if tally is None:
            tally = self.items[sample["item"]] = ItemTally(sample["cluster"])
        tally.add(sample)
        if self.keeps_answers and sample["verdict"] not in NOT_GRADED:
            if tally is not self._last:
                self._last, self._votes = tally, {}
            vote = (_vote(sample), sample["verdict"] == "correct")
            tally.answers.append(self._votes.setdefault(vote, vote))


def tally_samples(
    samples: Iterable[Sample], *, suite: str, arm: str, merkle_root: str
) -> Evaluation:
    """The whole evaluation at once."""
    evaluation = Evaluation(suite, arm, merkle_root=merkle_root)
    for sample in samples:
        evaluation.add(sample)
    return evaluation
