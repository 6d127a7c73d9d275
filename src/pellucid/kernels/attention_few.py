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

from pellucid.kernels.attention import PROGRAMS
from pellucid.kernels.attention_merge import (
    SPLIT,
    TILE,
    merge_stored,
    store_part,
    store_result,
)
from pellucid.kernels.attention_own import HEADS, add_tile
from pellucid.kernels.attention_prompt import split_of_prompt
from pellucid.kernels.attention_step import StepRows, append, place_of, rotated
from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.room import empty_with_room

FEW_ROWS = 64
"""Rows up to which one launch is faster than four; above, siblings read their prompt together."""
FULL_PROGRAMS = 264
"""Two on each of the 132 multiprocessors of an H200."""
MOST_HEADS = 2**16
"""Rows times KV heads that the counters of arrivals are made for."""


def attend_few(rows: StepRows) -> Tensor:
    """`rotate_append` and `attend_rows` of a step's rows at once: [B, H * K]."""
    rows.check()
    assert rows.programs <= MOST_HEADS, f"{len(rows.heads)} rows are not few"
    (count, _, head_dim), num_heads = rows.heads.shape, rows.num_heads
    device = rows.heads.device
    prompt_splits = rows.prompt_splits
    lanes = min(rows.own_splits, triton.cdiv(PROGRAMS, rows.programs))
    planes = rows.own_splits + prompt_splits
    weighted = torch.empty(planes, count, num_heads, head_dim, dtype=torch.float32, device=device)
    stats = torch.empty(planes, count, num_heads, 2, dtype=torch.float32, device=device)
    out = empty_with_room(count, num_heads * head_dim, rows.heads.dtype, device)
    grid = rows.programs, prompt_splits + lanes
    few_kernel[grid](
        *rows.sources(), weighted, stats, _arrivals(device), out, count, lanes, prompt_splits,
        rows.scale, **rows.constants(), num_stages=stages(head_dim, math.prod(grid)), **pdl(device),
    )  # fmt: skip
    return out


def stages(head_dim: int, programs: int) -> int:
    """Tiles that a program has under way: all of its split where two programs a multiprocessor are
    enough, else fewer, so that more of them fit."""
    return 5 if head_dim <= 64 and programs <= FULL_PROGRAMS else 3


@functools.cache
def _arrivals(device: torch.device) -> Tensor:
    """Programs that have arrived, by row and KV head: zeros between launches. Launches of one
    device follow one another, so that they share it."""
    return torch.zeros(MOST_HEADS, dtype=torch.int32, device=device)


@triton.jit
def _own_split(
    queries, k, v, base, pages, first_page, begin, end, position_stride, page_stride, scale, dims,
    K: tl.constexpr, PAGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Part of the own positions begin .. end, at least one and at most a split."""
    top = tl.full([queries.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([queries.shape[0], TILE], tl.float32)
    acc = tl.zeros([queries.shape[0], queries.shape[1]], tl.float32)
    for position in range(begin, end, TILE):
        top, total, acc = add_tile(
            queries, k, v, base, pages, first_page, position, end, position_stride, page_stride,
            scale, dims, top, total, acc, K, PAGE, PRECISION,
        )  # fmt: skip
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
    row, kv_head = tl.program_id(0) // J, tl.program_id(0) % J
    part = tl.program_id(1)
    dims = tl.arange(0, WIDTH)
    slot, newest, first_page, keys, prompt_base, prompt_keys, cos, sin = place_of(
        row, table, table_stride, positions, slots, owns, start, length, prompt_start,
        prompt_length, dims, K, PAGE,
    )  # fmt: skip
    own_base = tl.cast(kv_head, tl.int64) * head_stride
    if PAGE == 0:
        own_base += first_page
    if PDL:
        take_turn()
    mine = heads + tl.cast(row, tl.int64) * heads_stride
    first_head = kv_head * (H // J)
    plane_rows = tl.cast(rows, tl.int64)

    if part < prompt_splits:
        begin = part * SPLIT
        if begin < prompt_keys:
            local = tl.arange(0, HEIGHT)
            is_real = local < H // J
            queries = rotated(mine, first_head + local, dims, is_real, cos, sin, K)
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
            append(mine, dims, cos, sin, k, v, place, kv_head, H, J, K)
            tl.debug_barrier()  # all threads of this program read it below
        queries = rotated(mine, first_head + local, dims, is_real, cos, sin, K)
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
