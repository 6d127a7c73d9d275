"""From the statistics of blocks to tokens and log-probabilities, one program a row.

A token's own logit is computed again, as one dot product in a fixed order, for the token that is
drawn and for a token that is scored alike: the two report the same bits. The block that holds the
token drawn is computed again too, to find the token inside it.

Shapes: B rows, D width, V vocabulary, C blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from pellucid.kernels.head_stats import BLOCK, LOG2_E, VOID, Stats
from pellucid.kernels.launch import pdl, take_turn

BELOW_ONE = 1 - 2.0**-53
"""x * BELOW_ONE < x for every positive float64: keeps a rounded-up target inside the
distribution."""
WARPS = 8
"""Of every kernel here: it fixes the order of the sums over blocks and over the width."""
STRIP = 1024
"""Columns of D that a token's own logit takes at once."""
DEPTH = 64
"""Columns of D that a block's 128 logits take at once."""


def choose(
    hidden: Tensor,
    weight: Tensor,
    stats: Stats,
    u: Tensor,
    temperature: float,
    tokens: Tensor,
    logprobs: Tensor,
) -> None:
    """Fills `tokens` [B] int64 and `logprobs` [B] float32 from hidden [B, D], weight [V, D], the
    statistics of their logits and uniforms u [B] float64.

    Temperature 0 takes the largest logit; its statistics are those of temperature 1.
    """
    rows, width = hidden.shape
    vocab_size = weight.shape[0]
    _choose_kernel[(rows,)](
        hidden,
        weight,
        stats.top,
        stats.mass,
        u,
        u.stride(0),
        tokens,
        logprobs,
        LOG2_E / (temperature or 1.0),
        temperature or 1.0,
        VOCAB=vocab_size,
        WIDTH=width,
        PADDED=triton.next_power_of_2(-(-vocab_size // BLOCK)),
        ID_BLOCK=BLOCK,
        VOID_LOGIT=VOID,
        TOP_SHARE=BELOW_ONE,
        TILE_D=DEPTH,
        STRIP_D=STRIP,
        IS_GREEDY=temperature == 0,
        num_warps=WARPS,
        **pdl(hidden.device),
    )


def score_rows(
    hidden: Tensor,
    weight: Tensor,
    stats: Stats,
    targets: Tensor,
    temperature: float,
    out: Sequence[Tensor],
) -> None:
    """Fills out = (logprobs, entropy, peak, log2_sum), all [B] float32, for targets [B] int64, from
    statistics with the moment. A target outside the vocabulary gets NaN."""
    rows, width = hidden.shape
    vocab_size = weight.shape[0]
    assert stats.moment is not None, "the entropy needs the blocks' moments"
    _score_kernel[(rows,)](
        hidden,
        weight,
        stats.top,
        stats.mass,
        stats.moment,
        targets,
        *out,
        LOG2_E / (temperature or 1.0),
        temperature or 1.0,
        VOCAB=vocab_size,
        WIDTH=width,
        PADDED=triton.next_power_of_2(-(-vocab_size // BLOCK)),
        ID_BLOCK=BLOCK,
        VOID_LOGIT=VOID,
        STRIP_D=STRIP,
        num_warps=WARPS,
    )


@triton.jit
def _block_masses(
    top_ptr,
    mass_ptr,
    row,
    scale,
    PADDED: tl.constexpr,
    NUM_BLOCKS: tl.constexpr,
    VOID_LOGIT: tl.constexpr,
):
    """A row's block maxima, masses relative to the largest logit, that logit, and the prefix sums
    of the masses with their last as the total."""
    block = tl.arange(0, PADDED)
    is_real = block < NUM_BLOCKS
    place = row.to(tl.int64) * NUM_BLOCKS + block
    top = tl.load(top_ptr + place, mask=is_real, other=VOID_LOGIT)
    mass = tl.load(mass_ptr + place, mask=is_real, other=0.0)
    largest = tl.max(top, 0)
    mass = mass * tl.exp2((top - largest) * scale)
    prefix = tl.cumsum(mass.to(tl.float64), 0)
    # The last prefix, not the largest: the largest of numbers passes over those that are NaN.
    total = tl.sum(tl.where(block == NUM_BLOCKS - 1, prefix, 0.0), 0)
    return top, largest, prefix, total


@triton.jit
def _own_logit(hidden, weight, row, token, WIDTH: tl.constexpr, STRIP_D: tl.constexpr):
    """The logit of one token of one row, its products summed in an order that WIDTH fixes."""
    parts = tl.zeros((STRIP_D,), tl.float32)
    x_ptr = hidden + row.to(tl.int64) * WIDTH
    w_ptr = weight + token.to(tl.int64) * WIDTH
    for first in range(0, WIDTH, STRIP_D):
        column = first + tl.arange(0, STRIP_D)
        x = tl.load(x_ptr + column, mask=column < WIDTH, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + column, mask=column < WIDTH, other=0.0).to(tl.float32)
        parts = tl.fma(x, w, parts)
    return tl.sum(parts, 0)


@triton.jit
def _log_share(logit, largest, total, temperature):
    """log(exp((logit - largest) / temperature) / total), float32, at most 0."""
    logprob = ((logit - largest) / temperature).to(tl.float64) - tl.log(total)
    # The logit and the largest come of two sums that may differ in their last bits. NaN stays.
    return tl.where(logprob > 0, 0.0, logprob).to(tl.float32)


@triton.jit
def _block_logits(
    hidden,
    weight,
    row,
    ids,
    VOCAB: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_D: tl.constexpr,
    VOID_LOGIT: tl.constexpr,
):
    """The logits of the vocabulary ids `ids`, VOID_LOGIT past the vocabulary's end."""
    parts = tl.zeros((ids.shape[0], TILE_D), tl.float32)
    x_ptr = hidden + row.to(tl.int64) * WIDTH
    w_ptr = weight + ids.to(tl.int64)[:, None] * WIDTH
    is_id = (ids < VOCAB)[:, None]
    for first in range(0, WIDTH, TILE_D):
        column = first + tl.arange(0, TILE_D)
        is_column = column < WIDTH
        x = tl.load(x_ptr + column, mask=is_column, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + column[None, :], mask=is_id & is_column[None, :], other=0.0)
        parts += w.to(tl.float32) * x[None, :]
    return tl.where(ids < VOCAB, tl.sum(parts, 1), VOID_LOGIT)


@triton.jit
def _choose_kernel(
    hidden,
    weight,
    top_ptr,
    mass_ptr,
    u_ptr,
    u_stride,
    tokens_ptr,
    logprobs_ptr,
    scale,
    temperature,
    VOCAB: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    ID_BLOCK: tl.constexpr,
    VOID_LOGIT: tl.constexpr,
    TOP_SHARE: tl.constexpr,
    TILE_D: tl.constexpr,
    STRIP_D: tl.constexpr,
    IS_GREEDY: tl.constexpr,
    PDL: tl.constexpr = False,
):
    if PDL:
        take_turn()
    NUM_BLOCKS: tl.constexpr = (VOCAB + ID_BLOCK - 1) // ID_BLOCK
    row = tl.program_id(0)
    block = tl.arange(0, PADDED)
    top, largest, prefix, total = _block_masses(
        top_ptr, mass_ptr, row, scale, PADDED, NUM_BLOCKS, VOID_LOGIT
    )
    if IS_GREEDY:
        is_found = top == largest
    else:
        u = tl.load(u_ptr + row.to(tl.int64) * u_stride)
        target = tl.minimum(u * total, total * TOP_SHARE)
        is_found = prefix > target
    # NaN is found nowhere: the bounds keep the token inside the vocabulary.
    chosen = tl.minimum(tl.min(tl.where(is_found, block, PADDED), 0), NUM_BLOCKS - 1)
    # Here, not where it is needed: the prefixes' registers are free for what follows.
    before = tl.sum(tl.where(block == chosen - 1, prefix, 0.0), 0)
    lane = tl.arange(0, ID_BLOCK)
    ids = chosen * ID_BLOCK + lane
    logits = _block_logits(hidden, weight, row, ids, VOCAB, WIDTH, TILE_D, VOID_LOGIT)
    if IS_GREEDY:
        is_found = logits == tl.max(logits, 0)
    else:
        inside = tl.cumsum(tl.exp2((logits - largest) * scale).to(tl.float64), 0)
        whole = tl.sum(tl.where(lane == ID_BLOCK - 1, inside, 0.0), 0)
        is_found = inside > tl.minimum(target - before, whole * TOP_SHARE)
    offset = tl.min(tl.where(is_found, lane, ID_BLOCK), 0)
    token = tl.minimum(chosen * ID_BLOCK + offset, VOCAB - 1)
    logit = _own_logit(hidden, weight, row, token, WIDTH, STRIP_D)
    tl.store(tokens_ptr + row, token.to(tl.int64))
    tl.store(logprobs_ptr + row, _log_share(logit, largest, total, temperature))


@triton.jit
def _score_kernel(
    hidden,
    weight,
    top_ptr,
    mass_ptr,
    moment_ptr,
    targets_ptr,
    logprobs_ptr,
    entropy_ptr,
    peak_ptr,
    log2_sum_ptr,
    scale,
    temperature,
    VOCAB: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    ID_BLOCK: tl.constexpr,
    VOID_LOGIT: tl.constexpr,
    STRIP_D: tl.constexpr,
):
    NUM_BLOCKS: tl.constexpr = (VOCAB + ID_BLOCK - 1) // ID_BLOCK
    row = tl.program_id(0)
    top, largest, _, total = _block_masses(
        top_ptr, mass_ptr, row, scale, PADDED, NUM_BLOCKS, VOID_LOGIT
    )
    target = tl.load(targets_ptr + row)
    is_token = (target >= 0) & (target < VOCAB)
    token = tl.where(is_token, target, 0)
    logit = _own_logit(hidden, weight, row, token, WIDTH, STRIP_D)
    logprob = _log_share(logit, largest, total, temperature)
    tl.store(logprobs_ptr + row, tl.where(is_token, logprob, float("nan")))
    tl.store(peak_ptr + row, largest)
    tl.store(log2_sum_ptr + row, tl.log2(total).to(tl.float32))
    block = tl.arange(0, PADDED)
    place = row.to(tl.int64) * NUM_BLOCKS + block
    is_real = block < NUM_BLOCKS
    mass = tl.load(mass_ptr + place, mask=is_real, other=0.0)
    moment = tl.load(moment_ptr + place, mask=is_real, other=0.0)
    below = top - largest
    share = tl.exp2(below * scale) * (moment + mass * below)
    mean = tl.sum(share.to(tl.float64), 0) / total
    entropy = tl.log(total) - mean / temperature
    tl.store(entropy_ptr + row, entropy.to(tl.float32))
