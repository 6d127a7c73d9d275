"""On-policy distillation: who produces what, until the budget is spent.

    problems ── student samples ──► teacher reads the samples ──► advantage of every token
                    ▲                                                      │
                    └────────────── weights ◄── PolicyUpdater.update ◄─────┘

The advantage is the teacher's log-probability less the student's (`algo.distill`), less its mean
over the batch: the expected gradient is that of the reverse KL of the next token, at the places
where the student goes. `ReverseKlUpdater` asks the teacher itself and takes that gradient over the
whole vocabulary: no advantages then. No reward, no grader. A step is a function of (weights, seed,
step), and a checkpoint holds the tokens spent so far: a run killed at any moment ends with the same
bits as one that was never killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean

import torch

from pellucid.algo.distill import reverse_kl_advantages
from pellucid.algo.schedules import learning_rate
from pellucid.config import RunConfig, ScheduleConfig, SftConfig
from pellucid.data.mixture import Mixture
from pellucid.errors import Interrupted
from pellucid.model.transformer import Decoder
from pellucid.protocols import Engine, ProgressFn, Tokenizer
from pellucid.records import Problem, StopReason, sample_id
from pellucid.runlog import MetricsLog, MetricsRecord
from pellucid.tasks.templates import Template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.compute import Budget, Compute
from pellucid.train.draw import Group, draw_groups
from pellucid.train.packing import TrainSequence, tokens_fed
from pellucid.train.step_errors import named
from pellucid.train.update import PolicyUpdater

_PARTS = 1000
"""Into so many the schedule cuts the budget: how many steps it lasts for is not known before."""


@dataclass(slots=True, kw_only=True)
class OnPolicyRun:
    """The parts of such a training, wired by the pipeline."""

    config: RunConfig
    """Sampler, packs and checkpoints."""
    sft: SftConfig
    """Shape of the learning rate's schedule."""
    budget: Budget
    coefficient: float
    mixture: Mixture
    template: Template
    engine: Engine
    tokenizer: Tokenizer
    updater: PolicyUpdater
    teacher: Decoder | None
    """Judges the tokens that were drawn; its weights stay as they are. None: the updater has it."""
    checkpoints: Checkpoints
    metrics: MetricsLog
    refresh: Callable[[], None]
    """Tells the engine that the weights changed."""
    before_update: Callable[[], None] = field(default=lambda: None)
    """Makes room for teacher and update."""
    should_stop: Callable[[], bool] = field(default=lambda: False)
    compute: Compute = field(default=Compute(), init=False)
    """Spent so far."""

    def train(self, progress: ProgressFn | None = None) -> int:
        """Trains from the last good checkpoint until the budget is spent; returns the steps done
        in all.

        Raises Interrupted after saving when asked to stop; NumericsError, and UserError where
        memory runs out, with the step in their line and the last checkpoint usable.
        """
        done = self._resume()
        while self.budget.share(self.compute) < 1.0:
            if self.should_stop():
                self._save(done)
                raise Interrupted(f"after step {done}")
            done += 1
            with named(done):
                self._one_step(done)
            is_spent = self.budget.share(self.compute) >= 1.0
            if is_spent or done % self.config.train.checkpoint_every == 0:
                self._save(done)
            if progress is not None:
                progress(min(self.compute.units, self.budget.units), self.budget.units)
        return done

    def _one_step(self, step: int) -> None:
        """Step number `step`, counted from 1: its metrics are of the weights after step - 1."""
        started = time.perf_counter()
        groups = self._sample(step)
        sampled = time.perf_counter()
        self.before_update()
        sequences = as_sequences(groups)
        if self.teacher is not None:
            sequences = judge(sequences, self.updater, self.teacher, coefficient=self.coefficient)
        judged = time.perf_counter()
        rate = self._learning_rate()
        trained = self.updater.update(sequences, step=step, rate=rate)
        self.refresh()
        ended = time.perf_counter()
        self.compute += self._cost(groups, sequences)
        tokens = sum(len(s.completion_ids) for s in sequences)
        timing = {
            "step_s": ended - started,
            "rollout_s": sampled - started,
            "scoring_s": judged - sampled,
            "train_s": ended - judged,
            "tokens_per_s": tokens / (ended - started),
        }
        self._write(step, "rollout", _sample_metrics(groups))
        apart = trained.pop("reverse_kl", None)
        if apart is None:
            apart = _estimate(sequences, self.coefficient)
        spent = self.budget.share(self.compute)
        self._write(step, "distill", {"reverse_kl": apart, "spent": spent})
        self._write(step, "train", trained | {"learning_rate": rate})
        self._write(step, "timing", timing)

    def _sample(self, step: int) -> list[Group]:
        size, seed = self.config.rollout.prompts, self.config.seed

        def make_id(place: int, problem: Problem, k: int) -> int:
            return sample_id("distill", step, place, problem.id, k)

        return draw_groups(
            self.engine,
            self.tokenizer,
            self.mixture.window((step - 1) * size, size),
            template=self.template,
            config=self.config.rollout,
            make_id=make_id,
            seed=seed,
        )

    def _cost(self, groups: Sequence[Group], sequences: Sequence[TrainSequence]) -> Compute:
        capacity = self.config.train.tokens_per_pack
        learnt = [s for s in sequences if self.teacher is None or s.has_advantage]
        return Compute(
            trained=tokens_fed(learnt, capacity),
            generated=sum(group.num_fed for group in groups),
            scored=tokens_fed(sequences, capacity),
        )

    def _learning_rate(self) -> float:
        schedule = ScheduleConfig(
            kind="cosine",
            warmup_steps=round(self.sft.warmup_fraction * _PARTS),
            final_fraction=self.sft.final_fraction,
        )
        part = int(self.budget.share(self.compute) * _PARTS)
        return learning_rate(part, _PARTS, schedule, self.config.train.learning_rate)

    def _resume(self) -> int:
        restored = self.checkpoints.load_last(self.updater)
        if restored is None:
            self.metrics.truncate_after(-1)
            return 0
        self.compute = Compute.from_dict(restored.offsets)
        self.metrics.truncate_after(restored.step)
        self.refresh()
        return restored.step

    def _save(self, step: int) -> None:
        self.metrics.sync()
        offsets = {"metrics_step": step, **self.compute.to_dict()}
        self.checkpoints.save(step, self.updater, offsets)

    def _write(self, step: int, name: str, values: dict[str, float]) -> None:
        self.metrics.write(MetricsRecord(step=step, name=name, values=values))


