"""Knobs of reward models: their data, their judge, their training. No torch, no I/O.

Parts of the stage `reward-models` (see `pellucid.config_stages`). Defaults are the paper's (Nature
version, Methods) where it gives any.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from pellucid.config import (
    Fraction,
    NonNegative,
    PositiveInt,
    Section,
    SftConfig,
    TaskEntry,
)
from pellucid.config_curate import TeacherConfig

EMBEDDED = "embedded"
"""Among sources: the templated answers of the task `smalltalk`, good and bad by construction."""
SAMPLED = "sampled"
"""Among sources: answers of the start model, judged or labelled."""


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
    """Who compares two answers, and when a pair is decided (paper, Methods).

    Example: `judge = { endpoint = { base_url = "…/v1", model = "…" } }`
    """

    name: str | None = None
    """A judge that is a program and needs no network: `smalltalk`."""
    endpoint: TeacherConfig | None = None
    """A judge that is a model, asked in the format of Arena-Hard."""
    judgments: int = Field(default=4, ge=2)
    """Per pair, an even number: half of them with the answers in swapped positions."""
    min_margin: NonNegative = 1.0
    """Pairs are kept whose mean judgment is beyond this on the scale of -2 to 2."""

    @model_validator(mode="after")
    def _one_judge(self) -> JudgeConfig:
        if (self.name is None) == (self.endpoint is None):
            raise ValueError("give either name, a program, or endpoint, a model")
        if self.judgments % 2:
            raise ValueError(f"judgments = {self.judgments} cannot be split evenly over positions")
        return self


class RewardDataConfig(Section):
    """Where one reward model's data comes from, and what it is measured on."""

    sources: tuple[str, ...] = Field(default=(EMBEDDED,), min_length=1)
    """Each `embedded`, `sampled` (answers of the start model) or a file that
    `pellucid.data.preferences` reads, as it is named or below data_dir.
    """
    measure_on: tuple[str, ...] = ()
    """More held-out files, never learnt: RM-Bench, JudgeBench, …"""
    limit: int = Field(default=2000, ge=2)
    """Most examples of a source."""
    held_out: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the prompts kept for measuring accuracy."""
    prompts: PositiveInt = 256
    """Prompts that the start model is asked for `sampled`."""
    samples: int = Field(default=4, ge=1)
    """Answers to each of them."""
    temperature: float = Field(default=1.0, gt=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_new_tokens: PositiveInt = 256


class HelpfulConfig(RewardDataConfig):
    """Pairs for the helpful reward model. Of a prompt's samples, the first is compared with the
    second, the third with the fourth, and so on: no answer is in two pairs.
    """

    samples: int = Field(default=4, ge=2)
    tasks: tuple[TaskEntry, ...] = Field(default=(TaskEntry(name="smalltalk"),), min_length=1)
    """Prompts for `sampled`."""
    max_length_gap: Fraction = 0.05
    """Chosen and rejected answers may differ in mean length by this share; pairs are dropped until
    they do. The paper asks for "comparable" lengths and gives no number. 1: off.
    """


class SafetyConfig(RewardDataConfig):
    """Labelled responses for the safety reward model. Samples are labelled by the program
    `smalltalk`; labels of people come in files.
    """

    tasks: tuple[TaskEntry, ...] = Field(
        default=(TaskEntry(name="smalltalk-safety"), TaskEntry(name="smalltalk")), min_length=1
    )
    """Prompts for `sampled`."""
