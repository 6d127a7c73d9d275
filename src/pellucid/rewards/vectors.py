"""The labelled vectors that ship with the graders, and what the graders make of them.

Each line of `vectors.jsonl` is one response with the verdict it deserves: right, wrong and
adversarial answers of every kind that is known to have fooled a grader. The rates are of these
chosen cases, not of what a model writes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

from pellucid.protocols import Grader
from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.gym import why_unusable
from pellucid.rewards.pool import GraderPool
from pellucid.sandbox import why_missing
from pellucid.stats import Estimate, wilson


class Vector(NamedTuple):
    """One labelled response."""

    kind: str
    grader: str
    gold: str
    response: str
    verdict: Verdict
    """What the grader has to say."""
    why: str

    def problem(self) -> Problem:
        return Problem(
            id=f"vectors/{self.kind}", question=self.why, gold=self.gold, grader=self.grader
        )


class Miss(NamedTuple):
    """A vector on which the grader was wrong."""

    vector: Vector
    score: Score


class SelfTest(NamedTuple):
    """The graders' record on the vectors."""

    num_vectors: int
    """Those that were graded."""
    not_run: Mapping[str, int]
    """Why -> how many vectors were left out: no sandbox, or no reasoning-gym of this version."""
    misses: tuple[Miss, ...]
    false_positives: Estimate
    """Share of incorrect responses that were graded correct, with Wilson's 95 % interval."""
    false_negatives: Estimate
    """Share of correct responses that were graded otherwise, with Wilson's 95 % interval."""
    num_errors: int
    """Vectors on which the instrument failed, say because math-verify is missing."""


def load_vectors() -> list[Vector]:
    text = resources.files("pellucid.rewards").joinpath("vectors.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [Vector(**{**row, "verdict": Verdict(row["verdict"])}) for row in rows]


def self_test(grader: Grader | None = None) -> SelfTest:
    """Grade all vectors; a few seconds, most of them for starting math-verify."""
    if grader is None:
        with GraderPool() as pool:
            return self_test(pool)
    every = load_vectors()
    reasons = [_why_not(vector) for vector in every]
    vectors = [vector for vector, why in zip(every, reasons, strict=True) if why is None]
    scores = grader.grade([v.problem() for v in vectors], [v.response for v in vectors])
    pairs = list(zip(vectors, scores, strict=True))
    bad = [score for vector, score in pairs if vector.verdict is not Verdict.CORRECT]
    good = [score for vector, score in pairs if vector.verdict is Verdict.CORRECT]
    return SelfTest(
        num_vectors=len(vectors),
        not_run=Counter(why for why in reasons if why is not None),
        misses=tuple(Miss(v, s) for v, s in pairs if v.verdict is not s.verdict),
        false_positives=wilson(sum(s.is_correct for s in bad), len(bad)),
        false_negatives=wilson(sum(not s.is_correct for s in good), len(good)),
        num_errors=sum(s.verdict is Verdict.ERROR for s in scores),
    )


def _why_not(vector: Vector) -> str | None:
    """Why this machine lacks the instrument; None where it has it."""
    if vector.grader == "code":
        return why_missing()
    return why_unusable(vector.gold) if vector.grader == "reasoning-gym" else None
