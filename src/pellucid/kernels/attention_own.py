"""Attention of each row to its own positions: one program reads a KV head for all its query heads.

Decoding is bound by reading keys and values. So the G query heads of a KV head share one read as
the rows of a matrix product (padded to 16), tiles are fetched ahead, and nothing past a row's
length is read. A program takes every `lanes`-th split of its row: with few rows each split gets a
program of its own and its part is stored; with many rows one program takes a whole row and merges
in registers, in the order that the merge kernel has, to the same bits.

Shapes: B rows, H query heads, J key/value heads, G = H / J, K head dimension.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pellucid.kernels.attention_merge import (
    SPLIT,
    TILE,
    merge,
    merge_stored,
    store_part,
    store_result,
    weigh,
)
from pellucid.kernels.launch import take_turn

HEADS = tl.constexpr(16)
"""Rows of the matrix product: the smallest that tensor cores take, and the most that G can be."""


@triton.jit
def tile_at(base, pages, first_page, position, position_stride, page_stride, PAGE: tl.constexpr):
    """Element of `position`, where a tile begins. PAGE 0: `base` is that of position 0. Otherwise
    `base` is that of page 0, and `pages` [first_page + i] is the page of a row's positions from
    i * PAGE on; tiles do not cross pages."""
    if PAGE == 0:
        return base + tl.cast(position, tl.int64) * position_stride
    page = tl.load(pages + first_page + position // PAGE).to(tl.int64)
    return base + page * page_stride + position % PAGE * position_stride


@triton.jit
def _count_tiles(keys, lane, lanes):
    """Tiles in the splits lane, lane + lanes, ... of a row: only its last split can be short."""
    mine = tl.cdiv(tl.cdiv(keys, SPLIT) - lane, lanes)
    last = lane + (mine - 1) * lanes
    return (mine - 1) * (SPLIT // TILE) + tl.cdiv(tl.minimum(keys - last * SPLIT, SPLIT), TILE)


@triton.jit
def add_tile(
    queries, k, v, base, pages, first_page, position, end, position_stride, page_stride, scale,
    dims, top, total, acc, K: tl.constexpr, PAGE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(top, total, acc) of a split and one more of its tiles, of the positions before `end`. The
    total [HEADS, TILE] stays spread over a tile's keys until the split ends: one sum across threads
    instead of four."""
    offsets = tl.arange(0, TILE)
    inside = position + offsets < end
    here = tile_at(base, pages, first_page, position, position_stride, page_stride, PAGE)
    at = here + offsets[:, None] * position_stride + dims[None, :]
    present = inside[:, None] & (dims < K)[None, :]
    k_tile = tl.load(k + at, mask=present, other=0.0)
    v_tile = tl.load(v + at, mask=present, other=0.0)
    weights, decay, top = weigh(queries, k_tile, inside, top, scale, PRECISION)
    total = tl.fma(total, decay[:, None], weights)
    acc = tl.dot(weights.to(v_tile.dtype), v_tile, acc * decay[:, None], input_precision=PRECISION)
    return top, total, acc


