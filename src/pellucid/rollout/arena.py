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
from pellucid.rollout.device_memory import FixedBuffer


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
        self,
        spec: ModelSpec,
        size: ArenaSize,
        *,
        dtype: torch.dtype,
        device: torch.device,
        is_shared: bool = False,
    ) -> None:
        """`is_shared`: the memory can be given back by `suspend`, where the device can do it."""
        self.spec, self.size = spec, size
        prompts = (2, spec.num_layers, spec.num_kv_heads, size.prompt_tokens, spec.head_dim)
        slots = (2, spec.num_layers, size.slots, spec.num_kv_heads, size.own, spec.head_dim)
        self._buffers: list[FixedBuffer] = []
        self.prompts = self._allocate(prompts, dtype, device, is_shared)
        """Bodies of all prompts, one after another [2, R, J, T, K]."""
        self.own = self._allocate(slots, dtype, device, is_shared)
        """What samples generate [2, R, S, J, C, K]."""

    @property
    def can_suspend(self) -> bool:
        """Whether its memory can come and go."""
        return bool(self._buffers)

    def suspend(self) -> None:
        """Gives memory back to the device, and with it all keys and values."""
        for buffer in self._buffers:
            buffer.give_back()

    def resume(self) -> None:
        """Takes memory again after `suspend`. Raises UserError where there is too little."""
        for buffer in self._buffers:
            buffer.take()

    @property
    def held_bytes(self) -> int:
        """What it takes of the device at the moment."""
        is_suspended = any(not buffer.is_mapped for buffer in self._buffers)
        return 0 if is_suspended else self.num_bytes

    def _allocate(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, is_shared: bool
    ) -> Tensor:
        buffer = FixedBuffer.make(shape, dtype, device) if is_shared else None
        if buffer is None:
            return torch.empty(shape, dtype=dtype, device=device)
        self._buffers.append(buffer)
        return buffer.tensor

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
        return self.packed.attend(q, k, v, exact=rotation.ops.is_exact)
