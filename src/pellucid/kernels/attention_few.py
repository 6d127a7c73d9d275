"""Attention of a decoding step of few rows in one launch: rotation, cache, prompt, own, merge.

With few rows each of those kernels is a chain of waits for memory, and waiting for one another is
most of their time. Here a row and KV head has a program for every split of its prompt and for every
lane of its own positions; all rotate the query they need, the one with the newest position appends
its key and value, and the last to arrive merges the parts of all. Arithmetic and order are those of
`rotate_append` and `attend_rows`, and so are the bits.

A row reads its prompt alone here, also beside siblings: at most FEW_ROWS rows, whose reads L2
serves.

Shapes: B rows, H query heads, J key/value heads, G = H / J, K head dimension, S cache slots, C
table length.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pellucid.kernels.attention import PROGRAMS, KeySource
from pellucid.kernels.attention_merge import (
    SPLIT,
    TILE,
    merge_stored,
    store_part,
    store_result,
    weigh,
)
from pellucid.kernels.attention_own import HEADS, tile_at
from pellucid.kernels.attention_prompt import split_of_prompt
from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.room import empty_with_room

FEW_ROWS = 64
"""Rows up to which one launch is faster than four; above, siblings read their prompt together."""
MOST_HEADS = 2**16
"""Rows times KV heads that the counters of arrivals are made for."""
PROMPT_HEIGHT = {torch.float32: 16}
"""Query rows of a product with a prompt's keys: 64 on tensor cores, as in `attention_prompt`."""


def attend_few(
    heads: Tensor,
    table: Tensor,
    positions: Tensor,
    slot: Tensor,
    own_at: Tensor,
    own: KeySource,
    prompt: KeySource | None,
    *,
    slot_stride: int,
    num_heads: int,
    num_kv: int,
    max_own: int,
    max_prompt: int,
) -> Tensor:
    """`rotate_append` and `attend_rows` of the rows in `heads` [B, H + 2J, K] at once: [B, H * K].

    The row's rotated key and its value go to place `own_at[b]` of slot `slot[b]` (where `own` has
    pages: of page `slot[b]`), the last of the `own.length[b]` positions it looks at; a row with
    slot < 0 is idle and has no own position. No two rows may share a slot or a page. `table`
    [2, C, K/2] float32 has cosines and sines; `slot_stride` are the elements between two slots.
    """
    rows, total, head_dim = heads.shape
    assert total == num_heads + 2 * num_kv, "heads are q, k and v side by side"
    assert heads.stride()[1:] == (head_dim, 1), "a row's heads lie together"
    assert rows * num_kv <= MOST_HEADS, f"{rows} rows are not few"
    device = heads.device
    own_splits = max(1, triton.cdiv(max_own, SPLIT.value))
    prompt_splits = triton.cdiv(max_prompt, SPLIT.value) if prompt is not None else 0
    lanes = min(own_splits, triton.cdiv(PROGRAMS, rows * num_kv))
    planes = own_splits + prompt_splits
    weighted = torch.empty(planes, rows, num_heads, head_dim, dtype=torch.float32, device=device)
    stats = torch.empty(planes, rows, num_heads, 2, dtype=torch.float32, device=device)
    out = empty_with_room(rows, num_heads * head_dim, heads.dtype, device)
    body = own if prompt is None else prompt
    few_kernel[(rows * num_kv, prompt_splits + lanes)](
        heads, heads.stride(0), table, table.stride(0), positions, slot, own_at, slot_stride,
        own.k, own.v, own.start, own.length, own.head_stride, own.position_stride,
        own.length if own.pages is None else own.pages, own.page_stride,
        body.k, body.v, body.start, body.length, body.head_stride, body.position_stride,
        weighted, stats, _arrivals(device), out, rows, lanes, prompt_splits,
        head_dim**-0.5 * math.log2(math.e),
        H=num_heads, J=num_kv, K=head_dim, WIDTH=triton.next_power_of_2(head_dim),
        HEIGHT=PROMPT_HEIGHT.get(heads.dtype, 64), PAGE=own.page,
        PRECISION="ieee", num_warps=4, num_stages=5 if head_dim <= 64 else 3, **pdl(device),
    )  # fmt: skip
    return out


