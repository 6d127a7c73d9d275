"""Attention over packed sequences: the `attend` of training, of scoring and of prefill.

Shapes: T tokens, N sequences, S longest sequence, H heads, J key/value heads, K head dimension.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.rope import Rotation


class PackedCausal:
    """Causal attention within each of N sequences that lie one after another in a flat row of T
    tokens.

    Sequences are spread onto a padded [N, S] grid for the attention alone, so that padding costs
    nothing elsewhere; on CUDA in half precision torch's variable-length kernel is used instead.
    """

    def __init__(self, lengths: Tensor) -> None:
        """`lengths` [N]: tokens of each sequence, their sum is T. On the device of the tokens."""
        self.lengths = lengths
        self.longest = int(lengths.max())
        starts = F.pad(lengths.cumsum(0), (1, 0))
        self.starts = starts.to(torch.int32)
        row = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        self.positions = torch.arange(int(starts[-1]), device=lengths.device) - starts[row]
        """Position of each token in its sequence [T]."""
        self.grid = row * self.longest + self.positions
        """Index of each token on the padded grid [T]."""

    def __call__(self, layer: int, heads: Tensor, rotation: Rotation) -> Tensor:
        return self.attend(*rotation.split(heads, self.positions))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention output [T, H * K] of rotated q [T, H, K], k [T, J, K] and v [T, J, K]."""
        group = q.shape[1] // k.shape[1]
        if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
            return self._varlen(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))
        q, k, v = self._spread(q), self._spread(k), self._spread(v)
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [N, H, S, K]
        return out.transpose(1, 2).flatten(0, 1)[self.grid].flatten(1)

    def _spread(self, x: Tensor) -> Tensor:
        """[T, H, K] -> [N, H, S, K], zeros where a sequence is shorter than the longest."""
        padded = x.new_zeros(len(self.lengths) * self.longest, *x.shape[1:])
        padded = padded.index_copy(0, self.grid, x)
        return padded.view(len(self.lengths), self.longest, *x.shape[1:]).transpose(1, 2)

    def _varlen(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        # torch renamed the switch between 2.11 and 2.13.
        has_flag = "is_causal" in inspect.signature(varlen_attn).parameters
        causal: dict[str, Any] = {"is_causal": True} if has_flag else {"window_size": (-1, 0)}
        limits = (self.starts, self.starts, self.longest, self.longest)
        return varlen_attn(q, k, v, *limits, **causal).flatten(1)
