"""The output head and the drawing of tokens in one, without writing logits to memory.

Meaning: pellucid.rollout.sampling, without top-k and top-p. Two kernels: the product of hidden
states and weight keeps statistics of blocks of 128 logits only (head_stats), then each row finds
its block and computes that block's logits again (head_choose). What is reported for a token drawn
and what `score` reports for it are the same bits.

Shapes: B or T rows, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.kernels.head_choose import choose, score_rows
from pellucid.kernels.head_stats import Stats, check_head, head_stats


class HeadSampler:
    """Draws tokens from hidden states, batch after batch, into buffers at fixed addresses.

    Safe inside a captured CUDA graph after one call with as many rows outside it. Non-finite logits
    give a non-finite log-probability and an arbitrary valid token.
    """

    def __init__(self, weight: Tensor, *, temperature: float, max_rows: int) -> None:
        """weight [V, D]: read at each call, so it may be updated in place."""
        self.weight, self.temperature = weight, temperature
        self._stats = Stats.empty(max_rows, weight.shape[0], weight.device, has_moment=False)
        self._tokens = torch.zeros(max_rows, dtype=torch.int64, device=weight.device)
        self._logprobs = torch.zeros(max_rows, device=weight.device)

    def __call__(self, hidden: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B] int64 and log-probabilities [B] float32 for hidden [B, D] and uniforms u [B]
        float64. The next call overwrites them."""
        rows = len(hidden)
        check_head(hidden, self.weight)
        assert rows <= len(self._tokens), f"{rows} rows, made for {len(self._tokens)}"
        assert u.dtype == torch.float64, f"u is float64, not {u.dtype}"
        assert u.shape == (rows,), "one u a row"
        tokens, logprobs = self._tokens[:rows], self._logprobs[:rows]
        head_stats(hidden, self.weight, self.temperature or 1.0, self._stats)
        choose(hidden, self.weight, self._stats, u, self.temperature, tokens, logprobs)
        return tokens, logprobs


class Scores(NamedTuple):
    """What `score` says of T tokens, all [T] float32."""

    logprobs: Tensor
    """Of the targets, nats."""
    entropy: Tensor
    """Of the whole distribution, nats."""
    peak: Tensor
    """Largest logit."""
    log2_sum: Tensor
    """log2 of the sum of exp((z - peak) / temperature) over the vocabulary."""


def score(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    logits: Tensor | None = None,
) -> Scores:
    """Scores targets [T] int64 under hidden [T, D] @ weight [V, D]ᵀ, without gradients; `logits`
    [T, V] float32 takes these products.

    Temperature 0 scores at 1, as greedy drawing does. A target outside the vocabulary gets NaN.
    """
    check_head(hidden, weight)
    assert targets.shape == hidden.shape[:1], "targets are [T]"
    assert targets.dtype == torch.int64, f"targets are int64, not {targets.dtype}"
    scores = Scores(*torch.empty(4, len(hidden), device=hidden.device))
    if len(hidden):
        stats = Stats.empty(len(hidden), len(weight), hidden.device, has_moment=True)
        head_stats(hidden, weight, temperature or 1.0, stats, logits=logits)
        score_rows(hidden, weight, stats, targets.contiguous(), temperature, scores)
    return scores
