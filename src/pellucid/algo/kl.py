"""Estimators of KL(policy || reference) per token, for use in the loss.

All three have the value that their name promises and a gradient that, followed downhill on samples
of the policy, moves it towards the reference. Shapes: T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

KLFn = Callable[[Tensor, Tensor], Tensor]
"""(policy_logprobs [T] with gradient, ref_logprobs [T] without) -> KL [T] in nats."""

K3_LINEAR_FROM = 20.0
"""log(ref / policy) above which k3 goes on as its tangent: e^89 is infinite in float32."""


def k1(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log π - log ref: unbiased, of either sign.

    Its own gradient would be ∇ log π, which says nothing of the reference and is 0 in expectation.
    So the gradient is that of k2, the unbiased gradient of the KL on samples of the policy.
    """
    log_ratio = policy_logprobs - ref_logprobs.detach()
    surrogate = 0.5 * log_ratio.square()
    return log_ratio.detach() + (surrogate - surrogate.detach())


def k2(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """½ (log π - log ref)²: never negative, slightly biased."""
    return 0.5 * (policy_logprobs - ref_logprobs.detach()).square()


def k3(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """ref/π - log(ref/π) - 1: unbiased and never negative (R1 eq. 2; Schulman 2020).

    Above log(ref/π) = 20 the exponential continues as its tangent: one token that the policy has
    all but forgotten can not make the loss infinite, and is still pulled back (a plain clamp would
    let it go).
    """
    delta = ref_logprobs.detach() - policy_logprobs
    near = delta.clamp(max=K3_LINEAR_FROM)
    beyond = torch.relu(delta - K3_LINEAR_FROM)
    return torch.expm1(near) - near + math.expm1(K3_LINEAR_FROM) * beyond


KL_ESTIMATORS: dict[str, KLFn] = {"k1": k1, "k2": k2, "k3": k3}
"""Name in `AlgoConfig.kl` -> function."""