@triton.jit
def read_own(
    queries, k, v, base, pages, first_page, keys, lane, lanes, position_stride, page_stride, scale,
    all_top, all_total, all_acc, weighted, stats, rows, row, head, local, dims, is_real,
    H: tl.constexpr, K: tl.constexpr, PAGE: tl.constexpr, FUSED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Reads every `lanes`-th split of a row from `lane` on, in one loop over their tiles. FUSED:
    merges them into (all_top, all_total, all_acc); otherwise it stores each as a part."""
    total = tl.zeros([HEADS, TILE], tl.float32)
    top = tl.full([HEADS], float("-inf"), tl.float32)
    acc = tl.zeros([HEADS, dims.shape[0]], tl.float32)
    tiles = _count_tiles(keys, lane, lanes)
    for i in range(tiles):
        tile = tl.cast(i, tl.int32)  # in the interpreter it is Python's
        step = tile % (SPLIT // TILE)
        split = lane + tile // (SPLIT // TILE) * lanes
        first = split * SPLIT + step * TILE
        top, total, acc = add_tile(
            queries, k, v, base, pages, first_page, first, keys, position_stride, page_stride,
            scale, dims, top, total, acc, K, PAGE, PRECISION,
        )  # fmt: skip
        if (step == SPLIT // TILE - 1) | (tile == tiles - 1):
            if FUSED:
                all_top, all_total, all_acc = merge(
                    all_top, all_total, all_acc, top, tl.sum(total, 1), acc
                )
            else:
                part = (tl.cast(split, tl.int64) * rows + row) * H + head
                store_part(
                    weighted, stats, part, local, dims, is_real, top, tl.sum(total, 1), acc, K
                )
            top = tl.full([HEADS], float("-inf"), tl.float32)
            total = tl.zeros([HEADS, TILE], tl.float32)
            acc = tl.zeros([HEADS, dims.shape[0]], tl.float32)
    return all_top, all_total, all_acc


@triton.jit(do_not_specialize=["rows", "lanes", "prompt_planes"])
def own_kernel(
    q, k, v, start, length, pages, weighted, stats,
    prompt_length, prompt_weighted, prompt_stats, prompt_planes, out, lse,
    rows, lanes, q_stride, head_stride, position_stride, page_stride, scale,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    FUSED: tl.constexpr, HAS_PROMPT: tl.constexpr, WITH_LSE: tl.constexpr,
    PAGE: tl.constexpr, PRECISION: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (B * J, lanes). FUSED (one lane): also merges, after the prompt's parts, and writes
    `out` and `lse`. Otherwise it stores parts. `scale` has log2(e) in it."""
    if PDL:
        take_turn()
    row, kv_head = tl.program_id(0) // J, tl.program_id(0) % J
    lane = tl.program_id(1)
    keys = tl.load(length + row)
    base = tl.cast(kv_head, tl.int64) * head_stride
    first_page = tl.load(start + row)
    if PAGE == 0:
        # Without the hint loads would be as narrow as an element: starts are multiples of 8.
        base += tl.multiple_of(first_page, 8)
    if not FUSED:  # noqa: SIM102 (a constant: Triton needs it apart)
        if lane * SPLIT >= keys:
            return
    local = tl.arange(0, HEADS)
    dims = tl.arange(0, WIDTH)
    is_real = local < H // J
    head = kv_head * (H // J)
    wide = is_real[:, None] & (dims < K)[None, :]
    queries = q + tl.cast(row, tl.int64) * q_stride + head * K
    queries = tl.load(queries + (local[:, None] * K + dims[None, :]), mask=wide, other=0.0)
    all_top = tl.full([HEADS], float("-inf"), tl.float32)
    all_total = tl.zeros([HEADS], tl.float32)
    all_acc = tl.zeros([HEADS, WIDTH], tl.float32)
    if FUSED and HAS_PROMPT:
        prompt_keys = tl.load(prompt_length + row)
        all_top, all_total, all_acc = merge_stored(
            all_top, all_total, all_acc, prompt_weighted, prompt_stats, prompt_keys,
            prompt_planes, rows, row, head, local, dims, is_real, H, K, 1,
        )  # fmt: skip
    all_top, all_total, all_acc = read_own(
        queries, k, v, base, pages, first_page, keys, lane, lanes, position_stride, page_stride,
        scale, all_top, all_total, all_acc, weighted, stats, rows, row, head, local, dims, is_real,
        H, K, PAGE, FUSED, PRECISION,
    )  # fmt: skip
    if FUSED:
        result = tl.cast(row, tl.int64) * H + head
        store_result(
            out, lse, result, local, dims, is_real, all_top, all_total, all_acc, K, WITH_LSE
        )
