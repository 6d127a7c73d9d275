"""Epochs over a fixed set of examples: what fine-tuning and reward models have in common.

    examples ── epoch_batches(seed, epoch) ── Updater.update(batch, rate) ── metrics, checkpoints

Examples, seed and step number determine a step; a checkpoint holds weights and optimiser, so a run
killed at any moment continues from it and ends with the same bits as one that was never killed.
Not here: what a step computes.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from pellucid.algo.schedules import learning_rate
from pellucid.config import ScheduleConfig, SftConfig
from pellucid.errors import DataError, Interrupted, RunError
from pellucid.protocols import ProgressFn
from pellucid.runlog import MetricsLog, MetricsRecord
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.step_errors import named


class Example(Protocol):
    """All that an epoch needs of an example."""

    @property
    def num_tokens(self) -> int:
        """Of its longest sequence."""
        ...

    def ids(self) -> tuple[int, ...]:
        """All that it teaches, as integers: what a digest is taken of."""
        ...


E = TypeVar("E", bound=Example)


class Updater(Protocol[E]):
    """Holds the weights and makes one optimiser step of a batch."""

    optimizer_steps: int

    @property
    def max_context(self) -> int:
        """Most tokens that the model takes."""
        ...

    def update(self, examples: Sequence[E], learning_rate: float, *, step: int) -> dict[str, float]:
        """One optimiser step; returns its metrics, `tokens_fed` among them."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores `state()` in place. KeyError or RuntimeError where it is another model's."""
        ...


class Fitting(NamedTuple, Generic[E]):
    """Examples within a limit of tokens."""

    examples: list[E]
    num_overlong: int
    """Left out: a cut answer would teach to break off."""


def keep_fitting(examples: Sequence[E], max_tokens: int, *, section: str = "sft") -> Fitting[E]:
    """The examples of at most `max_tokens` tokens, prompt and completion, in their order.

    Raises DataError where none is left; it names `section`, where the limit is set.
    """
    fitting = [e for e in examples if e.num_tokens <= max_tokens]
    if not fitting:
        shortest = min((e.num_tokens for e in examples), default=0)
        reason = f"the shortest has {shortest}" if examples else "there is none at all"
        raise DataError(
            f"no example of at most {max_tokens} tokens to learn from ({reason}): raise "
            f"{section}.max_tokens, choose a model of longer context, or give other examples"
        )
    return Fitting(fitting, len(examples) - len(fitting))


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
class EpochRun(Generic[E]):
    """The parts of a stage that learns from examples, wired by the pipeline."""

    section: ClassVar[str] = "sft"
    """Of the recipe, and of the metrics."""

    config: SftConfig
    seed: int
    examples: Sequence[E]
    updater: Updater[E]
    checkpoints: Checkpoints
    metrics: MetricsLog
    should_stop: Callable[[], bool] = field(default=lambda: False)
    steps: int | None = None
    """Optimiser steps, of as many epochs as they take; None: `config.epochs` of them."""
    num_overlong: int = field(default=0, init=False)
    """Examples left out because they exceed `max_tokens` or the model's context."""
    _work: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Raises DataError where no example fits."""
        context = self.updater.max_context
        limit = min(self.config.max_tokens or context, context)
        fitting = keep_fitting(self.examples, limit, section=self.section)
        self.examples, self.num_overlong = fitting
        self._work = work_digest(self.examples, self.config, self.seed, self.steps)

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch_sequences)

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps or self.config.epochs * self.batches_per_epoch

    def train(self, progress: ProgressFn | None = None) -> int:
        """Trains from the last good checkpoint to the last step; returns the number of steps done
        now.

        Raises Interrupted after saving when asked to stop; NumericsError, and UserError where
        memory runs out, with the step in their line and the last checkpoint usable; RunError where
        the checkpoint is of other examples or settings.
        """
        first, last = self._resume(), self.num_steps
        for done in range(first, last):
            if self.should_stop():
                self._save(done)
                raise Interrupted(f"after step {done}")
            with named(done + 1):
                self._one_step(done + 1)
            if (done + 1) % self.config.checkpoint_every == 0 or done + 1 == last:
                self._save(done + 1)
            if progress is not None:
                progress(done + 1, last)
        return last - first

    def batch(self, step: int) -> list[E]:
        """The examples of step number `step`, counted from 1."""
        epoch, part = divmod(step - 1, self.batches_per_epoch)
        size = self.config.batch_sequences
        batches = epoch_batches(len(self.examples), size, seed=self.seed, epoch=epoch)
        return [self.examples[i] for i in batches[part]]

    def describe(self) -> dict[str, float]:
        """What there is to learn: the metrics of step 0."""
        return {
            "examples": float(len(self.examples)),
            "overlong": float(self.num_overlong),
            "steps": float(self.num_steps),
        }

    def _one_step(self, step: int) -> None:
        """Step number `step`, counted from 1: its loss is of the weights after step - 1 updates."""
        started = time.perf_counter()
        values = self.updater.update(self.batch(step), self._learning_rate(step), step=step)
        took = time.perf_counter() - started
        values["epoch"] = step / self.batches_per_epoch
        timing = {"step_s": took, "tokens_per_s": values["tokens_fed"] / took}
        self._write(step, self.section, values)
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
            self._write(0, f"{self.section}/data", self.describe())
            return 0
        if restored.offsets["work"] != self._work:
            raise RunError(
                f"checkpoint step {restored.step} is of other examples or [{self.section}] "
                "settings: restore them, or start afresh with another --out"
            )
        self.metrics.truncate_after(restored.step)
        return restored.step

    def _save(self, step: int) -> None:
        self.metrics.sync()
        offsets = {"metrics_step": step, "work": self._work}
        self.checkpoints.save(step, self.updater, offsets)

    def _write(self, step: int, name: str, values: dict[str, float]) -> None:
        self.metrics.write(MetricsRecord(step=step, name=name, values=values))


def work_digest(
    examples: Sequence[Example], config: SftConfig, seed: int, steps: int | None = None
) -> int:
    """52 bits of a digest of all that the steps depend on beside the weights."""
    settings = config.model_dump_json(exclude={"checkpoint_every", "keep_checkpoints"})
    digest = hashlib.sha256(f"{seed} {settings} {steps or ''}".rstrip().encode())
    for example in examples:
        digest.update(np.array(example.ids(), dtype=np.int64))
    return int(digest.hexdigest()[:13], 16)
