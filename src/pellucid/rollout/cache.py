"""Keys and values of the sequences being decoded, and attention over them.

Prompts are stored once for up to 16 samples; what a sample generates is stored in its slot. On a
CPU attention is bound by reading keys and values, so that sharing prompts saves most of its time.

Shapes: R layers, B rows (the first slots), S slots, P places of prompts, N lanes of a place,
J key/value heads, G query heads of each, K head dimension, L prompt positions, C own positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.model.spec import ModelSpec
from pellucid.rollout.scheduler import LANES


class Extent(NamedTuple):
    """The part of the cache that a step works on: one shape of all its tensors."""

    rows: int
    places: int
    prompt: int
    """Prompt positions looked at, not below any prompt in use (less its last token)."""
    own: int
    """Own positions looked at, above that of any live row."""


class KVCache:
    """Keys and values of prompts, [R, P, J, L, K] each, and of slots, [R, S, J, C, K] each.

    Heads come before positions: a layer is a contiguous [B * J, C, K] and grouped heads are one
    batched product, 2 to 10 times faster on a CPU than scaled_dot_product_attention for a single
    query. What lies beyond a sequence's end is masked but multiplied: it must be finite.
    """

    def __init__(
        self, spec: ModelSpec, extent: Extent, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        def shape(count: int, length: int) -> tuple[int, ...]:
            return (spec.num_layers, count, spec.num_kv_heads, length, spec.head_dim)

        prompts = shape(extent.places, extent.prompt)
        self.prompt_k = torch.empty(prompts, dtype=dtype, device=device)
        self.prompt_v = torch.empty(prompts, dtype=dtype, device=device)
        slots = shape(extent.rows, extent.own)
        self.k = torch.zeros(slots, dtype=dtype, device=device)
        self.v = torch.zeros(slots, dtype=dtype, device=device)
        if device.type == "cuda":
            # Places are looked at in round numbers, before they are written.
            self.prompt_k.zero_()
            self.prompt_v.zero_()

    @property
    def own(self) -> int:
        """Own positions there is room for."""
        return self.k.shape[3]

    def grow(self, own: int, rows: int) -> None:
        """Makes room for `own` positions of the first `rows` slots; the others are dropped."""
        self.k = _longer(self.k, own, rows)
        self.v = _longer(self.v, own, rows)

    def write_prompt(self, place: int, k: Tensor, v: Tensor) -> None:
        """Stores a prompt's keys and values [R, J, L, K] at a place."""
        length = k.shape[2]
        for store, new in ((self.prompt_k, k), (self.prompt_v, v)):
            store[:, place, :, :length] = new
            store[:, place, :, length:] = 0

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copies what whole slots generated."""
        self.k[:, targets] = self.k[:, sources]
        self.v[:, targets] = self.v[:, sources]


def _longer(old: Tensor, length: int, rows: int) -> Tensor:
    new = old.new_empty(old.shape[0], rows, old.shape[2], length, old.shape[4])
    new[:, :, :, : old.shape[3]] = old[:, :rows]
    new[:, :, :, old.shape[3] :] = 0
    return new


class CachedAttention:
    """The `attend` of one decoding step: each of B rows adds a token and looks back at its past."""

    def __init__(
        self,
        cache: KVCache,
        extent: Extent,
        own: Tensor,
        prompt: Tensor,
        place: Tensor,
        lane: Tensor,
    ) -> None:
        """All [B]: own positions of the new tokens, prompt lengths, places and lanes of the
        rows."""
        self.cache = cache
        self.extent = extent
        self.place, self.lane = place, lane
        num_kv, head_dim = cache.k.shape[2], cache.k.shape[4]
        heads = torch.arange(extent.rows * num_kv, device=own.device)
        self.where = heads * cache.own + own.repeat_interleave(num_kv)
        """Row of the flat [B * J * C, K] view at which each new key is stored, [B * J]."""
        self.scale = head_dim**-0.5
        # Scores are masked and normalised in float32, as the trainer's kernel does.
        positions = torch.arange(max(extent.prompt, extent.own), device=own.device)
        zeros = torch.zeros((), device=own.device)
        is_outside = positions[: extent.prompt] >= prompt[:, None]
        self.prompt_mask = torch.where(is_outside, -torch.inf, zeros)[:, None, None]
        is_future = positions[: extent.own] > own[:, None]
        self.own_mask = torch.where(is_future, -torch.inf, zeros)[:, None, None]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, _, length, own = self.extent
        num_kv, head_dim = k.shape[1:]
        keys = self._append(self.cache.k[layer], k)
        values = self._append(self.cache.v[layer], v)
        queries = (q * self.scale).view(rows, num_kv, -1, head_dim)
        group = queries.shape[2]
        scores = q.new_empty((rows, num_kv, group, length + own), dtype=torch.float32)
        own_scores = _scores(queries.view(-1, group, head_dim), keys).view(rows, num_kv, group, own)
        torch.add(own_scores, self.own_mask, out=scores[..., length:])
        if length:
            shared = _scores(self._spread(queries), self._prompts(self.cache.prompt_k[layer]))
            torch.add(self._collect(shared, num_kv), self.prompt_mask, out=scores[..., :length])
        weights = torch.softmax(scores, -1).to(values.dtype)
        own_weights = weights[..., length:].reshape(-1, group, own)
        out = torch.bmm(own_weights, values).view(rows, num_kv, group, head_dim)
        if length:
            spread = self._spread(weights[..., :length])
            shared = torch.bmm(spread, self._prompts(self.cache.prompt_v[layer]))
            out += self._collect(shared, num_kv)
        return out.view(rows, -1)

    def _append(self, layer: Tensor, new: Tensor) -> Tensor:
        """Stores new [B, J, K] in layer [S, J, C, K]; returns the part in use [B * J, C, K]."""
        flat = layer[: self.extent.rows].view(-1, layer.shape[-1])
        flat.index_copy_(0, self.where, new.reshape(-1, layer.shape[-1]))
        return flat.view(len(self.where), -1, layer.shape[-1])[:, : self.extent.own]

    def _prompts(self, layer: Tensor) -> Tensor:
        """The part in use [P * J, L, K] of layer [P, J, L, K]."""
        return layer[: self.extent.places].flatten(0, 1)[:, : self.extent.prompt]

    def _spread(self, x: Tensor) -> Tensor:
        """Rows [B, J, G, n] to the lanes of their prompts [P * J, N * G, n]; other lanes are 0."""
        _, num_kv, group, size = x.shape
        lanes = x.new_zeros(self.extent.places, num_kv, LANES, group, size)
        lanes[self.place, :, self.lane] = x
        return lanes.view(-1, LANES * group, size)

    def _collect(self, x: Tensor, num_kv: int) -> Tensor:
        """The inverse of `_spread`."""
        lanes = x.view(self.extent.places, num_kv, LANES, -1, x.shape[-1])
        return lanes[self.place, :, self.lane]


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """queries [n, m, K] times keys [n, c, K], not rounded to half precision where that is
    possible."""
    if queries.is_cuda and queries.dtype != torch.float32:
        return torch.bmm(queries, keys.mT, out_dtype=torch.float32)
    return torch.bmm(queries, keys.mT)
