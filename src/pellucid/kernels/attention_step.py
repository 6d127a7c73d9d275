"""What attention of a decoding step in one launch is given, and what its kernels share: where a row
stands, its rotated heads, and the newest key and value of its cache.

Shapes: B rows, H query heads, J key/value heads, G = H / J, K head dimension, S cache slots, C
table length.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pellucid.kernels.attention import KeySource
from pellucid.kernels.attention_merge import SPLIT

PROMPT_HEIGHT = {torch.float32: 16}
"""Query rows of a product with a prompt's keys: 64 on tensor cores, as in `attention_prompt`."""


class StepRows(NamedTuple):
    """The rows of a decoding step. A row's rotated key and its value go to place `own_at[b]` of
    slot `slot[b]` (where `own` has pages: of page `slot[b]`), the last of the `own.length[b]`
    positions it looks at; a row with slot < 0 is idle and has no own position. No two rows may
    share a slot or a page.

    What fixes a row's place (all but `heads`, keys and values) must be written at least two kernels
    before the launch: it is read before the kernel takes its turn.
    """

    heads: Tensor
    """[B, H + 2J, K]: queries, keys and values side by side, not rotated."""
    table: Tensor
    """[2, C, K/2] float32: cosines and sines."""
    positions: Tensor
    """[B] integers below C."""
    slot: Tensor
    """[B] int32."""
    own_at: Tensor
    """[B] int32."""
    own: KeySource
    prompt: KeySource | None
    slot_stride: int
    """Elements between two slots, or two pages."""
    num_heads: int
    num_kv: int
    max_own: int
    """No own length is above it."""
    max_prompt: int

    def check(self) -> None:
        """Asserts how heads lie in memory."""
        total, head_dim = self.heads.shape[1:]
        assert total == self.num_heads + 2 * self.num_kv, "heads are q, k and v side by side"
        assert self.heads.stride()[1:] == (head_dim, 1), "a row's heads lie together"

    @property
    def programs(self) -> int:
        """Rows times KV heads."""
        return self.heads.shape[0] * self.num_kv

    @property
    def own_splits(self) -> int:
        return max(1, triton.cdiv(self.max_own, SPLIT.value))

    @property
    def prompt_splits(self) -> int:
        return triton.cdiv(self.max_prompt, SPLIT.value) if self.prompt is not None else 0

    def sources(self) -> tuple[Any, ...]:
        """What both kernels take first: rows, their places, own and prompt's keys and values."""
        own, body = self.own, self.own if self.prompt is None else self.prompt
        return (
            self.heads, self.heads.stride(0), self.table, self.table.stride(0), self.positions,
            self.slot, self.own_at, self.slot_stride,
            own.k, own.v, own.start, own.length, own.head_stride, own.position_stride,
            own.length if own.pages is None else own.pages, own.page_stride,
            body.k, body.v, body.start, body.length, body.head_stride, body.position_stride,
        )  # fmt: skip

    @property
    def scale(self) -> float:
        """With log2(e) in it: the kernels work with powers of two."""
        return self.heads.shape[2] ** -0.5 * math.log2(math.e)

    def constants(self) -> dict[str, Any]:
        head_dim = self.heads.shape[2]
        return {
            "H": self.num_heads,
            "J": self.num_kv,
            "K": head_dim,
            "WIDTH": triton.next_power_of_2(head_dim),
            "HEIGHT": PROMPT_HEIGHT.get(self.heads.dtype, 64),
            "PAGE": self.own.page,
            "PRECISION": "ieee",
            "num_warps": 4,
        }


@triton.jit
def place_of(
    row, table, table_stride, positions, slots, owns, start, length, prompt_start, prompt_length,
    dims, K: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Slot, place of the newest position, own start and length, prompt's start and length, cosines
    and sines [WIDTH] of a row. All is asked for at once: each wait costs more than the bytes."""
    slot = tl.load(slots + row).to(tl.int64)
    # The hints stand where the numbers are loaded: given to what a function returned they are
    # lost, and keys and values would be loaded element by element.
    first = tl.load(start + row)
    if PAGE == 0:
        first = tl.multiple_of(first, 8)
    keys = tl.load(length + row)
    newest = tl.load(owns + row).to(tl.int64)
    prompt_first = tl.multiple_of(tl.load(prompt_start + row), 8)
    prompt_keys = tl.load(prompt_length + row)
    # An idle row's position is whatever its last request left: it must not index the table.
    position = tl.where(slot >= 0, tl.load(positions + row).to(tl.int64), 0)
    angle = table + position * (K // 2) + dims % (K // 2)
    cos = tl.load(angle, mask=dims < K, other=1.0)
    sin = tl.load(angle + table_stride, mask=dims < K, other=0.0)
    return slot, newest, first, keys, prompt_first, prompt_keys, cos, sin


@triton.jit
def rotated(heads, head, dims, is_real, cos, sin, K: tl.constexpr):
    """Rotated heads [N, WIDTH] in their dtype: as in `rope`, in float32, each element with its
    partner."""
    inside = is_real[:, None] & (dims < K)[None, :]
    at = heads + head[:, None] * K
    value = tl.load(at + dims[None, :], mask=inside, other=0.0).to(tl.float32)
    partner = tl.load(at + ((dims + K // 2) % K)[None, :], mask=inside, other=0.0).to(tl.float32)
    side = tl.where(dims < K // 2, -1.0, 1.0)
    turned = tl.fma(value, cos[None, :], partner * sin[None, :] * side[None, :])
    return turned.to(heads.dtype.element_ty)


@triton.jit
def append(
    heads, dims, cos, sin, own_k, own_v, place, kv_head,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Writes the rotated key and the value of one KV head."""
    one = tl.arange(0, 1)
    inside = (dims < K)[None, :] & (one == 0)[:, None]
    key = rotated(heads, H + kv_head + one, dims, one == 0, cos, sin, K)
    to = place + dims[None, :] + one[:, None]
    tl.store(own_k + to, key.to(own_k.dtype.element_ty), mask=inside)
    value = tl.load(heads + (H + J + kv_head) * K + dims[None, :], mask=inside, other=0.0)
    tl.store(own_v + to, value.to(own_v.dtype.element_ty), mask=inside)
