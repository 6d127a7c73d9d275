"""Correction for samples that were drawn by arithmetic slightly different from the trainer's.

w = exp(old_logprobs - rollout_logprobs): the trainer's probability of a token, before any update on
it, over the sampler's. Only the policy term of the loss is weighted, not the KL term. Shapes: T
tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are cut here before exp: beyond it float32 nears infinity, and 0 · inf is NaN."""


class Correction(NamedTuple):
    """What to multiply the policy loss with."""

    weight: Tensor
    """[T] float, no gradient; 1 where nothing is corrected."""
    capped: Tensor
    """[T] bool: w was above the cap and counts as the cap."""
    masked: Tensor
    """[T] bool: the token takes no part in the policy loss."""


MismatchFn = Callable[[Tensor, Tensor, float], Correction]
"""(old_logprobs [T], rollout_logprobs [T], cap > 1) -> Correction."""


def off(old_logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> Correction:
    """No correction."""
    none = torch.zeros_like(old_logprobs, dtype=torch.bool)
    return Correction(torch.ones_like(old_logprobs), none, none)


def truncated(old_logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> Correction:
    """Truncated importance sampling: weight min(w, cap)."""
    w = _ratio(old_logprobs, rollout_logprobs)
    return Correction(w.clamp(max=cap), w > cap, torch.zeros_like(w, dtype=torch.bool))


def masked(old_logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> Correction:
    """Weight w inside [1 / cap, cap], 0 outside it (2510.18855).

    Masked tokens stay in the denominators, which are fixed before any ratio is known.
    """
    w = _ratio(old_logprobs, rollout_logprobs)
    outside = (w > cap) | (w < 1.0 / cap)
    return Correction(torch.where(outside, 0.0, w), torch.zeros_like(outside), outside)


MISMATCH: dict[str, MismatchFn] = {"off": off, "tis": truncated, "mask": masked}
"""Name in `AlgoConfig.mismatch` -> function."""


def _ratio(old_logprobs: Tensor, rollout_logprobs: Tensor) -> Tensor:
    log_ratio = (old_logprobs - rollout_logprobs).detach()
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
