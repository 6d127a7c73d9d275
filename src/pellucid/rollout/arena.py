"""Keys and values of the resident engine: prompt bodies end to end, and slots or pages for what is
generated.

Shapes: R layers, J key/value heads, K head dimension, T prompt tokens, S slots or pages, C
positions of each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.model.attention import PackedCausal
from pellucid.model.rope import Rotation
from pellucid.model.spec import ModelSpec
from pellucid.rollout.device_memory import FixedBuffer

ALIGNMENT = 256
"""Bytes: where tensors of an allocation of their own would begin."""


class ArenaSize(NamedTuple):
    """How much an arena holds."""

    prompt_tokens: int
    slots: int
    """One a row; or pages, of which a row holds as many as it needs (`rollout.pages`)."""
    own: int
    """Positions of each: of a slot, the most tokens that a sample may generate."""

    def num_bytes(self, spec: ModelSpec, element_size: int) -> int:
        """Bytes of keys and values."""
        tokens = self.prompt_tokens + self.slots * self.own
        return 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * element_size * tokens


class KVStore:
    """Memory for keys and values. Arenas of several sizes lie in it at one address, for use in
    turns: so a captured step keeps its addresses when a call of another size comes between.
    """

    def __init__(self, num_bytes: int, device: torch.device, *, is_shared: bool = False) -> None:
        """`is_shared`: the memory can be given back by `suspend`, where the device can do it."""
        self.num_bytes = num_bytes
        shape = (num_bytes + ALIGNMENT,)
        self._buffer = FixedBuffer.make(shape, torch.uint8, device) if is_shared else None
        self.bytes = (
            torch.empty(shape, dtype=torch.uint8, device=device)
            if self._buffer is None
            else self._buffer.tensor
        )

    @property
    def can_suspend(self) -> bool:
        """Whether its memory can come and go."""
        return self._buffer is not None

    @property
    def is_suspended(self) -> bool:
        """Whether its memory is somebody else's at the moment."""
        return self._buffer is not None and not self._buffer.is_mapped

    @property
    def held_bytes(self) -> int:
        """What it takes of the device at the moment."""
        return 0 if self.is_suspended else self.num_bytes

    def suspend(self) -> None:
        """Gives memory back to the device, and with it all keys and values."""
        if self._buffer is not None:
            self._buffer.give_back()

    def resume(self) -> None:
        """Takes memory again after `suspend`. Raises UserError where there is too little."""
        if self._buffer is not None:
            self._buffer.take()


class KVArena:
    """Keys and values in a store. What lies beyond a sequence's end is never read."""

    def __init__(
        self, spec: ModelSpec, size: ArenaSize, dtype: torch.dtype, store: KVStore
    ) -> None:
        """`store`: of at least `size.num_bytes`."""
        self.spec, self.size = spec, size
        prompts = (2, spec.num_layers, spec.num_kv_heads, size.prompt_tokens, spec.head_dim)
        slots = (2, spec.num_layers, size.slots, spec.num_kv_heads, size.own, spec.head_dim)
        self.prompts = _view(store.bytes, prompts, dtype)
        """Bodies of all prompts, one after another [2, R, J, T, K]."""
        first = -(-self.prompts.nbytes // ALIGNMENT) * ALIGNMENT
        self.own = _view(store.bytes[first:], slots, dtype)
        """What samples generate [2, R, S, J, C, K]."""

    def fits(self, size: ArenaSize, like: Tensor) -> bool:
        """Whether a call of this size finds room, in the type and on the device of `like`."""
        has_room = all(mine >= wanted for mine, wanted in zip(self.size, size, strict=True))
        return has_room and (self.own.dtype, self.own.device) == (like.dtype, like.device)

    @property
    def num_bytes(self) -> int:
        return self.prompts.nbytes + self.own.nbytes


def _view(memory: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return memory[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


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
