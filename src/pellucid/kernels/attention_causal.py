"""Attention of the tokens of a pack, each to its prompt and to its own past, several a program.

Decoding gives every row a program: `attend_rows`. Where rows are tokens, neighbours look at the
same keys but for the last ones; as many as fit a product of 64 or 128 rows read them together here.
A token's row of every product, its masks, and the order of its sums are those it has alone, and so
are its bits where tensor cores add up so many rows as they do 16: see `token_trial`.

Shapes: T tokens, H query heads, J key/value heads, G = H / J, K head dimension.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pellucid.kernels.attention import KeySource
from pellucid.kernels.attention_merge import SPLIT, TILE, merge, store_result
from pellucid.kernels.attention_prompt import split_of_prompt
from pellucid.kernels.launch import pdl, take_turn

NOTHING = tl.constexpr(2**62)
"""Behind every start."""


def attend_tokens(
    q: Tensor, own: KeySource, prompt: KeySource | None, *, num_kv: int
) -> tuple[Tensor, Tensor]:
    """softmax(q k / sqrt(K)) v over each token's prompt and past: output [T, H * K] in q's dtype,
    and the natural logarithm of the sum of exponentials [T, H], float32.

    `q` [T, H, K], a token's heads adjacent, as `attend_rows` takes them. Tokens of one sequence
    have one `own.start` and one prompt; side by side they are fast, wherever they are correct. Each
    looks at one own position at least.
    """
    tokens, num_heads, head_dim = q.shape
    out = q.new_empty(tokens, num_heads * head_dim)
    lse = q.new_empty(tokens, num_heads, dtype=torch.float32)
    height = tile_height(head_dim)
    members = height // (num_heads // num_kv)
    read = own if prompt is None else prompt
    if tokens:
        causal_kernel[(triton.cdiv(tokens, members) * num_kv,)](
            q, *own[:4], *read[:4], out, lse, tokens, q.stride(0), own.head_stride,
            own.position_stride, read.head_stride, read.position_stride,
            head_dim**-0.5 * math.log2(math.e), H=num_heads, J=num_kv, K=head_dim,
            WIDTH=triton.next_power_of_2(head_dim), MEMBERS=members, HAS_PROMPT=prompt is not None,
            HEIGHT=height, SPREAD=q.is_cuda, PRECISION="ieee", num_warps=height // 16, num_stages=3,
            **pdl(q.device),
        )  # fmt: skip
    return out, lse


def tile_height(head_dim: int) -> int:
    """Rows of a product, 16 a warp. Wide heads leave registers for so many warps a multiprocessor
    only that they may as well share what they read."""
    return 64 if head_dim <= 64 else 128


@triton.jit
def sum_as_spread(total, SPREAD: tl.constexpr):
    """Sums [N, TILE] over a tile's keys in the order in which `tl.sum` does where each of four
    warps has every fourth eight of them, a thread two adjacent ones of each: those of a thread one
    after another, then threads and then warps in pairs."""
    if not SPREAD:
        return tl.sum(total, 1)
    rows: tl.constexpr = total.shape[0]
    keys = tl.reshape(total, [rows, 2, 4, 4, 2])
    even, odd = tl.split(tl.permute(keys, (0, 2, 3, 1, 4)))
    first_even, last_even = tl.split(even)
    first_odd, last_odd = tl.split(odd)
    by_thread = ((first_even + first_odd) + last_even) + last_odd
    pairs = tl.sum(tl.reshape(by_thread, [rows, 4, 2, 2]), 2)
    by_warp = tl.reshape(tl.sum(pairs, 2), [rows, 2, 2])
    return tl.sum(tl.sum(by_warp, 1), 1)


@triton.jit
def _weigh(q, k, inside, top, scale, PRECISION: tl.constexpr):
    """`weigh` with a mask for every row [N, TILE], which may leave a row nothing."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    scores = tl.where(inside, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)
    reference = tl.where(new_top == float("-inf"), 0.0, new_top)
    weights = tl.exp2(tl.fma(scores, scale, -reference[:, None]))
    return weights, tl.exp2(top - reference), new_top


