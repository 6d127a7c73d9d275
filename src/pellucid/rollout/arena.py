"""Keys and values of the resident engine: prompt bodies end to end, and a slot a sequence.

Shapes: R layers, J key/value heads, K head dimension, T prompt tokens, S slots, C own positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.model.attention import PackedCausal
from pellucid.model.rope import Rotation
from pellucid.model.spec import ModelSpec


class ArenaSize(NamedTuple):
    """How much an arena holds."""

    prompt_tokens: int
    slots: int
    own: int
    """Positions of a slot: the most tokens that a sample may generate."""

    def num_bytes(self, spec: ModelSpec, element_size: int) -> int:
        """Bytes of keys and values."""
        tokens = self.prompt_tokens + self.slots * self.own
        return 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * element_size * tokens


class KVArena:
    """Keys and values at fixed addresses. What lies beyond a sequence's end is never read."""

    def __init__(
        self, spec: ModelSpec, size: ArenaSize, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.spec, self.size = spec, size
        prompts = (2, spec.num_layers, spec.num_kv_heads, size.prompt_tokens, spec.head_dim)
        slots = (2, spec.num_layers, size.slots, spec.num_kv_heads, size.own, spec.head_dim)
        self.prompts = torch.empty(prompts, dtype=dtype, device=device)
        """Bodies of all prompts, one after another [2, R, J, T, K]."""
        self.own = torch.empty(slots, dtype=dtype, device=device)
        """What samples generate [2, R, S, J, C, K]."""

    def fits(self, size: ArenaSize, like: Tensor) -> bool:
        """Whether a call of this size finds room, in the type and on the device of `like`."""
        has_room = all(mine >= wanted for mine, wanted in zip(self.size, size, strict=True))
        return has_room and (self.own.dtype, self.own.device) == (like.dtype, like.device)

    @property
    def num_bytes(self) -> int:
        return self.prompts.nbytes + self.own.nbytes


class PrefillAttention:
    """Packed causal attention that stores the keys and values it sees, from `first` on."""

    def __init__(self, arena: KVArena, packed: PackedCausal, first: int) -> None:
        self.arena, self.packed, self.first = arena, packed, first

    def __call__(self, layer: int, heads: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = rotation.split(heads, self.packed.positions)
        place = slice(self.first, self.first + len(heads))
        self.arena.prompts[0, layer, :, place] = k.transpose(0, 1)
        self.arena.prompts[1, layer, :, place] = v.transpose(0, 1)
        return self.packed.attend(q, k, v)
