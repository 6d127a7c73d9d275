"""Knobs of reward models: their data, their judge, their training. No torch, no I/O.

Parts of the stage `reward-models` (see `pellucid.config_stages`). Defaults are the paper's (Nature
version, Methods) where it gives any.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from pellucid.config import Fraction, NonNegative, PositiveInt, Section, SftConfig
from pellucid.config_curate import TeacherConfig

SAMPLED = "sampled"
"""Among sources: answers of the start model itself."""


class RewardTrainConfig(SftConfig):
    """Training of a reward model: one epoch, batches of 256, rate 6e-6 and at most 8,192 tokens, as
    in the paper, which is silent on all else.
    """

    epochs: PositiveInt = 1
    batch_sequences: PositiveInt = 256
    """Pairs, or labelled responses, per optimiser step."""
    learning_rate: float = Field(default=6e-6, gt=0.0)
    max_tokens: int | None = Field(default=8192, ge=2)
    """Longer examples are left out of training and counted; at scoring there is no limit but the
    model's context.
    """


class JudgeConfig(Section):
    """Who compares two answers, and when a pair is decided.

    Either `name`, a judge that is a program, or `teacher`, a model that is asked in the format of
    Arena-Hard.
    """

    name: str | None = None
    """`smalltalk`: the rules of the embedded general prompts."""
    teacher: TeacherConfig | None = None
    judgments: int = Field(default=4, ge=2)
    """Per pair, an even number: half of them with the answers in swapped positions."""
    min_margin: NonNegative = 1.0
    """Pairs are kept whose mean judgment is beyond this on the scale of -2 to 2."""

    @model_validator(mode="after")
    def _one_judge(self) -> JudgeConfig:
        if (self.name is None) == (self.teacher is None):
            raise ValueError("give a judge either by name or as a teacher, not both")
        if self.judgments % 2:
            raise ValueError(f"judgments = {self.judgments} cannot be split evenly over positions")
        return self


class RewardDataConfig(Section):
    """Where one reward model's data comes from, and what it is measured on."""

    sources: tuple[str, ...] = Field(default=(SAMPLED,), min_length=1)
    """Each `sampled` (answers of the start model, judged) or a file that
    `pellucid.data.preferences` reads: plain JSON lines, HH-RLHF, RM-Bench, JudgeBench.
    """
    measure_on: tuple[str, ...] = ()
    """More held-out files, never learnt: RM-Bench, JudgeBench, …"""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many rows of each file."""
    held_out: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the prompts kept for measuring accuracy."""


class HelpfulConfig(RewardDataConfig):
    """Pairs for the helpful reward model."""

    max_length_gap: Fraction = 0.05
    """Chosen and rejected summaries may differ in mean length by this share; pairs are dropped
    until they do. The paper asks for "comparable" lengths and gives no number. 1: off.
    """


class SafetyConfig(RewardDataConfig):
    """Labelled responses for the safety reward model."""


class CandidatesConfig(Section):
    """Answers of the start model that are judged or labelled."""

    prompts: PositiveInt = 256
    """General prompts that are asked."""
    samples: int = Field(default=4, ge=2)
    """Answers to each; a helpful prompt gives `samples // 2` disjoint pairs."""
    temperature: float = Field(default=1.0, gt=0.0)
    max_new_tokens: PositiveInt = 256