@triton.jit
def _split_of_own(
    queries, k, v, begin, end, lengths, position_stride, scale, dims,
    K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Part of the positions begin .. end, of which each row sees those before its length."""
    offsets = tl.arange(0, TILE)
    within = offsets[:, None] * position_stride + dims[None, :]
    top = tl.full([queries.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([queries.shape[0], TILE], tl.float32)
    acc = tl.zeros([queries.shape[0], dims.shape[0]], tl.float32)
    for position in range(begin, end, TILE):
        positions = position + offsets
        present = (positions < end)[:, None] & (dims < K)[None, :]
        first = tl.cast(position, tl.int64) * position_stride
        k_tile = tl.load(k + first + within, mask=present, other=0.0)
        v_tile = tl.load(v + first + within, mask=present, other=0.0)
        inside = positions[None, :] < lengths[:, None]
        weights, decay, top = _weigh(queries, k_tile, inside, top, scale, PRECISION)
        total = tl.fma(total, decay[:, None], weights)
        acc = tl.dot(
            weights.to(v_tile.dtype), v_tile, acc * decay[:, None], input_precision=PRECISION
        )
    return top, total, acc


@triton.jit(do_not_specialize=["rows"])
def causal_kernel(
    q, k, v, start, length, prompt_k, prompt_v, prompt_start, prompt_length, out, lse,
    rows, q_stride, head_stride, position_stride, prompt_head_stride, prompt_position_stride, scale,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    MEMBERS: tl.constexpr, HEIGHT: tl.constexpr, HAS_PROMPT: tl.constexpr, SPREAD: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (tiles of MEMBERS rows * J). Sequences in a tile take turns. `scale` has log2(e) in
    it."""
    if PDL:
        take_turn()
    tile, kv_head = tl.program_id(0) // J, tl.program_id(0) % J
    local = tl.arange(0, HEIGHT)
    member, head = local // (H // J), local % (H // J)
    row = tile * MEMBERS + member
    is_real = (member < MEMBERS) & (row < rows)
    dims = tl.arange(0, WIDTH)
    wide = is_real[:, None] & (dims < K)[None, :]
    first = tl.cast(tile, tl.int64) * MEMBERS
    queries = q + first * q_stride + kv_head * (H // J) * K
    queries += (member * q_stride + head * K)[:, None] + dims[None, :]
    queries = tl.load(queries, mask=wide, other=0.0)
    starts = tl.load(start + row, mask=is_real, other=NOTHING)
    lengths = tl.load(length + row, mask=is_real, other=0)
    if HAS_PROMPT:
        prompt_starts = tl.load(prompt_start + row, mask=is_real, other=0)
        prompt_lengths = tl.load(prompt_length + row, mask=is_real, other=0)
    result = first * H + kv_head * (H // J)

    current = tl.min(starts, 0)
    while current < NOTHING:
        is_mine = is_real & (starts == current)
        keys = tl.max(tl.where(is_mine, lengths, 0), 0)
        # Others look at all: what comes of it is thrown away, but of nothing would come NaN.
        lengths_here = tl.where(is_mine, lengths, keys)
        # In eights: Triton must see how starts are aligned, or it loads element by element.
        base = current // 8 * 8 + tl.cast(kv_head, tl.int64) * head_stride
        all_top = tl.full([HEIGHT], float("-inf"), tl.float32)
        all_total = tl.zeros([HEIGHT], tl.float32)
        all_acc = tl.zeros([HEIGHT, WIDTH], tl.float32)
        if HAS_PROMPT:
            prompt_keys = tl.max(tl.where(is_mine, prompt_lengths, 0), 0)
            prompt_base = tl.max(tl.where(is_mine, prompt_starts // 8, 0), 0) * 8
            prompt_base += tl.cast(kv_head, tl.int64) * prompt_head_stride
            for begin in range(0, prompt_keys, SPLIT):
                top, total, acc = split_of_prompt(
                    queries, prompt_k, prompt_v, prompt_base, begin,
                    tl.minimum(begin + SPLIT, prompt_keys), prompt_position_stride, scale, dims, K,
                    PRECISION,
                )  # fmt: skip
                all_top, all_total, all_acc = merge(all_top, all_total, all_acc, top, total, acc)
        for begin in range(0, keys, SPLIT):
            top, spread, acc = _split_of_own(
                queries, k + base, v + base, begin, tl.minimum(begin + SPLIT, keys), lengths_here,
                position_stride, scale, dims, K, PRECISION,
            )  # fmt: skip
            total = sum_as_spread(spread, SPREAD)
            all_top, all_total, all_acc = merge(all_top, all_total, all_acc, top, total, acc)
        # Where a member's heads lie among all results, from the tile's first on. The minimum is 0,
        # which the compiler cannot know: addresses are made here and take no registers before.
        places = member * H + head + tl.minimum(keys, 0)
        store_result(out, lse, result, places, dims, is_mine, all_top, all_total, all_acc, K, True)
        current = tl.min(tl.where(starts > current, starts, NOTHING), 0)
