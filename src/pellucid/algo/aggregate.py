"""From losses per token to one number: the weight of each token.

The denominators count the whole batch of an optimiser step, over all packs and ranks, and are
handed in. So the loss is a plain sum that does not change with micro-batch, packing, accumulation
or world size. Shapes: T tokens of one pack.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def token_weights(
    kind: str, lengths: Tensor, *, num_sequences: int, num_tokens: int, max_tokens: int
) -> Tensor:
    """Weights [T] float32 such that loss = sum(weights * loss_per_token).

    lengths [T]: completion length of the sequence that each token belongs to. num_sequences and
    num_tokens: all sequences and completion tokens of the optimiser step. max_tokens: the token
    limit of a completion (Dr. GRPO's constant).
    """
    return AGGREGATIONS[kind](lengths, num_sequences, num_tokens, max_tokens)


def sequence_mean(lengths: Tensor, num_sequences: int, num_tokens: int, max_tokens: int) -> Tensor:
    """1 / (N · length): mean over a sequence's tokens, then over sequences (2402.03300; R1)."""
    return 1.0 / (num_sequences * lengths.float())


def token_mean(lengths: Tensor, num_sequences: int, num_tokens: int, max_tokens: int) -> Tensor:
    """1 / tokens: tokens weigh the same, so long completions weigh more (DAPO, 2503.14476)."""
    return torch.full(lengths.shape, 1.0 / num_tokens, device=lengths.device)


def constant(lengths: Tensor, num_sequences: int, num_tokens: int, max_tokens: int) -> Tensor:
    """1 / (N · token limit): as token-mean, but independent of what was sampled (2503.20783)."""
    return torch.full(lengths.shape, 1.0 / (num_sequences * max_tokens), device=lengths.device)


AGGREGATIONS: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "sequence-mean": sequence_mean,
    "token-mean": token_mean,
    "constant": constant,
}
"""Name in `AlgoConfig.aggregation` -> function."""
