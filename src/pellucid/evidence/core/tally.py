"""Samples of one evaluation, reduced to what claims need: a few counts per item."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from pellucid.evidence.core.samples import Sample

LONG_ANSWER = 64
"""Longer answers vote by their digest, so that memory stays small."""

FAILED = "\x00"
"""In place of the answer of a sample that was not graded: all of them vote for one wrong answer."""
MAX_ENGINES = 16
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

    def with_failed(self, *, as_correct: bool) -> ItemTally:
        """A copy in which samples that were not graded count as answers, all right or all wrong."""
        made = ItemTally(self.cluster)
        failed = self.samples - self.graded
        made.samples = made.graded = self.samples
        made.correct = self.correct + (failed if as_correct else 0)
        made.parsable, made.truncated = self.parsable, self.truncated
        made.errors, made.tokens = self.errors, self.tokens
        answers = self.answers if as_correct else [(FAILED, False)] * failed + self.answers
        made.answers = answers
        return made

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
        self.engines: list[dict[str, Any]] = []
        """What answered, without repetition: `Sample.engine`. At most `MAX_ENGINES`."""
        self._last: ItemTally | None = None
        self._votes: dict[tuple[str | None, bool], tuple[str | None, bool]] = {}
        """Of the last item: equal votes are one object, or they would fill the memory."""

    @property
    def num_failed(self) -> int:
        """Samples that count in no accuracy."""
        return sum(tally.samples - tally.graded for tally in self.items.values())

    def with_failed(self, *, as_correct: bool) -> Evaluation:
        """As if every sample that failed had been answered, rightly or wrongly."""
        made = Evaluation(self.suite, self.arm, merkle_root=self.merkle_root)
        made.items = {
            item: tally.with_failed(as_correct=as_correct) for item, tally in self.items.items()
        }
        return made

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


def tally_samples(
    samples: Iterable[Sample], *, suite: str, arm: str, merkle_root: str
) -> Evaluation:
    """The whole evaluation at once."""
    evaluation = Evaluation(suite, arm, merkle_root=merkle_root)
    for sample in samples:
        evaluation.add(sample)
    return evaluation