def as_sequences(groups: Sequence[Group]) -> list[TrainSequence]:
    """The samples, as yet without an opinion of them."""
    return [
        TrainSequence(
            prompt_ids=group.prompt_ids,
            completion_ids=completion.token_ids,
            rollout_logprobs=completion.logprobs,
            advantage=0.0,
        )
        for group in groups
        for completion in group.completions
        if completion.token_ids
    ]


def judge(
    sequences: Sequence[TrainSequence],
    updater: PolicyUpdater,
    teacher: Decoder,
    *,
    coefficient: float,
) -> list[TrainSequence]:
    """Samples with the teacher's opinion of each token, less the mean opinion."""
    opinions = updater.logprobs(sequences, teacher)
    own = [
        reverse_kl_advantages(
            torch.tensor(s.rollout_logprobs), opinion.cpu(), coefficient=coefficient
        ).tolist()
        for s, opinion in zip(sequences, opinions, strict=True)
    ]
    # A constant has no gradient in expectation; without it a student far from its teacher would
    # mostly learn that whatever it said was bad.
    baseline = fmean(chain.from_iterable(own)) if own else 0.0
    return [
        replace(s, advantage=-baseline, token_advantages=tuple(values))
        for s, values in zip(sequences, own, strict=True)
    ]


def _sample_metrics(groups: Sequence[Group]) -> dict[str, float]:
    completions = [c for group in groups for c in group.completions]
    lengths = [len(c.token_ids) for c in completions]
    return {
        "length_mean": fmean(lengths),
        "length_truncated_frac": fmean(c.stop is StopReason.LENGTH for c in completions),
        "tokens": float(sum(lengths)),
    }


def _estimate(sequences: Sequence[TrainSequence], coefficient: float) -> float:
    """Mean over the sampled tokens, nats: an unbiased estimate of the reverse KL of a token."""
    values = [a for s in sequences for a in s.token_advantages]
    return -sum(values) / coefficient / max(len(values), 1)
