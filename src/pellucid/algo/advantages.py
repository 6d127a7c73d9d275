"""Group-relative advantages: what a rollout was worth beside the other rollouts of its problem.

Leaves out: broadcasting to tokens (the trainer), filtering of groups (the sampler).
Shapes: P problems, G samples per problem; row p is the group of problem p and of no other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.errors import ConfigError, NumericsError

AdvantageFn = Callable[[Tensor, Tensor], Tensor]
"""(rewards [P, G] float, valid [P, G] bool) -> advantages [P, G].

Samples that are not valid (the instrument failed, or truncation masks them) take no part in any
mean or standard deviation and get 0. A group with fewer than two valid samples, or whose valid
rewards are all equal, gets exactly 0."""

STD_EPSILON = 1e-6
"""Added to standard deviations; groups without spread are 0 by rule, whatever its size."""


def grpo(rewards: Tensor, valid: Tensor) -> Tensor:
    """(r - mean) / (std + 1e-6) over the group (2402.03300; R1 eq. 3).

    The paper leaves the kind of standard deviation open; this is the unbiased one (n - 1), as in
    the open implementations. It makes advantages smaller than the biased one by sqrt((n - 1) / n).
    """
    centred, counts = _centre(rewards, valid)
    variance = centred.square().sum(dim=1, keepdim=True) / (counts - 1).clamp(min=1)
    return centred / (variance.sqrt() + STD_EPSILON)


def dr_grpo(rewards: Tensor, valid: Tensor) -> Tensor:
    """r - mean (Dr. GRPO, 2503.20783): the spread of a group's rewards does not matter."""
    centred, _ = _centre(rewards, valid)
    return centred


def rloo(rewards: Tensor, valid: Tensor) -> Tensor:
    """r minus the mean of the *other* valid samples, n / (n - 1) · (r - mean) (2402.14740)."""
    centred, counts = _centre(rewards, valid)
    return centred * counts / (counts - 1).clamp(min=1)


def batch_std(rewards: Tensor, valid: Tensor) -> Tensor:
    """(r - group mean) / (std + 1e-6), std over all centred rewards of the batch (2510.13786).

    The standard deviation is the unbiased one around 0, the mean of centred rewards. Every valid
    sample of a group with at least two of them counts, groups without spread included. Hand in the
    whole batch of an optimiser step: a part of it has another standard deviation.
    """
    centred, counts = _centre(rewards, valid)
    num_counted = (valid & (counts >= 2)).sum()
    variance = centred.square().sum() / (num_counted - 1).clamp(min=1)
    return centred / (variance.sqrt() + STD_EPSILON)


def maxrl(rewards: Tensor, valid: Tensor) -> Tensor:
    """(r - mean) / mean over the group, 0 where the mean is 0 (2602.02710).

    Raises ConfigError on a negative reward: dividing by a negative mean would turn the gradient
    around.
    """
    centred, counts = _centre(rewards, valid)
    kept = torch.where(valid, rewards, 0.0)
    if bool((kept < 0).any()):
        raise ConfigError(
            f'algo.advantage = "maxrl" needs rewards of at least 0, found {kept.min().item():g}: '
            "remove the penalty from [reward] or choose another advantage"
        )
    mean = kept.sum(dim=1, keepdim=True) / counts.clamp(min=1)
    return torch.where(mean > 0, centred / torch.where(mean > 0, mean, 1.0), 0.0)


ADVANTAGES: dict[str, AdvantageFn] = {
    "grpo": grpo,
    "dr-grpo": dr_grpo,
    "rloo": rloo,
    "batch-std": batch_std,
    "maxrl": maxrl,
}
"""Name in `AlgoConfig.advantage` -> function."""


def _centre(rewards: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards minus group mean [P, G], exactly 0 where nothing is to be learned; counts [P, 1]."""
    assert rewards.dim() == 2, f"rewards are [P, G], not {tuple(rewards.shape)}"
    assert valid.shape == rewards.shape, "valid has the shape of rewards"
    assert valid.dtype == torch.bool, "valid is boolean"
    kept = torch.where(valid, rewards, 0.0)
    if not bool(torch.isfinite(kept).all()):
        raise NumericsError("a reward is NaN or infinite: mask the sample where its grader failed")
    counts = valid.sum(dim=1, keepdim=True)
    mean = kept.sum(dim=1, keepdim=True) / counts.clamp(min=1)
    # Compared, not subtracted: the mean of equal rewards such as 0.1 is off by a rounding error,
    # which the division by a vanishing standard deviation would blow up to an advantage of the
    # order of 1.
    highest = torch.where(valid, rewards, -torch.inf).amax(dim=1, keepdim=True)
    lowest = torch.where(valid, rewards, torch.inf).amin(dim=1, keepdim=True)
    return torch.where(valid & (highest > lowest), kept - mean, 0.0), counts
