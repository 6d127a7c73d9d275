"""Knobs of the ways to teach a student. No torch, no I/O.

Parts of the stage `distill` (see `pellucid.config_stages`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pellucid.config import Fraction, PositiveInt, RolloutConfig, Section, SftConfig, TaskEntry
from pellucid.config_curate import FilterConfig

ArmName = Literal["sft", "on-policy", "iterative-sft"]
"""Ways to teach a student."""


class DistillSftConfig(SftConfig):
    """Two epochs, batches of 64, cosine to a tenth; 1e-4 is the paper's rate for its smallest
    student, of 1.5 billion parameters (Table 6).
    """

    learning_rate: float = Field(default=1e-4, gt=0.0)


class DistillRolloutConfig(RolloutConfig):
    """What the student samples in one go. Every token has a teacher: groups may be small."""

    group_size: int = Field(default=4, ge=2)


class OnPolicyConfig(Section):
    """The student samples, the teacher judges every token. The optimiser is that of `sft`."""

    learning_rate: float | None = Field(default=None, gt=0.0)
    """Peak; default: that of `sft`. Warm-up and cosine follow the share of the budget spent."""
    coefficient: float = Field(default=1.0, gt=0.0)
    """Of the reverse KL, which is the negative advantage."""
    estimate: Literal["token", "vocabulary"] = "token"
    """What the reverse KL at a place is taken from: the drawn token alone, or every token that
    might have been drawn. The gradient is the same in expectation; the second has less noise, and
    needs the logits of both models, a chunk of them at a time.
    """


class OwnSampleFilterConfig(FilterConfig):
    """What of its own samples the student learns: all that are right (STaR, 2203.14465)."""

    format: bool = False
    max_repetition: Fraction = 1.0
    min_language_share: Fraction = 0.0


class IterativeConfig(Section):
    """Rounds of sampling the student, keeping what is right, and fine-tuning it on that."""

    rounds: PositiveInt = 3
    """Each has an equal part of the budget."""
    sampling_share: float = Field(default=0.3, gt=0.0, lt=1.0)
    """Share of a round's budget that sampling takes; fine-tuning has the rest."""
    prompts: PositiveInt | None = None
    """Problems sampled in one go; default: `rollout.prompts`. Many decode faster, and as the model
    stays the same meanwhile nothing speaks for few, as it may on-policy.
    """
    filters: OwnSampleFilterConfig = OwnSampleFilterConfig()


class WarmStartConfig(Section):
    """A short fine-tuning that all arms start behind, and that each of them pays for: a student
    that never answers in the form asked for has nothing right to learn, and no word worth judging.
    """

    examples: int = Field(default=0, ge=0)
    """Curated examples, drawn at random. 0: every arm starts from the student as it is."""
    epochs: PositiveInt = 2
    """Over those examples; all else is as in `sft`."""


class ArmsConfig(Section):
    """What the arms of a stage do, and what each may spend."""

    arms: tuple[ArmName, ...] = Field(default=("sft", "on-policy", "iterative-sft"), min_length=1)
    """The first is the stage's model."""
    budget_tokens: int | None = Field(default=None, ge=1)
    """What each arm may spend, its warm start in it: as many of the student's operations as
    training on so many tokens takes. Default: what `sft.epochs` epochs over the examples take.
    """
    tasks: tuple[TaskEntry, ...] = ()
    """Problems of the arms that sample. Empty: those of the examples."""
    warm_start: WarmStartConfig = WarmStartConfig()
    sft: DistillSftConfig = DistillSftConfig()
    rollout: DistillRolloutConfig = DistillRolloutConfig()
    """Of the arms that sample."""
    on_policy: OnPolicyConfig = OnPolicyConfig()
    iterative: IterativeConfig = IterativeConfig()
    math_verify: bool = True
    """Ask math-verify where the strict grader finds no match."""

    @field_validator("arms")
    @classmethod
    def _each_once(cls, value: tuple[ArmName, ...]) -> tuple[ArmName, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names an arm twice: name each once")
        return value
