"""From what a run records of a sample to the dossier's record of it, and the root over all.

The same function serves the run, which puts the root into its ledger when an evaluation ends, and
the builder, which ships the lines: what was changed in between does not fit the ledger any more.
"""

from __future__ import annotations

import hashlib

from pellucid.errors import RunError
from pellucid.evaluate.records import SampleRecord
from pellucid.evidence.core.canonical import canonical_json, leaf_hash
from pellucid.evidence.core.merkle import MerkleTree
from pellucid.evidence.core.samples import (
    EngineInfo,
    Sample,
    SampleChecker,
    Sampler,
)
from pellucid.evidence.core.tally import Evaluation, verdict_line, vote_line

VERSION = 1
"""Of the record's form (`core.samples`)."""
RNG = "philox(key=seed, counter=(sample_id, position))"
"""How `rollout.philox` makes a token's randomness."""


def dossier_sample(record: SampleRecord) -> Sample:
    """The dossier's record of a sample. Raises RunError where its origin was not recorded."""
    if not (record.weights and record.grader_sha256 and record.seed is not None):
        raise RunError(
            f"the samples of {record.arm} on {record.suite} do not say which weights, seed and "
            "grader made them (an older version wrote them): run the evaluation again"
        )
    return {
        "v": VERSION,
        "eval_serial": record.eval_serial,
        "suite": record.suite,
        "arm": record.arm,
        "item": record.problem_id,
        "item_sha256": record.item_sha256,
        "cluster": record.family,
        "model": record.weights,
        "template_sha256": record.template_sha256,
        "prompt_sha256": record.prompt_sha256,
        "k": record.k_index,
        "seed": record.seed,
        "sample_id": record.sample_id,
        "sampler": dossier_sampler(record.sampler),
        "engine": _engine(record),
        "question": record.question,
        "gold": record.gold,
        "grader": record.grader,
        "grader_sha256": record.grader_sha256,
        "response": record.response,
        "token_ids": list(record.token_ids),
        "finish": str(record.stop),
        "n_prompt": record.n_prompt,
        "n_out": record.n_completion,
        "logprob_sum": record.logprob_sum,
        "verdict": str(record.verdict),
        "extracted": record.extracted,
        "method": record.method,
        "detail": record.detail,
        "retried": record.retried,
        "wall_ms": None,
        "energy_window": None,
        "error": None,
        "supersedes": None,
        "redacted": None,
    }


def dossier_sampler(sampler: dict[str, object]) -> Sampler:
    """`EvalResult.sampler` with the random numbers' rule."""
    return {**sampler, "stop": list(sampler["stop"]), "rng": RNG}


def _engine(record: SampleRecord) -> EngineInfo:
    engine = record.engine
    return {
        "name": engine["name"],
        "version": engine["version"],
        "dtype": engine["dtype"],
        "batch_invariant": engine["exact"],
        "tensor_parallel": 1,
    }


class VerdictRecorder:
    """Digests of the verdicts and votes of an evaluation, whose samples come item by item: one item
    is held at a time. Those of `core.tally.Evaluation`, which holds them all.
    """

    def __init__(self) -> None:
        self._verdicts, self._votes = hashlib.sha256(), hashlib.sha256()
        self._item = Evaluation("", "", merkle_root="")

    def add(self, sample: Sample) -> None:
        if sample["item"] not in self._item.items:
            self._close_item()
        self._item.add(sample)

    def sha256(self) -> dict[str, str]:
        """Keys are those of `evaluation_ended`."""
        self._close_item()
        return {
            "verdicts_sha256": self._verdicts.hexdigest(),
            "votes_sha256": self._votes.hexdigest(),
        }

    def _close_item(self) -> None:
        for item, tally in self._item.items.items():
            self._verdicts.update(verdict_line(item, tally))
            self._votes.update(vote_line(item, tally))
        self._item = Evaluation("", "", merkle_root="")


class RootRecorder:
    """Merkle root over the dossier's records of samples, as they come."""

    def __init__(self) -> None:
        self.line = b""
        """Of the last sample that was added."""
        self._verdicts = VerdictRecorder()
        self._tree = MerkleTree()
        self._check = SampleChecker()

    def add(self, record: SampleRecord) -> Sample:
        """The dossier's record, whose line is now part of the root."""
        sample = dossier_sample(record)
        problem = self._check(sample)
        assert problem is None, f"sample {record.sample_id} has no dossier record: {problem}"
        self.line = canonical_json(sample)
        self._tree.add(leaf_hash(self.line))
        self._verdicts.add(sample)
        return sample

    @property
    def count(self) -> int:
        return self._tree.count

    def root(self) -> str:
        """Hexadecimal."""
        return self._tree.root()

    def verdicts(self) -> dict[str, str]:
        """What the ledger keeps of the verdicts: whoever withholds texts later cannot change them.
        Keys are those of `evaluation_ended`.
        """
        return self._verdicts.sha256()
