"""pass@1 on a few held-out problems during training: recorded like any other evaluation.

Whoever watches a curve on held-out problems can stop or tune by it. So each look is an attempt in
the ledger with its samples kept, and it draws under a seed and sample ids of its own: what it shows
is not what the final evaluation will draw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch

from pellucid.artifacts import StageFolder, sha256_json, writing
from pellucid.evaluate.suites import Suite
from pellucid.evidence.evaluations import DURING
from pellucid.model.transformer import Decoder
from pellucid.pipeline.diary import Diary
from pellucid.pipeline.evaluations import Evaluations, Instruments
from pellucid.pipeline.grading import Grading
from pellucid.records import sample_id
from pellucid.train.grpo import MetricGroups


def during_seed(seed: int) -> int:
    """Seed of the small evaluations of a run with this seed."""
    return sample_id(DURING, seed)


def during_suite(suite: Suite, limit: int) -> Suite:
    """The first problems of a suite, once each, under a name of their own."""
    return replace(
        suite,
        key=f"{suite.key}-{DURING}",
        label=f"{suite.label} {DURING} training",
        problems=suite.problems[:limit],
        k=1,
        pass_at=(),
        variant="",
    )


def loaded_root(model: Decoder) -> str:
    """Digest of the weights in memory: names, types, shapes and bytes of all tensors."""
    tensors = {}
    for name, parameter in model.named_parameters():
        raw = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest = hashlib.sha256(raw.numpy()).hexdigest()
        tensors[name] = [str(parameter.dtype), list(parameter.shape), digest]
    return sha256_json(tensors)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallEvaluations:
    """Those of one stage of reinforcement learning."""

    stage: StageFolder
    suite: Suite
    every: int
    """Steps between two; 0: never."""
    limit: int
    """Problems."""
    seed: int
    """The run's."""
    grading: Grading
    diary: Diary

    def after_update(self, step: int, instruments: Instruments) -> MetricGroups:
        """What metrics.jsonl says of a step; nothing where no evaluation is due.

        A step that is done again after an interruption gives the result that is there, if the
        weights have the same bits; else it is another attempt with a name of its own.
        """
        if not self.every or step % self.every:
            return {}
        small, folder = during_suite(self.suite, self.limit), self.stage.evals / DURING
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        evaluations = self._evaluations(folder)
        arm = self._arm(step, small, evaluations, loaded_root(instruments.bench.loaded.model))
        result = evaluations.measure_all(arm, [small], lambda: instruments)[small.key]
        return {f"eval/{self.suite.key}": {"pass_at_1": result.pass_at_1.value}}

    def _evaluations(self, folder: Path) -> Evaluations:
        return Evaluations(
            folder=folder,
            seed=during_seed(self.seed),
            grading=self.grading,
            diary=self.diary,
            # A stop waits for it: the step could not be saved without its metrics.
            should_stop=lambda: False,
            weights_of=lambda bench: loaded_root(bench.loaded.model),
        )

    def _arm(self, step: int, small: Suite, evaluations: Evaluations, weights: str) -> str:
        first = f"{self.stage.stage_name}-step-{step}"
        for number in count(1):
            arm = first if number == 1 else f"{first}-{number}"
            kept = evaluations.kept(arm, small)
            if kept is None or kept.origin.weights == weights:
                return arm
        raise AssertionError("there is always a next number")
