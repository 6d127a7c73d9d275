"""Keys and values of the sequences being decoded, and attention over them.

Prompts are stored once for up to 16 samples; what a sample generates is stored in its slot. On a
CPU attention is bound by reading keys and values, so that sharing prompts saves most of its time.

Shapes: R layers, B rows (the first slots), S slots, P places of prompts, N lanes of a place,
J key/value heads, G query heads of each, K head dimension, L prompt positions, C own positions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.model.rope import Rotation
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
    query, and slower where it is not contiguous: so the slots' part is kept tight and grows.
    What lies beyond a sequence's end is masked but multiplied: it must be finite.
    """

    def __init__(
        self, spec: ModelSpec, extent: Extent, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.spec = spec
        self.extent = extent
        """What there is room for."""
        like = torch.empty(0, dtype=dtype, device=device)
        prompts = _shape(spec, extent.places, extent.prompt)
        # Prompts on a CPU are cleared when written, so that places never used cost no memory.
        self.prompt_k, self.prompt_v = (like.new_empty(prompts) for _ in range(2))
        if device.type == "cuda":
            self.prompt_k.zero_()
            self.prompt_v.zero_()
        self.k, self.v = (like.new_zeros(_shape(spec, extent.rows, extent.own)) for _ in range(2))

    @property
    def num_bytes(self) -> int:
        stores = (self.prompt_k, self.prompt_v, self.k, self.v)
        return sum(store.untyped_storage().nbytes() for store in stores)

    def fits(self, extent: Extent, like: Tensor) -> bool:
        """Whether there is room for just this extent, in the type and on the device of `like`."""
        if self.k.is_cuda and extent.own != self.extent.own:
            return False
        mine = (*self.extent[:3], self.k.dtype, self.k.device)
        return mine == (*extent[:3], like.dtype, like.device)

    def reset(self, own: int) -> None:
        """Empties all slots and gives them room for `own` positions, in the memory there is."""
        self.extent = self.extent._replace(own=own)
        shape = _shape(self.spec, self.extent.rows, own)
        self.k, self.v = (_recut(store, shape).zero_() for store in (self.k, self.v))

    def grow(self, own: int, rows: int) -> None:
        """Makes room for `own` positions of the first `rows` slots; the others are dropped."""
        self.extent = self.extent._replace(own=own)
        shape = _shape(self.spec, rows, own)
        self.k, self.v = (_stretch(store, shape) for store in (self.k, self.v))

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


def _shape(spec: ModelSpec, count: int, length: int) -> tuple[int, ...]:
    return (spec.num_layers, count, spec.num_kv_heads, length, spec.head_dim)


def _recut(store: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of this shape with arbitrary content, in the memory of `store` if that suffices.

    Fresh memory is dear on a CPU: the first touch of each page costs more than a step's attention.
    """
    size = math.prod(shape)
    if size * store.element_size() > store.untyped_storage().nbytes():
        return store.new_empty(shape)
    return store.new_empty(0).set_(store.untyped_storage(), 0, (size,)).view(shape)


def _stretch(old: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`old` with longer sequences and perhaps fewer slots, the rest 0; `old` is not used again."""
    new, length, rows = _recut(old, shape), old.shape[3], shape[1]
    layers = range(len(old))
    # In the same memory layers must move away from each other before they meet.
    for layer in reversed(layers) if new[0].numel() > old[0].numel() else layers:
        part = old[layer, :rows].clone()
        new[layer, :, :, :length] = part
        new[layer, :, :, length:] = 0
    return new


class CachedAttention:
    """The `attend` of one decoding step: each of B rows adds a token and looks back at its past."""

    def __init__(
        self,
        cache: KVCache,
        extent: Extent,
        position: Tensor,
        prompt: Tensor,
        place: Tensor,
        lane: Tensor,
    ) -> None:
        """All [B]: positions of the new tokens, prompt lengths, places and lanes of the rows."""
        self.position = position
        own = position - prompt
        self.cache = cache
        self.extent = extent
        self.place, self.lane = place, lane
        num_kv, head_dim = cache.k.shape[2], cache.k.shape[4]
        # Every layer fills the same lanes.
        self.query_lanes, self.weight_lanes = self._lanes(head_dim), self._lanes(extent.prompt)
        heads = torch.arange(extent.rows * num_kv, device=own.device)
        self.where = heads * cache.extent.own + own.repeat_interleave(num_kv)
        """Row of the flat [B * J * C, K] view at which each new key is stored, [B * J]."""
        self.scale = head_dim**-0.5
        # Scores are masked and normalised in float32, as the trainer's kernel does.
        positions = torch.arange(max(extent.prompt, extent.own), device=own.device)
        zeros = torch.zeros((), device=own.device)
        is_outside = positions[: extent.prompt] >= prompt[:, None]
        self.prompt_mask = torch.where(is_outside, -torch.inf, zeros)[:, None, None]
        is_future = positions[: extent.own] > own[:, None]
        self.own_mask = torch.where(is_future, -torch.inf, zeros)[:, None, None]

    def __call__(self, layer: int, heads: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = rotation.split(heads, self.position)
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
            shared = _scores(
                self._spread(queries, self.query_lanes), self._prompts(self.cache.prompt_k[layer])
            )
            torch.add(self._collect(shared, num_kv), self.prompt_mask, out=scores[..., :length])
        weights = torch.softmax(scores, -1).to(values.dtype)
        own_weights = weights[..., length:].reshape(-1, group, own)
        out = torch.bmm(own_weights, values).view(rows, num_kv, group, head_dim)
        if length:
            spread = self._spread(weights[..., :length], self.weight_lanes)
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

    def _lanes(self, size: int) -> Tensor:
        """Room for what rows hand to their prompts, [P, J, N + 1, G, size]; empty lanes stay 0.

        Rows without a sample share the lane beyond the last: they must not touch a live one.
        """
        spec = self.cache.spec
        group = spec.num_heads // spec.num_kv_heads
        shape = (self.extent.places, spec.num_kv_heads, LANES + 1, group, size)
        return self.cache.k.new_zeros(shape)

    def _spread(self, x: Tensor, lanes: Tensor) -> Tensor:
        """Rows [B, J, G, n] to the lanes of their prompts [P * J, (N + 1) * G, n]."""
        lanes[self.place, :, self.lane] = x
        return lanes.flatten(2, 3).flatten(0, 1)

    def _collect(self, x: Tensor, num_kv: int) -> Tensor:
        """The inverse of `_spread`."""
        lanes = x.view(self.extent.places, num_kv, LANES + 1, -1, x.shape[-1])
        return lanes[self.place, :, self.lane]


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """queries [n, m, K] times keys [n, c, K], not rounded to half precision where that is
    possible."""
    if queries.is_cuda and queries.dtype != torch.float32:
        return torch.bmm(queries, keys.mT, out_dtype=torch.float32)
    return torch.bmm(queries, keys.mT)
