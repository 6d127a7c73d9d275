"""How parts of a softmax over many keys become one, and the arithmetic that all kernels share.

A part is what a query saw of SPLIT adjacent keys: `top` its largest score (in units of log2),
`total` the sum of exp2(score - top), `acc` the values weighted by the same [K], all float32. It is
stored as `weighted` [N, B, H, K] and `stats` [N, B, H, 2] (top, total). Multiply-adds that a
compiler might or might not contract are written as `fma`, so that every kernel rounds alike.

Shapes: B rows, H query heads, J key/value heads, K head dimension, N parts of a row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pellucid.kernels.launch import take_turn

SPLIT = tl.constexpr(256)
"""Positions in a part. It and TILE fix the order of every sum, so that a row's bits depend neither
on other rows nor on the launch; changing either changes all samples."""
TILE = tl.constexpr(64)
"""Keys taken at a time."""
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def weigh(q, k, inside, top, scale, PRECISION: tl.constexpr):
    """One step of the online softmax over a tile's keys [TILE, K], of which at least one must be
    `inside`: their weights, the factor by which earlier sums shrink, and the new top."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    scores = tl.where(inside[None, :], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)
    weights = tl.exp2(tl.fma(scores, scale, -new_top[:, None]))
    return weights, tl.exp2(top - new_top), new_top


@triton.jit
def merge(top, total, acc, part_top, part_total, part_acc):
    """(top, total, acc) and one more part, which must not be empty."""
    new_top = tl.maximum(top, part_top)
    old, new = tl.exp2(top - new_top), tl.exp2(part_top - new_top)
    total = tl.fma(total, old, part_total * new)
    acc = tl.fma(acc, old[:, None], part_acc * new[:, None])
    return new_top, total, acc


@triton.jit
def merge_stored(
    top, total, acc, weighted, stats, keys, planes, rows, row, head, local, dims, is_real,
    H: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(top, total, acc) and the stored parts of a row's `keys` positions, in their order, of the
    heads head + local. Where `planes` is 1 they are already merged into the first."""
    wide = is_real[:, None] & (dims < K)[None, :]
    num_parts = tl.minimum(tl.cdiv(keys, SPLIT), planes)
    for split in tl.range(0, num_parts, num_stages=STAGES):
        first = (tl.cast(split, tl.int64) * rows + row) * H + head
        here = stats + first * 2 + local * 2
        part_top = tl.load(here, mask=is_real, other=0.0)
        part_total = tl.load(here + 1, mask=is_real, other=0.0)
        part = tl.load(
            weighted + first * K + local[:, None] * K + dims[None, :], mask=wide, other=0.0
        )
        top, total, acc = merge(top, total, acc, part_top, part_total, part)
    return top, total, acc


@triton.jit
def store_part(weighted, stats, first, local, dims, is_real, top, total, acc, K: tl.constexpr):
    """Stores parts at the indices first + local (split, row and head in one) that are real."""
    first = tl.cast(first, tl.int64)
    wide = is_real[:, None] & (dims < K)[None, :]
    tl.store(weighted + first * K + (local[:, None] * K + dims[None, :]), acc, mask=wide)
    tl.store(stats + first * 2 + local * 2, top, mask=is_real)
    tl.store(stats + first * 2 + local * 2 + 1, total, mask=is_real)


@triton.jit
def store_result(
    out, lse, first, local, dims, is_real, top, total, acc, K: tl.constexpr, WITH_LSE: tl.constexpr
):
    """Stores the normalised output and the logarithm of the sum; zeros and -inf without a key."""
    seen = total > 0
    total = tl.where(seen, total, 1.0)
    wide = is_real[:, None] & (dims < K)[None, :]
    result = tl.where(seen[:, None], acc / total[:, None], 0.0).to(out.dtype.element_ty)
    tl.store(out + first * K + (local[:, None] * K + dims[None, :]), result, mask=wide)
    if WITH_LSE:
        log_sum = tl.where(seen, (top + tl.log2(total)) * LN_2, float("-inf"))
        tl.store(lse + first + local, log_sum, mask=is_real)


@triton.jit(do_not_specialize=["rows", "own_planes", "prompt_planes"])
def merge_kernel(
    out, lse, own_weighted, own_stats, own_length, prompt_weighted, prompt_stats, prompt_length,
    own_planes, prompt_planes, rows, H: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    HAS_PROMPT: tl.constexpr, WITH_LSE: tl.constexpr, STAGES: tl.constexpr,
    PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (B, H): merges the parts of a row and a head, the prompt's before its own."""
    if PDL:
        take_turn()
    row, head = tl.program_id(0), tl.program_id(1)
    local = tl.arange(0, 1)
    is_real = local == 0
    dims = tl.arange(0, WIDTH)
    own_keys = tl.load(own_length + row)
    top = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([1, WIDTH], tl.float32)
    if HAS_PROMPT:
        prompt_keys = tl.load(prompt_length + row)
        top, total, acc = merge_stored(
            top, total, acc, prompt_weighted, prompt_stats, prompt_keys, prompt_planes, rows, row,
            head, local, dims, is_real, H, K, STAGES,
        )  # fmt: skip
    top, total, acc = merge_stored(
        top, total, acc, own_weighted, own_stats, own_keys, own_planes, rows, row,
        head, local, dims, is_real, H, K, STAGES,
    )  # fmt: skip
    first = tl.cast(row, tl.int64) * H + head
    store_result(out, lse, first, local, dims, is_real, top, total, acc, K, WITH_LSE)