@functools.cache
def _arrivals(device: torch.device) -> Tensor:
    """Programs that have arrived, by row and KV head: zeros between launches. Launches of one
    device follow one another, so that they share it."""
    return torch.zeros(MOST_HEADS, dtype=torch.int32, device=device)


@triton.jit
def _rotated(
    heads, head, dims, is_real, cos, sin, K: tl.constexpr,
):  # fmt: skip
    """Rotated heads [N, WIDTH] in float32: as in `rope`, each element with its partner."""
    inside = is_real[:, None] & (dims < K)[None, :]
    at = heads + head[:, None] * K
    value = tl.load(at + dims[None, :], mask=inside, other=0.0).to(tl.float32)
    partner = tl.load(at + ((dims + K // 2) % K)[None, :], mask=inside, other=0.0).to(tl.float32)
    side = tl.where(dims < K // 2, -1.0, 1.0)
    return tl.fma(value, cos[None, :], partner * sin[None, :] * side[None, :])


@triton.jit
def _append(
    heads, dims, cos, sin, own_k, own_v, place,
    FIRST: tl.constexpr, J: tl.constexpr, K: tl.constexpr, kv_head,
):  # fmt: skip
    """Writes the rotated key and the value of one KV head."""
    one = tl.arange(0, 1)
    inside = (dims < K)[None, :] & (one == 0)[:, None]
    key = _rotated(heads, FIRST + kv_head + one, dims, one == 0, cos, sin, K)
    to = place + dims[None, :] + one[:, None]
    tl.store(own_k + to, key.to(own_k.dtype.element_ty), mask=inside)
    value = tl.load(heads + (FIRST + J + kv_head) * K + dims[None, :], mask=inside, other=0.0)
    tl.store(own_v + to, value.to(own_v.dtype.element_ty), mask=inside)


@triton.jit
def _own_split(
    queries, k, v, base, pages, first_page, begin, end, position_stride, page_stride, scale, dims,
    K: tl.constexpr, PAGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Part of the own positions begin .. end, at least one and at most a split."""
    top = tl.full([queries.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([queries.shape[0], TILE], tl.float32)
    acc = tl.zeros([queries.shape[0], queries.shape[1]], tl.float32)
    offsets = tl.arange(0, TILE)
    for position in range(begin, end, TILE):
        inside = position + offsets < end
        here = tile_at(base, pages, first_page, position, position_stride, page_stride, PAGE)
        at = here + offsets[:, None] * position_stride + dims[None, :]
        present = inside[:, None] & (dims < K)[None, :]
        k_tile = tl.load(k + at, mask=present, other=0.0)
        v_tile = tl.load(v + at, mask=present, other=0.0)
        weights, decay, top = weigh(queries, k_tile, inside, top, scale, PRECISION)
        total = tl.fma(total, decay[:, None], weights)
        acc = tl.dot(
            weights.to(v_tile.dtype), v_tile, acc * decay[:, None], input_precision=PRECISION
        )
    return top, tl.sum(total, 1), acc


@triton.jit
def _merge_all(
    weighted, stats, out, prompt_keys, prompt_splits, keys, rows, row, first_head, dims,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Merges the parts of one row and KV head, the prompt's before its own."""
    local = tl.arange(0, HEADS)
    is_real = local < H // J
    top = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    acc = tl.zeros([HEADS, dims.shape[0]], tl.float32)
    top, total, acc = merge_stored(
        top, total, acc, weighted, stats, prompt_keys, prompt_splits, rows, row,
        first_head, local, dims, is_real, H, K, 1,
    )  # fmt: skip
    own_part = prompt_splits * tl.cast(rows, tl.int64) * H
    top, total, acc = merge_stored(
        top, total, acc, weighted + own_part * K, stats + own_part * 2, keys,
        tl.cdiv(keys, SPLIT), rows, row, first_head, local, dims, is_real, H, K, 1,
    )  # fmt: skip
    at = tl.cast(row, tl.int64) * H + first_head
    store_result(out, stats, at, local, dims, is_real, top, total, acc, K, False)


@triton.jit(do_not_specialize=["rows", "lanes", "prompt_splits"])
def few_kernel(
    heads, heads_stride, table, table_stride, positions, slots, owns, slot_stride,
    k, v, start, length, head_stride, position_stride, pages, page_stride,
    prompt_k, prompt_v, prompt_start, prompt_length, prompt_head_stride, prompt_position_stride,
    weighted, stats, arrivals, out, rows, lanes, prompt_splits, scale,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr, PAGE: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (B * J, prompt_splits + lanes). Planes of parts: the prompt's splits, then the own ones.
    `scale` has log2(e) in it."""
    if PDL:
        take_turn()
    row, kv_head = tl.program_id(0) // J, tl.program_id(0) % J
    part = tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    keys = tl.load(length + row)
    # All that says where to read is asked for at once: each wait costs more than the bytes.
    own_base = tl.cast(kv_head, tl.int64) * head_stride
    first_page = tl.load(start + row)
    if PAGE == 0:
        own_base += tl.multiple_of(first_page, 8)
    newest = tl.load(owns + row).to(tl.int64)
    prompt_keys = tl.load(prompt_length + row)
    prompt_base = tl.multiple_of(tl.load(prompt_start + row), 8)
    # An idle row's position is whatever its last request left: it must not index the table.
    position = tl.where(slot >= 0, tl.load(positions + row).to(tl.int64), 0)
    dims = tl.arange(0, WIDTH)
    angle = table + position * (K // 2) + dims % (K // 2)
    cos = tl.load(angle, mask=dims < K, other=1.0)
    sin = tl.load(angle + table_stride, mask=dims < K, other=0.0)
    mine = heads + tl.cast(row, tl.int64) * heads_stride
    dtype = heads.dtype.element_ty
    first_head = kv_head * (H // J)
    plane_rows = tl.cast(rows, tl.int64)

    if part < prompt_splits:
        begin = part * SPLIT
        if begin < prompt_keys:
            local = tl.arange(0, HEIGHT)
            is_real = local < H // J
            queries = _rotated(mine, first_head + local, dims, is_real, cos, sin, K).to(dtype)
            base = prompt_base + tl.cast(kv_head, tl.int64) * prompt_head_stride
            top, total, acc = split_of_prompt(
                queries, prompt_k, prompt_v, base, begin,
                tl.minimum(begin + SPLIT, prompt_keys), prompt_position_stride, scale, dims,
                K, PRECISION,
            )  # fmt: skip
            at = (part * plane_rows + row) * H + first_head
            store_part(weighted, stats, at, local, dims, is_real, top, total, acc, K)
    else:
        lane = part - prompt_splits
        local = tl.arange(0, HEADS)
        is_real = local < H // J
        last_split = (keys - 1) // SPLIT
        if (slot >= 0) & (keys > 0) & (last_split % lanes == lane):
            place = slot * slot_stride + kv_head * head_stride + newest * position_stride
            _append(mine, dims, cos, sin, k, v, place, H, J, K, kv_head)
            tl.debug_barrier()  # all threads of this program read it below
        queries = _rotated(mine, first_head + local, dims, is_real, cos, sin, K).to(dtype)
        for split in range(lane, tl.cdiv(keys, SPLIT), lanes):
            begin = split * SPLIT
            top, total, acc = _own_split(
                queries, k, v, own_base, pages, first_page, begin,
                tl.minimum(begin + SPLIT, keys), position_stride, page_stride, scale, dims,
                K, PAGE, PRECISION,
            )  # fmt: skip
            at = ((prompt_splits + split) * plane_rows + row) * H + first_head
            store_part(weighted, stats, at, local, dims, is_real, top, total, acc, K)

    # All threads have stored their share before one of them says so, and what the others said is
    # acquired with the count.
    tl.debug_barrier()
    before = tl.atomic_add(arrivals + tl.program_id(0), 1, sem="acq_rel")
    if before == tl.num_programs(1) - 1:
        _merge_all(
            weighted, stats, out, prompt_keys, prompt_splits, keys, rows, row, first_head, dims,
            H, J, K,
        )  # fmt: skip
        tl.store(arrivals + tl.program_id(0), 0)
