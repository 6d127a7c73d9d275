"""The objective again, one token at a time, with scalars and ifs: slow and obvious."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.algo.loss import TokenBatch
from pellucid.algo.presets import Objective


def slow_loss(
    batch: TokenBatch, o: Objective, *, num_sequences: int, num_tokens: int, max_tokens: int
) -> Tensor:
    """Same loss as `objective_loss`; gradients come from autograd over Python scalars."""
    total = torch.zeros((), dtype=torch.float64)
    for name in sorted(set(batch.sequence.tolist())):
        tokens = [t for t, s in enumerate(batch.sequence.tolist()) if s == name]
        logs = [batch.policy_logprobs[t] - batch.old_logprobs[t] for t in tokens]
        whole = (sum(logs, torch.zeros(())) / len(tokens)).exp()
        for t, log in zip(tokens, logs, strict=True):
            a = float(batch.advantages[t])
            value = slow_policy(o, log.exp(), whole, batch.policy_logprobs[t], a)
            value = value * slow_weight(o, batch, t)
            if o.beta > 0 and batch.ref_logprobs is not None:
                value = value + o.beta * slow_kl(
                    o.kl, batch.policy_logprobs[t], batch.ref_logprobs[t]
                )
            denominator = {
                "sequence-mean": num_sequences * len(tokens),
                "token-mean": num_tokens,
                "constant": num_sequences * max_tokens,
            }[o.aggregation]
            total = total + value / denominator
    return total


def slow_policy(o: Objective, ratio: Tensor, whole: Tensor, logprob: Tensor, a: float) -> Tensor:
    used = whole if o.loss == "gspo" else ratio
    now, lowest, highest = used.item(), 1 - o.clip_low, 1 + o.clip_high
    bounded = min(max(now, lowest), highest)
    if o.loss == "cispo":
        return -bounded * a * logprob
    if a < 0 and o.dual_clip is not None and now > o.dual_clip:
        return torch.tensor(-o.dual_clip * a, dtype=torch.float64)
    if bounded * a < now * a:
        return torch.tensor(-bounded * a, dtype=torch.float64)
    return -used * a


def slow_weight(o: Objective, batch: TokenBatch, t: int) -> float:
    w = (batch.old_logprobs[t] - batch.rollout_logprobs[t]).exp().item()
    if o.mismatch == "tis":
        return min(w, o.mismatch_cap)
    if o.mismatch == "mask":
        return w if 1 / o.mismatch_cap <= w <= o.mismatch_cap else 0.0
    return 1.0


def slow_kl(kind: str, policy: Tensor, ref: Tensor) -> Tensor:
    difference = policy - ref
    if kind == "k3":
        return (-difference).exp() + difference - 1
    half_square = difference * difference / 2
    if kind == "k2":
        return half_square
    return difference.detach() + half_square - half_square.detach()
