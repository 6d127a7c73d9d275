"""Supervised fine-tuning: who produces what, and what a step depends on.

    examples ── epoch_batches(seed, epoch) ── packs ── decoder ── linear_logprobs
                                                                       │
            weights ◄── Optimizer.step ◄── accumulated gradients ◄── −Σ logprob / tokens, backward

The loss is the mean negative log-probability of the assistant's tokens of an optimiser batch. Its
denominator is counted before the first pack, so that loss and gradient do not depend on packing.
Examples, seed and step number determine a step; a checkpoint holds weights and optimiser, so a run
killed at any moment continues from it and ends with the same bits as one that was never killed.
Not here: what makes an example (`sft_data`), which model is trained, evaluation.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pellucid.algo.head import linear_logprobs
from pellucid.algo.schedules import learning_rate
from pellucid.config import ScheduleConfig, SftConfig
from pellucid.errors import Interrupted, RunError
from pellucid.model.transformer import Decoder
from pellucid.protocols import ProgressFn
from pellucid.runlog import MetricsLog, MetricsRecord
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.optimizer import Optimizer
from pellucid.train.packing import TokenPack, build_token_pack, plan_packs
from pellucid.train.sft_data import SftExample, keep_fitting
from pellucid.train.update import check_finite


class SftUpdater:
    """Holds the model and its optimiser, and makes one optimiser step of a batch of examples."""

    def __init__(self, model: Decoder, config: SftConfig) -> None:
        self.model = model
        self.config = config
        self.optimizer = Optimizer(model, config)
        self.optimizer_steps = 0
        self.keep_bytes: int | None = None
        """Logits kept for the backward pass at most; None: what is free decides."""
        self.device = model.embedding.weight.device

    def update(
        self, examples: Sequence[SftExample], learning_rate: float, *, step: int
    ) -> dict[str, float]:
        """One optimiser step; returns its metrics, `loss` and `entropy` in nats per token.

        Raises NumericsError, naming the step, where loss or gradient is not finite: weights are
        left as they were.
        """
        num_tokens = sum(len(e.completion_ids) for e in examples)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        losses: list[Tensor] = []
        num_fed = 0
        for groups in plan_packs(examples, self.config.tokens_per_pack):
            pack = build_token_pack([[examples[i] for i in g] for g in groups], self.device)
            logprobs, entropy = self._forward(pack)
            loss = -logprobs.sum() / num_tokens
            loss.backward()
            losses.append(loss.detach())
            totals += torch.stack([losses[-1], entropy.sum() / num_tokens])
            num_fed += len(pack.token_ids)
        check_finite(losses, where=f"step {step}")
        norm = self.optimizer.step(learning_rate, where=f"step {step}")
        self.optimizer_steps += 1
        mean_loss, mean_entropy = totals.tolist()
        return {
            "loss": mean_loss,
            "entropy": mean_entropy,
            "grad_norm": norm,
            "learning_rate": learning_rate,
            "sequences": float(len(examples)),
            "tokens": float(num_tokens),
            "tokens_fed": float(num_fed),
            "packs": float(len(losses)),
        }

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint."""
        return self.optimizer.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()` in place. KeyError or RuntimeError where it is another model's."""
        self.optimizer.load_state(state)

    def _forward(self, pack: TokenPack) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [C] of the assistant's tokens at temperature 1."""
        model = self.model
        model.reserve_context(pack.attend.context)
        hidden = model(pack.token_ids, pack.attend)
        return linear_logprobs(
            hidden[pack.attend.num_body_tokens :],
            model.head.weight,
            pack.targets,
            keep_bytes=self.keep_bytes,
            weight_grad=self.optimizer.float32_grad(model.head.weight),
        )


@lru_cache(maxsize=2)
def epoch_batches(
    num_examples: int, batch_sequences: int, *, seed: int, epoch: int
) -> tuple[tuple[int, ...], ...]:
    """Indices of the examples of each optimiser step of an epoch: all of them, shuffled, in equal
    parts (sizes differ by one at most) of at most `batch_sequences`.

    Example: 5 examples in batches of at most 2 are three batches of 2, 2 and 1.
    """
    order = list(range(num_examples))
    random.Random(f"sft/{seed}/{epoch}").shuffle(order)
    count = -(-num_examples // batch_sequences)
    return tuple(tuple(order[part::count]) for part in range(count))


@dataclass(slots=True, kw_only=True)
class SftRun:
    """The parts of a fine-tuning stage, wired by the pipeline."""

    config: SftConfig
    seed: int
    examples: Sequence[SftExample]
    updater: SftUpdater
    checkpoints: Checkpoints
    metrics: MetricsLog
    should_stop: Callable[[], bool] = field(default=lambda: False)
    num_overlong: int = field(default=0, init=False)
    """Examples left out because they exceed `max_tokens` or the model's context."""
    _work: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Raises DataError where no example fits."""
        context = self.updater.model.spec.max_context
        limit = min(self.config.max_tokens or context, context)
        self.examples, self.num_overlong = keep_fitting(self.examples, limit)
        self._work = work_digest(self.examples, self.config, self.seed)

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch_sequences)

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.epochs * self.batches_per_epoch

    def train(self, progress: ProgressFn | None = None) -> int:
        """Trains from the last good checkpoint to the last step; returns the number of steps done
        now.

        Raises Interrupted after saving when asked to stop, NumericsError with the last checkpoint
        usable, RunError where the checkpoint is of other examples or settings.
        """
        first, last = self._resume(), self.num_steps
        for done in range(first, last):
            if self.should_stop():
                self._save(done)
                raise Interrupted(f"after step {done}")
            self._one_step(done + 1)
            if (done + 1) % self.config.checkpoint_every == 0 or done + 1 == last:
                self._save(done + 1)
            if progress is not None:
                progress(done + 1, last)
        return last - first

    def batch(self, step: int) -> list[SftExample]:
        """The examples of step number `step`, counted from 1."""
        epoch, part = divmod(step - 1, self.batches_per_epoch)
        size = self.config.batch_sequences
        batches = epoch_batches(len(self.examples), size, seed=self.seed, epoch=epoch)
        return [self.examples[i] for i in batches[part]]

    def _one_step(self, step: int) -> None:
        """Step number `step`, counted from 1: its loss is of the weights after step - 1 updates."""
        started = time.perf_counter()
        values = self.updater.update(self.batch(step), self._learning_rate(step), step=step)
        took = time.perf_counter() - started
        values["epoch"] = step / self.batches_per_epoch
        timing = {"step_s": took, "tokens_per_s": values["tokens_fed"] / took}
        self._write(step, "sft", values)
        self._write(step, "timing", timing)
        self.metrics.end_step(step, self.num_steps)

    def _learning_rate(self, step: int) -> float:
        schedule = ScheduleConfig(
            kind="cosine",
            warmup_steps=round(self.config.warmup_fraction * self.num_steps),
            final_fraction=self.config.final_fraction,
        )
        return learning_rate(step - 1, self.num_steps, schedule, self.config.learning_rate)

    def _resume(self) -> int:
        restored = self.checkpoints.load_last(self.updater)
        if restored is None:
            self.metrics.truncate_after(-1)
            self._write(0, "sft/data", self._describe())
            return 0
        if restored.offsets["work"] != self._work:
            raise RunError(
                f"checkpoint step {restored.step} is of other examples or [sft] settings: restore "
                "them, or start afresh with another --out"
            )
        self.metrics.truncate_after(restored.step)
        return restored.step

    def _save(self, step: int) -> None:
        self.metrics.sync()
        offsets = {"metrics_step": step, "work": self._work}
        self.checkpoints.save(step, self.updater, offsets)

    def _write(self, step: int, name: str, values: dict[str, float]) -> None:
        self.metrics.write(MetricsRecord(step=step, name=name, values=values))

    def _describe(self) -> dict[str, float]:
        return {
            "examples": float(len(self.examples)),
            "overlong": float(self.num_overlong),
            "tokens": float(sum(len(e.completion_ids) for e in self.examples)),
            "steps": float(self.num_steps),
        }


def work_digest(examples: Sequence[SftExample], config: SftConfig, seed: int) -> int:
    """52 bits of a digest of all that the steps depend on beside the weights."""
    settings = config.model_dump_json(exclude={"checkpoint_every", "keep_checkpoints"})
    digest = hashlib.sha256(f"{seed} {settings}".encode())
    for example in examples:
        ids = (len(example.prompt_ids), *example.prompt_ids, *example.completion_ids, -1)
        digest.update(np.array(ids, dtype=np.int64))
    return int(digest.hexdigest()[:13], 16)
