"""Rotary position embedding (arXiv 2104.09864), half-split: for training, and for decoding, where
the same launch appends keys and values to the cache.

Computed in float32 and rounded once; one program owns one token.

Shapes: T tokens, B rows of a decoding batch, N heads of which the first are rotated, H query heads,
J key/value heads, K head dimension, C table length or cache capacity, S cache slots.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from pellucid.kernels.launch import pdl, take_turn


def rotate(heads: Tensor, num_rotated: int, table: Tensor, positions: Tensor) -> Tensor:
    """heads [T, N, K] with the first num_rotated rotated by their positions' angles, the rest
    copied.

    table is float32 [2, C, K/2] (cos, sin), positions integers [T] below C. Each token's heads lie
    together in memory; tokens may lie apart.
    """
    if heads.requires_grad and torch.is_grad_enabled():
        return _Rotate.apply(heads, num_rotated, table, positions)
    return _rotate(heads, num_rotated, table, positions, is_backward=False)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, heads, num_rotated, table, positions):
        ctx.save_for_backward(table, positions)
        ctx.num_rotated = num_rotated
        return _rotate(heads, num_rotated, table, positions, is_backward=False)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        table, positions = ctx.saved_tensors
        d_heads = _rotate(d_out, ctx.num_rotated, table, positions, is_backward=True)
        return d_heads, None, None, None


def _rotate(
    heads: Tensor, num_rotated: int, table: Tensor, positions: Tensor, *, is_backward: bool
) -> Tensor:
    num_tokens, num_heads, dim = heads.shape
    heads = _together(heads)
    out = torch.empty(heads.shape, dtype=heads.dtype, device=heads.device)
    if num_tokens:
        _rotate_kernel[(num_tokens,)](
            heads, heads.stride(0), out, table, table.stride(0), positions,
            N=num_heads, ROTATED=num_rotated, HALF=dim // 2,
            BLOCK_N=triton.next_power_of_2(num_heads), BLOCK=triton.next_power_of_2(dim // 2),
            SIGN=-1.0 if is_backward else 1.0,
        )  # fmt: skip
    return out


def rotate_append(
    heads: Tensor,
    num_heads: int,
    num_kv: int,
    table: Tensor,
    positions: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    slot: Tensor,
    own: Tensor,
) -> Tensor:
    """One decoding step's rotation and cache writes in one launch: the rotated q [B, H, K].

    heads [B, H + 2J, K] are q, k and v before rotation. Row b's rotated k and its v go to
    own_k and own_v [S, J, C, K] at [slot[b], :, own[b]]. A row with slot < 0 is idle: it writes
    nothing to the caches, its position may be anything, and its q is finite if its heads are.
    slot and own are integers [B]. Reads nothing on the host, so CUDA graphs may capture it.
    """
    num_rows, _, dim = heads.shape
    heads = _together(heads)
    q = torch.empty(num_rows, num_heads, dim, dtype=heads.dtype, device=heads.device)
    assert own_k.stride() == own_v.stride(), "the caches of keys and values lie alike"
    assert own_k.stride(3) == 1, "a head's key lies together"
    if num_rows:
        total = num_heads + 2 * num_kv
        _append_kernel[(num_rows,)](
            heads, heads.stride(0), q, own_k, own_v,
            own_k.stride(0), own_k.stride(1), own_k.stride(2),
            table, table.stride(0), positions, slot, own,
            H=num_heads, J=num_kv, HALF=dim // 2,
            BLOCK_N=triton.next_power_of_2(total), BLOCK=triton.next_power_of_2(dim // 2),
            **pdl(heads.device),
        )  # fmt: skip
    return q


def _together(heads: Tensor) -> Tensor:
    dim = heads.shape[2]
    return heads if heads.stride()[1:] == (dim, 1) else heads.contiguous()


@triton.jit
def _turn(heads, offsets, inside, cos, sin, is_rotated, HALF: tl.constexpr):
    """Both halves of a tile of heads, in float32, rotated where is_rotated. `fma`: see
    `attention_merge`; `attention_few` rotates too, to the same bits."""
    first = tl.load(heads + offsets, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(heads + offsets + HALF, mask=inside, other=0.0).to(tl.float32)
    turned_first = tl.where(is_rotated, tl.fma(first, cos, -(second * sin)), first)
    turned_second = tl.where(is_rotated, tl.fma(second, cos, first * sin), second)
    return turned_first, turned_second


@triton.jit
def _rotate_kernel(
    heads, stride, out, table, table_stride, positions,
    N: tl.constexpr, ROTATED: tl.constexpr, HALF: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK: tl.constexpr, SIGN: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    head = tl.arange(0, BLOCK_N)[:, None]
    angle = table + tl.load(positions + token).to(tl.int64) * HALF + cols
    cos = tl.load(angle, mask=cols < HALF, other=1.0)[None, :]
    sin = tl.load(angle + table_stride, mask=cols < HALF, other=0.0)[None, :] * SIGN
    inside = (head < N) & (cols < HALF)[None, :]
    offsets = head * (2 * HALF) + cols[None, :]
    first, second = _turn(
        heads + token * stride, offsets, inside, cos, sin, head < ROTATED, HALF=HALF
    )
    target = out + token * (N * 2 * HALF) + offsets
    tl.store(target, first.to(out.dtype.element_ty), mask=inside)
    tl.store(target + HALF, second.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _append_kernel(
    heads, stride, q, own_k, own_v, slot_stride, head_stride, token_stride,
    table, table_stride, positions, slots, owns,
    H: tl.constexpr, J: tl.constexpr, HALF: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    if PDL:
        take_turn()
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    # An idle row's position is whatever its last request left: it must not index the table.
    position = tl.where(slot >= 0, tl.load(positions + row).to(tl.int64), 0)
    cols = tl.arange(0, BLOCK)
    angle = table + position * HALF + cols
    cos = tl.load(angle, mask=cols < HALF, other=1.0)[None, :]
    sin = tl.load(angle + table_stride, mask=cols < HALF, other=0.0)[None, :]
    head = tl.arange(0, BLOCK_N)[:, None]
    inside = (head < H + 2 * J) & (cols < HALF)[None, :]
    offsets = head * (2 * HALF) + cols[None, :]
    first, second = _turn(heads + row * stride, offsets, inside, cos, sin, head < H + J, HALF=HALF)

    is_query = inside & (head < H)
    target = q + row * (H * 2 * HALF) + offsets
    tl.store(target, first.to(q.dtype.element_ty), mask=is_query)
    tl.store(target + HALF, second.to(q.dtype.element_ty), mask=is_query)

    dtype = own_k.dtype.element_ty
    place = slot * slot_stride + tl.load(owns + row).to(tl.int64) * token_stride
    # As a bound: Triton 3.9's interpreter makes an integer of a mask that meets a scalar.
    is_live = inside & (head < tl.where(slot >= 0, H + 2 * J, 0))
    is_key = is_live & (head >= H) & (head < H + J)
    key = own_k + place + (head - H) * head_stride + cols[None, :]
    tl.store(key, first.to(dtype), mask=is_key)
    tl.store(key + HALF, second.to(dtype), mask=is_key)
    is_value = is_live & (head >= H + J)
    value = own_v + place + (head - H - J) * head_stride + cols[None, :]
    tl.store(value, first.to(dtype), mask=is_value)
    tl.store(value + HALF, second.to(dtype), mask=is_value)
