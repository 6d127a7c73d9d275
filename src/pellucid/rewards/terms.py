"""Reward terms by name, their weighted sum, and the rules for completions that were cut off.

A term maps one graded response to a number. An instrument failure is no number: `settle` masks it.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from pellucid.errors import ConfigError
from pellucid.records import Problem, Score, Verdict
from pellucid.rewards.format import format_reward, format_strict_reward
from pellucid.rewards.language import language_reward
from pellucid.rewards.repetition import repetition_share

TermFn = Callable[[Problem, str, Score, int], float]
"""(problem, response, score, sample id) -> value before weighting."""


def _accuracy(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return float(score.is_correct)


def _format(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return format_reward(response)


def _format_strict(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return format_strict_reward(response)


def _language(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return language_reward(response, problem.language)


def _repetition(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    return repetition_share(response)


def _random(problem: Problem, response: str, score: Score, sample_id: int) -> float:
    """A fair coin per sample, blind to the answer: the negative control of learning."""
    key = f"random-reward/{sample_id}".encode()
    return float(hashlib.blake2b(key, digest_size=1).digest()[0] & 1)


TERMS: dict[str, TermFn] = {
    "accuracy": _accuracy,
    "format": _format,
    "format_strict": _format_strict,
    "language": _language,
    "repetition": _repetition,
    "random": _random,
}


class Outcome(NamedTuple):
    """What training uses of one rollout."""

    reward: float
    """0.0 where `masked`."""
    masked: bool


def check_terms(names: Iterable[str]) -> None:
    """Raises ConfigError that names the nearest term, for the first name that is none."""
    for name in names:
        if name not in TERMS:
            near = difflib.get_close_matches(name, TERMS, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"unknown reward term {name!r}; did you mean {near!r}? Terms: {', '.join(TERMS)}"
            )


def compute_terms(
    names: Iterable[str], problem: Problem, response: str, score: Score, sample_id: int
) -> dict[str, float]:
    """Value of each named term before weighting. Raises ConfigError on an unknown name."""
    names = tuple(names)
    check_terms(names)
    return {name: TERMS[name](problem, response, score, sample_id) for name in names}


def weighted(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Weighted sum. Raises KeyError where a weighted term is missing: it never counts as 0."""
    return sum(weight * terms[name] for name, weight in weights.items())


def overlong_penalty(num_tokens: int, *, max_tokens: int, buffer: int) -> float:
    """Soft overlong punishment in [-1, 0] (DAPO, eq. 13), linear over the last `buffer` tokens."""
    start = max_tokens - buffer
    if buffer == 0 or num_tokens <= start:
        return 0.0
    return max(-1.0, (start - num_tokens) / buffer)


def settle(
    reward: float,
    score: Score,
    *,
    is_truncated: bool,
    rule: Literal["grade", "mask", "zero"] = "grade",
    num_tokens: int = 0,
    max_tokens: int = 0,
    overlong_buffer: int = 0,
) -> Outcome:
    """The scalar to train on: errors masked, truncation rule and soft penalty applied."""
    if score.verdict is Verdict.ERROR or (is_truncated and rule == "mask"):
        return Outcome(0.0, True)
    if is_truncated and rule == "zero":
        reward = 0.0
    return Outcome(
        reward + overlong_penalty(num_tokens, max_tokens=max_tokens, buffer=overlong_buffer), False
    )
