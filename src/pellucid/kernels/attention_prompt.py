"""Attention of rows to the prompts they share: adjacent siblings read a prompt once together.

A tile of MEMBERS adjacent rows has a program for each KV head, split and turn. A program goes
through the distinct groups in its tile in the order of their ids, takes every `turns`-th from its
own turn on, and multiplies all the tile's queries with that group's keys, but keeps the result of
its members alone: so a group is computed as if no other were there. Every product has a multiple of
64 rows whatever B is: the same instructions, the same bits. Siblings need one turn; without turns
the few rows at the end of a rollout, each of another group, would wait for one another. Where few
rows share a prompt, tiles are lower, down to one row alone: what a program multiplies for other
groups' members is thrown away.

Shapes: B rows, H query heads, J key/value heads, G = H / J, K head dimension.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pellucid.kernels.attention_merge import SPLIT, TILE, merge, store_part, weigh
from pellucid.kernels.launch import take_turn

NOBODY = tl.constexpr(2**31 - 1)
"""Group of a row that has nothing to look at here."""


@triton.jit
def _groups_of(group, length, row, rows, first):
    """Group of each row, or NOBODY where it has no position from `first` on, and its length."""
    keys = tl.load(length + row, mask=row < rows, other=0)
    ids = tl.load(group + row, mask=row < rows, other=NOBODY)
    return tl.where(keys > first, ids, NOBODY), keys


@triton.jit
def _skip(current, ids, count):
    """The id that comes `count` distinct ids after the present one, NOBODY behind the last."""
    for _ in range(count):
        current = tl.min(tl.where(ids > current, ids, NOBODY), 0)
    return current


@triton.jit
def split_of_prompt(
    queries, k, v, base, begin, end, position_stride, scale, dims,
    K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Part of the positions begin .. end, at least one and at most a split."""
    top = tl.full([queries.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([queries.shape[0]], tl.float32)
    acc = tl.zeros([queries.shape[0], queries.shape[1]], tl.float32)
    for position in range(begin, end, TILE):
        positions = position + tl.arange(0, TILE)
        inside = positions < end
        at = base + positions[:, None] * position_stride + dims[None, :]
        present = inside[:, None] & (dims < K)[None, :]
        k_tile = tl.load(k + at, mask=present, other=0.0)
        v_tile = tl.load(v + at, mask=present, other=0.0)
        weights, decay, top = weigh(queries, k_tile, inside, top, scale, PRECISION)
        total = tl.fma(total, decay, tl.sum(weights, 1))
        acc = tl.dot(
            weights.to(v_tile.dtype), v_tile, acc * decay[:, None], input_precision=PRECISION
        )
    return top, total, acc


@triton.jit(do_not_specialize=["rows"])
def prompt_kernel(
    q, k, v, start, length, group, weighted, stats,
    rows, q_stride, head_stride, position_stride, scale,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    MEMBERS: tl.constexpr, HEADS: tl.constexpr, FUSED: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (tiles of rows * J, splits, turns): stores the parts of the splits that have a position.
    HEADS is G padded to a power of two; `scale` has log2(e) in it."""
    if PDL:
        take_turn()
    tile, kv_head = tl.program_id(0) // J, tl.program_id(0) % J
    first = tl.program_id(1) * SPLIT
    members = tile * MEMBERS + tl.arange(0, MEMBERS)
    ids, keys = _groups_of(group, length, members, rows, first)
    current = _skip(tl.min(ids, 0), ids, tl.program_id(2))
    if current == NOBODY:
        return
    starts = tl.load(start + members, mask=members < rows, other=0)

    slots = tl.arange(0, MEMBERS * HEADS)
    member, head = slots // HEADS, slots % HEADS
    row = tile * MEMBERS + member
    slot_ids, _ = _groups_of(group, length, row, rows, first)
    is_served = (head < H // J) & (row < rows)
    dims = tl.arange(0, WIDTH)
    wide = is_served[:, None] & (dims < K)[None, :]
    queries = q + tl.cast(tile, tl.int64) * MEMBERS * q_stride + kv_head * (H // J) * K
    queries += (member * q_stride + head * K)[:, None] + dims[None, :]
    queries = tl.load(queries, mask=wide, other=0.0)

    while current < NOBODY:
        is_sibling = ids == current
        keys_here = tl.max(tl.where(is_sibling, keys, 0), 0)
        # In eights: Triton must see how starts are aligned, or it loads element by element.
        base = tl.max(tl.where(is_sibling, starts // 8, 0), 0) * 8
        base += tl.cast(kv_head, tl.int64) * head_stride
        is_real = is_served & (slot_ids == current)
        all_top = tl.full([MEMBERS * HEADS], float("-inf"), tl.float32)
        all_total = tl.zeros([MEMBERS * HEADS], tl.float32)
        all_acc = tl.zeros([MEMBERS * HEADS, WIDTH], tl.float32)
        for begin in range(first, keys_here if FUSED else first + 1, SPLIT):
            top, total, acc = split_of_prompt(
                queries, k, v, base, begin, tl.minimum(begin + SPLIT, keys_here), position_stride,
                scale, dims, K, PRECISION,
            )  # fmt: skip
            if FUSED:
                all_top, all_total, all_acc = merge(all_top, all_total, all_acc, top, total, acc)
            else:
                all_top, all_total, all_acc = top, total, acc
        result = (tl.cast(tl.program_id(1), tl.int64) * rows + tile * MEMBERS) * H + kv_head * (
            H // J
        )
        # The minimum is 0, which the compiler cannot know: the addresses of results are made here
        # and take no registers from the accumulators before.
        local = member * H + head + tl.minimum(keys_here, 0)
        store_part(weighted, stats, result, local, dims, is_real, all_top, all_total, all_acc, K)
        current = _skip(current, ids, tl.num_programs(2))
