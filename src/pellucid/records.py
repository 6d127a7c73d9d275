"""The typed records that pass between all parts. No torch, no I/O.

Words: a *problem* is asked with a *prompt*; the policy answers with *completions*; a grader gives
each a *score*; the reward table turns it into a *rollout*; the rollouts of one problem are a
*group*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

ProblemKind = Literal["reasoning", "helpful", "safety"]


class Verdict(StrEnum):
    """What a grader says of one response."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    """No answer could be extracted from the response: the model's fault."""
    TIMEOUT = "timeout"
    """The answer was so costly to compare that the grader gave up: the model's fault."""
    ERROR = "error"
    """The instrument failed. Never a reward of 0: the sample is masked, retried and counted."""
    UNGRADED = "ungraded"
    """The problem is open: no program can say whether a response is right. Not a failure."""

    @property
    def is_graded(self) -> bool:
        """Whether it says anything of the model: what accuracy is taken over."""
        return self not in (Verdict.ERROR, Verdict.UNGRADED)


class StopReason(StrEnum):
    """Why a completion ended."""

    EOS = "eos"
    STOP_STRING = "stop_string"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its gold answer.

    Example: Problem(id="gsm8k/test/0", question="Janet has …", gold="18", grader="math")
    """

    id: str
    """Unique over all suites: `suite/split/row`."""
    question: str
    """The question alone, without any template."""
    gold: str
    """The reference answer, as the grader reads it. Empty for the grader `open`."""
    grader: str
    """Name in the table of `pellucid.rewards`."""
    family: str = ""
    """Problems of one family are variants of each other: the cluster of a bootstrap. Empty: its
    own id.
    """
    language: str = "en"
    """Language the thinking should be in (ISO 639-1)."""
    kind: ProblemKind = "reasoning"
    """`reasoning`: a program knows the answer. `helpful`, `safety`: general prompts, of which only
    a model can judge the responses.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A grader's typed verdict on one response."""

    verdict: Verdict
    extracted: str | None = None
    """The answer found in the response, None where there is none."""
    method: str = ""
    """Which path decided: `strict`, `math-verify`, …"""
    detail: str = ""
    """For `error` and `timeout`: what happened."""

    @property
    def is_correct(self) -> bool:
        return self.verdict is Verdict.CORRECT


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How completions are drawn. Shared by training and evaluation."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Strings that end a completion; the string itself stays in the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and the samples wanted for it: the prompt is prefilled once for all of them.

    Example: Request(prompt_ids=(1, 5, 9), sample_ids=(sample_id("train", 0, "gsm8k/train/7", 0),
    …))
    """

    prompt_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    """63-bit ids from `sample_id`: with the run's seed and the position they determine every
    token.
    """
    limits: tuple[int, ...] | None = None
    """Most new tokens of each sample; None: `SamplingParams.max_new_tokens`, which none exceeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine returns for one sample."""

    sample_id: int
    token_ids: tuple[int, ...]
    """Sampled tokens, the end-of-sequence token included where it was drawn. Never re-tokenised."""
    logprobs: tuple[float, ...]
    """Log-probability of each token under the distribution it was drawn from (T, top-p, top-k
    applied).
    """
    stop: StopReason
    text: str
    """Decoded tokens without special tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion of a problem with its score and reward."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    completion: Completion
    score: Score
    terms: Mapping[str, float] = field(default_factory=dict)
    """Value of each reward term before weighting."""
    reward: float = 0.0
    """Weighted sum of the terms: the scalar that is trained on. 0.0 where `masked`."""
    masked: bool = False
    """True where the instrument failed or truncation masks the sample: it takes no part in the
    group.
    """


def sample_id(*parts: str | int) -> int:
    """63-bit id of a sample, a function of its names alone: `sample_id("train", step, problem.id,
    k)`.

    The sampler's randomness is keyed by it, so a completion does not depend on batch, slot or
    order.
    """
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
