"""Policy losses per token. Each is -objective, so that descending on it raises what paid off.

ratio = exp(policy - old) per token; its bounds are 1 - clip_low and 1 + clip_high in every loss.
Shapes: T tokens, N sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.algo.mismatch import LOG_RATIO_LIMIT
from pellucid.algo.presets import Objective


class PolicyLoss(NamedTuple):
    """Loss of each token and what became of its ratio."""

    loss: Tensor
    """[T] with gradient; not yet weighted (see `aggregate`)."""
    ratio: Tensor
    """[T] without gradient, before clipping; in gspo the ratio of the token's sequence."""
    clipped_low: Tensor
    """[T] bool: the lower bound took effect."""
    clipped_high: Tensor
    """[T] bool: the upper bound took effect."""
    clipped_dual: Tensor
    """[T] bool: the bound for negative advantages took effect."""


PolicyLossFn = Callable[[Tensor, Tensor, Tensor, Tensor, int, Objective], PolicyLoss]
"""(policy_logprobs [T] with gradient, old_logprobs [T], advantages [T], sequence [T] int64 in
[0, num_sequences), num_sequences, objective) -> PolicyLoss."""


def clip(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    sequence: Tensor,
    num_sequences: int,
    objective: Objective,
) -> PolicyLoss:
    """-min(ratio · A, clip(ratio, 1 - low, 1 + high) · A) (PPO; GRPO 2402.03300; R1 eq. 1).

    With `dual_clip` c, the ratio is bounded by c where A < 0 (1912.09729).
    """
    ratio = (policy_logprobs - old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    return _clipped(ratio, advantages, objective)


def gspo(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    sequence: Tensor,
    num_sequences: int,
    objective: Objective,
) -> PolicyLoss:
    """The clipped loss with one ratio per sequence, exp(mean of the tokens' log-ratios)
    (2507.18071).

    Each token carries its sequence's loss, so that `sequence-mean` gives the paper's objective and
    gradient. All tokens of a sequence have to be in the same call. Advantages that differ within a
    sequence act as their mean, up to clipping, since all its tokens share one ratio.
    """
    log_ratio = policy_logprobs - old_logprobs
    # float64 and index_put: sums over a sequence come out the same on every run, on CPU (serial for
    # float64) and CUDA (sorted); index_add in float32 depends on the order of atomic additions.
    zeros = torch.zeros(num_sequences, dtype=torch.float64, device=log_ratio.device)
    totals = zeros.index_put((sequence,), log_ratio.double(), accumulate=True)
    counts = zeros.index_put((sequence,), torch.ones_like(log_ratio).double(), accumulate=True)
    mean = (totals / counts.clamp(min=1.0))[sequence].to(log_ratio.dtype)
    return _clipped(mean.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp(), advantages, objective)


def cispo(
    policy_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    sequence: Tensor,
    num_sequences: int,
    objective: Objective,
) -> PolicyLoss:
    """-sg(clip(ratio, 1 - low, 1 + high)) · A · log π (2506.13585): a clipped token keeps its
    gradient.

    The value is no objective: only its gradient means something.
    """
    log_ratio = (policy_logprobs - old_logprobs).detach()
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    lowest, highest = 1.0 - objective.clip_low, 1.0 + objective.clip_high
    loss = -ratio.clamp(lowest, highest) * advantages * policy_logprobs
    none = torch.zeros_like(ratio, dtype=torch.bool)
    return PolicyLoss(loss, ratio, ratio < lowest, ratio > highest, none)


POLICY_LOSSES: dict[str, PolicyLossFn] = {"clip": clip, "cispo": cispo, "gspo": gspo}
"""Name in `AlgoConfig.loss` -> function."""


def _clipped(ratio: Tensor, advantages: Tensor, objective: Objective) -> PolicyLoss:
    """PPO's pessimistic bound: A > 0 bounded above, A < 0 below (and above by dual_clip)."""
    lowest, highest = 1.0 - objective.clip_low, 1.0 + objective.clip_high
    bound_when_negative = torch.inf if objective.dual_clip is None else objective.dual_clip
    kept = torch.where(
        advantages >= 0.0,
        ratio.clamp(max=highest),
        ratio.clamp(min=lowest, max=bound_when_negative),
    )
    seen = ratio.detach()
    return PolicyLoss(
        loss=-advantages * kept,
        ratio=seen,
        clipped_low=(advantages < 0.0) & (seen < lowest),
        clipped_high=(advantages > 0.0) & (seen > highest),
        clipped_dual=(advantages < 0.0) & (seen > bound_when_negative),
    )
