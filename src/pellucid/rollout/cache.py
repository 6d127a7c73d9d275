"""Keys and values of the sequences being decoded, and attention over them.

Shapes: R layers, B rows, S slots, J key/value heads, G query heads of each, K head dimension, C context.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.model.spec import ModelSpec


class KVCache:
    """One run of memory [R, S, J, C, K] for keys and one for values.

    The first B slots of a layer are a contiguous [B * J, C, K]: grouped heads are one batched product, which
    on a CPU is 2 to 10 times faster than scaled_dot_product_attention for a single query. (oneDNN copies
    operands that are not contiguous, so on a CPU the context is kept tight and grows in steps.)
    """

    def __init__(
        self, spec: ModelSpec, slots: int, context: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (spec.num_layers, slots, spec.num_kv_heads, context, spec.head_dim)
        # Zeros, since what is masked still takes part in products: 0 * NaN would spread.
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def context(self) -> int:
        return self.k.shape[3]

    def grow(self, context: int, rows: int) -> None:
        """Makes room for `context` positions, keeping the first `rows` slots."""
        for name in ("k", "v"):
            old = getattr(self, name)
            new = old.new_zeros(old.shape[0], rows, old.shape[2], context, old.shape[4])
            new[:, :, :, : old.shape[3]] = old[:, :rows]
            setattr(self, name, new)

    def write_prompt(self, first: int, last: int, k: Tensor, v: Tensor) -> None:
        """Gives slots first … last-1 the keys and values [R, J, L, K] of one prompt."""
        length = k.shape[2]
        self.k[:, first:last, :, :length] = k[:, None]
        self.v[:, first:last, :, :length] = v[:, None]

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copies whole slots."""
        self.k[:, targets] = self.k[:, sources]
        self.v[:, targets] = self.v[:, sources]


class CachedAttention:
    """The `attend` of one decoding step: each of B rows adds a token and looks back at its own past."""

    def __init__(self, cache: KVCache, positions: Tensor, context: int) -> None:
        """`positions` [B]: where the new tokens stand, all below `context` (the part of the cache in use)."""
        self.cache = cache
        self.rows = len(positions)
        self.context = context
        num_kv, head_dim = cache.k.shape[2], cache.k.shape[4]
        heads = torch.arange(self.rows * num_kv, device=positions.device)
        self.where = heads * cache.context + positions.repeat_interleave(num_kv)
        """Row of the flat [B * J * C, K] view at which each new key is stored, [B * J]."""
        self.scale = head_dim**-0.5
        is_future = torch.arange(context, device=positions.device) > positions[:, None]
        self.score_type = torch.float32 if positions.is_cuda else cache.k.dtype
        mask = torch.zeros_like(is_future, dtype=self.score_type).masked_fill_(
            is_future, -torch.inf
        )
        self.mask = mask.repeat_interleave(num_kv, 0)[:, None]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num_kv, head_dim = k.shape[1:]
        keys = self._append(self.cache.k[layer], k)
        values = self._append(self.cache.v[layer], v)
        queries = q.reshape(self.rows * num_kv, -1, head_dim)
        if queries.is_cuda and queries.dtype != torch.float32:
            # Scores must not be rounded to half precision: the trainer's kernel keeps them in float32.
            scores = torch.bmm(queries, keys.mT, out_dtype=torch.float32)
            scores = scores.mul_(self.scale).add_(self.mask)
        else:
            scores = torch.baddbmm(self.mask, queries, keys.mT, alpha=self.scale)
        weights = torch.softmax(scores, -1).to(values.dtype)
        return torch.bmm(weights, values).view(self.rows, -1)

    def _append(self, layer: Tensor, new: Tensor) -> Tensor:
        """Stores new [B, J, K] in layer [S, J, C, K]; returns the part in use [B * J, context, K]."""
        flat = layer[: self.rows].view(-1, layer.shape[-1])
        flat.index_copy_(0, self.where, new.reshape(-1, layer.shape[-1]))
        return flat.view(len(self.where), -1, layer.shape[-1])[:, : self.context]
