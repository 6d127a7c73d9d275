"""The loss of one pack: policy term, mismatch weight, KL term, aggregation.

    loss = sum_t weight_t · ( correction_t · policy_loss_t + beta · kl_t )

Losses of packs add up to the loss of the optimiser step, and so do their `sums`, over packs and
ranks. Shapes: T completion tokens of one pack, of any number of sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.algo.aggregate import token_weights
from pellucid.algo.kl import KL_ESTIMATORS
from pellucid.algo.mismatch import MISMATCH, Correction
from pellucid.algo.policy_loss import POLICY_LOSSES, PolicyLoss
from pellucid.algo.presets import Objective

MAX_SUMS = frozenset({"ratio_max", "mismatch_max"})
"""Entries of `LossOutput.sums` that reduce by maximum; all others by addition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Completion tokens of whole sequences, without prompts and padding.

    Example: two sequences of 2 and 1 tokens have sequence [0, 0, 1] and lengths [2, 2, 1].
    """

    policy_logprobs: Tensor
    """[T] float32 with gradient: log-probabilities under the weights being trained."""
    old_logprobs: Tensor
    """[T] float32: under the trainer's weights before any update on this rollout. On-policy steps
    hand in `policy_logprobs.detach()`, which makes every ratio exactly 1."""
    rollout_logprobs: Tensor
    """[T] float32: as the sampler reported them."""
    ref_logprobs: Tensor | None
    """[T] float32: under the reference; None where beta is 0."""
    advantages: Tensor
    """[T] float32: of each token; the same for all of a sequence where rewards are of the whole."""
    sequence: Tensor
    """[T] int64: which sequence a token belongs to, in [0, num_sequences)."""
    lengths: Tensor
    """[T] int64: completion tokens of the token's sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """The loss to call backward on, and what to log."""

    loss: Tensor
    """Scalar float32: this pack's share of the optimiser step's loss."""
    sums: dict[str, Tensor]
    """Scalars float64 on the device, without gradient; divide by `tokens` for means.

    tokens; kl (absent where beta is 0); ratio, ratio_max; clipped_low, clipped_high, clipped_dual
    (tokens whose bound took effect); mismatch, mismatch_max (|rollout - policy| log-probability);
    capped, masked (tokens that the mismatch correction changed). See `MAX_SUMS` for how they
    reduce."""


def objective_loss(
    batch: TokenBatch,
    objective: Objective,
    *,
    num_sequences: int,
    num_tokens: int,
    max_tokens: int,
) -> LossOutput:
    """Loss of one pack. The three numbers count the whole optimiser step (see `aggregate`).

    All tokens of a sequence have to be in the same pack. Never waits for the device.
    """
    _check(batch, objective)
    policy = POLICY_LOSSES[objective.loss](
        batch.policy_logprobs,
        batch.old_logprobs.detach(),
        batch.advantages,
        batch.sequence,
        num_sequences,
        objective,
    )
    correction = MISMATCH[objective.mismatch](
        batch.old_logprobs, batch.rollout_logprobs, objective.mismatch_cap
    )
    per_token = correction.weight * policy.loss
    kl = None  # not measured: a 0 in the record would say that nothing drifted
    if objective.has_reference and batch.ref_logprobs is not None:
        kl = KL_ESTIMATORS[objective.kl](batch.policy_logprobs, batch.ref_logprobs)
        per_token = per_token + objective.beta * kl
    weights = token_weights(
        objective.aggregation,
        batch.lengths,
        num_sequences=num_sequences,
        num_tokens=num_tokens,
        max_tokens=max_tokens,
    )
    return LossOutput(loss=(weights * per_token).sum(), sums=_sums(batch, policy, correction, kl))


@torch.no_grad()
def _sums(
    batch: TokenBatch, policy: PolicyLoss, correction: Correction, kl: Tensor | None
) -> dict[str, Tensor]:
    mismatch = (batch.rollout_logprobs - batch.policy_logprobs).abs()
    added = {
        "tokens": torch.ones_like(mismatch),
        "ratio": policy.ratio,
        "clipped_low": policy.clipped_low,
        "clipped_high": policy.clipped_high,
        "clipped_dual": policy.clipped_dual,
        "mismatch": mismatch,
        "capped": correction.capped,
        "masked": correction.masked,
    }
    if kl is not None:
        added["kl"] = kl
    sums = {name: values.sum(dtype=torch.float64) for name, values in added.items()}
    sums["ratio_max"] = _largest(policy.ratio)
    sums["mismatch_max"] = _largest(mismatch)
    return sums


def _largest(values: Tensor) -> Tensor:
    """Maximum of non-negative values; 0 of an empty pack, which some rank may have to send."""
    return values.double().amax() if values.numel() else values.new_zeros((), dtype=torch.float64)


def _check(batch: TokenBatch, objective: Objective) -> None:
    """Shapes and types where tensors enter; looks at no value, so nothing waits for the device."""
    shape = batch.policy_logprobs.shape
    assert len(shape) == 1, f"policy_logprobs are [T], not {tuple(shape)}"
    floats = {
        "policy_logprobs": batch.policy_logprobs,
        "old_logprobs": batch.old_logprobs,
        "rollout_logprobs": batch.rollout_logprobs,
        "advantages": batch.advantages,
    }
    if batch.ref_logprobs is not None:
        floats["ref_logprobs"] = batch.ref_logprobs
    for name, values in floats.items():
        assert values.shape == shape, f"{name} has the shape of policy_logprobs"
        assert values.dtype in (torch.float32, torch.float64), f"{name} is float32"
    for name, values in {"sequence": batch.sequence, "lengths": batch.lengths}.items():
        assert values.shape == shape, f"{name} has the shape of policy_logprobs"
        assert values.dtype == torch.int64, f"{name} is int64"
    assert not objective.has_reference or batch.ref_logprobs is not None, (
        "beta > 0 needs ref_logprobs"
    )
