"""Top-k and top-p without sorting and without a look from the host, one program a row.

Meaning: pellucid.rollout.sampling.truncate. The least weight that is kept is found by its bits, as
a non-negative float is ordered as its bits are: a few pivots divide the interval that holds it,
and a pass over the row counts and sums what lies at each pivot or above. The sums are float64, in
another order than the definition's, which follows falling weights: the nucleus may end one token
off where its share of the mass meets p within 1e-12 of itself.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

PIVOTS = 4
"""Parts into which a pass divides the interval: more cost additions, fewer cost passes."""
CHUNK = 2048
"""Ids looked at together."""
WARPS = 16
AHEAD = 4
"""Loads in flight."""


def truncate(weights: Tensor, top_k: int, top_p: float) -> None:
    """Zeroes, in place, the weights [B, V] float32 that top-k and top-p leave out; 0 and 1 leave
    out nothing. Among equal weights the lower id stays. NaN stays, and keeps its row whole.
    """
    assert weights.dim() == 2, "weights are [B, V]"
    assert weights.stride(1) == 1, "the ids of a row lie side by side"
    vocab_size = weights.shape[1]
    has_top_k = 0 < top_k < vocab_size
    if not has_top_k and top_p >= 1:
        return
    _truncate_kernel[(len(weights),)](
        weights,
        weights.stride(0),
        top_k,
        VOCAB=vocab_size,
        HAS_TOP_K=has_top_k,
        TOP_P=top_p,
        PARTS=PIVOTS,
        TILE=min(CHUNK, triton.next_power_of_2(vocab_size)),
        STAGES=AHEAD,
        num_warps=WARPS,
    )


@triton.jit
def _load(row_ptr, first, VOCAB: tl.constexpr, TILE: tl.constexpr):
    """The weights from id `first` on and their bits: 0 past the end, and one value for every NaN,
    above all others."""
    ids = first + tl.arange(0, TILE)
    weights = tl.load(row_ptr + ids, mask=ids < VOCAB, other=0.0)
    bits = weights.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return weights, tl.minimum(bits, 0x7FC00000)


@triton.jit
def _search(
    row_ptr,
    low,
    high,
    count_low,
    mass_low,
    wanted,
    VOCAB: tl.constexpr,
    PARTS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
    BY_COUNT: tl.constexpr,
):
    """Narrows the interval of bits [low, high) to the one value, or the one weight, with which the
    weights from the largest down reach `wanted`, a count or a mass; count_low and mass_low are
    those of the weights of bits `low` or more. Returns the interval, the count and mass above it,
    and the count and mass in it.
    """
    count_high = tl.full((), 0, tl.int32)
    mass_high = tl.full((), 0.0, tl.float64)
    part = tl.arange(0, PARTS)
    while (high - low > 1) & (count_low - count_high > 1):
        step = (high - low + PARTS - 1) // PARTS
        pivots = low + part * step
        counts = tl.zeros((TILE, PARTS), tl.int32)
        masses = tl.zeros((TILE, PARTS), tl.float64)
        for first in tl.range(0, VOCAB, TILE, num_stages=STAGES):
            weights, bits = _load(row_ptr, first, VOCAB, TILE)
            is_above = bits[:, None] >= pivots[None, :]
            counts += is_above.to(tl.int32)
            masses += tl.where(is_above, weights.to(tl.float64)[:, None], 0.0)
        # What lies past the end has bits 0.
        count = tl.minimum(tl.sum(counts, 0), VOCAB)
        mass = tl.sum(masses, 0)
        is_enough = (count >= wanted) if BY_COUNT else (mass >= wanted)
        # Counts and masses fall from pivot to pivot: those that reach what is wanted come first.
        is_enough = (part == 0) | (is_enough & (pivots < high))
        last = tl.sum(is_enough.to(tl.int32), 0) - 1
        count_low = tl.sum(tl.where(part == last, count, 0), 0)
        mass_low = tl.sum(tl.where(part == last, mass, 0.0), 0)
        end = low + (last + 1) * step
        if (last + 1 < PARTS) & (end < high):
            high = end
            count_high = tl.sum(tl.where(part == last + 1, count, 0), 0)
            mass_high = tl.sum(tl.where(part == last + 1, mass, 0.0), 0)
        low += last * step
    return low, high, count_high, mass_high, count_low - count_high, mass_low - mass_high


# Parameters known at compile time keep the bits of a float64; others are rounded to float32.
@triton.jit(do_not_specialize=["top_k"])
def _truncate_kernel(
    weights_ptr,
    stride,
    top_k,
    VOCAB: tl.constexpr,
    HAS_TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    PARTS: tl.constexpr,
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
):
    row_ptr = weights_ptr + tl.program_id(0).to(tl.int64) * stride
    totals = tl.zeros((TILE,), tl.float64)
    largest = tl.zeros((TILE,), tl.int32)
    for first in tl.range(0, VOCAB, TILE, num_stages=STAGES):
        weights, bits = _load(row_ptr, first, VOCAB, TILE)
        totals += weights.to(tl.float64)
        largest = tl.maximum(largest, bits)
    total = tl.sum(totals, 0)
    low = tl.full((), 0, tl.int32)
    high = tl.max(largest, 0) + 1
    num_kept = tl.full((), VOCAB, tl.int32)
    mass_kept = total
    if HAS_TOP_K:
        low, end, above, mass_above, num_tied, mass_tied = _search(
            row_ptr, low, high, num_kept, total, top_k, VOCAB, PARTS, TILE, STAGES, True
        )
        spare = top_k - above
        if TOP_P < 1:
            total = mass_above + mass_tied * (spare.to(tl.float64) / num_tied)
            num_kept = above + num_tied
            mass_kept = mass_above + mass_tied
        else:
            high = end
    if TOP_P < 1:
        wanted = total * TOP_P
        low, high, above, mass_above, num_tied, mass_tied = _search(
            row_ptr, low, high, num_kept, mass_kept, wanted, VOCAB, PARTS, TILE, STAGES, False
        )
        needed = tl.ceil((wanted - mass_above) * num_tied / tl.maximum(mass_tied, 1e-300))
        spare = tl.minimum(tl.maximum(needed, 1.0), num_tied.to(tl.float64)).to(tl.int32)
    num_seen = tl.full((), 0, tl.int32)
    for first in tl.range(0, VOCAB, TILE, num_stages=STAGES):
        _, bits = _load(row_ptr, first, VOCAB, TILE)
        is_void = bits < low
        if spare < num_tied:
            is_tied = (bits >= low) & (bits < high)
            rank = num_seen + tl.cumsum(is_tied.to(tl.int32), 0)
            is_void |= is_tied & (rank > spare)
            num_seen += tl.sum(is_tied.to(tl.int32), 0)
        ids = first + tl.arange(0, TILE)
        tl.store(row_ptr + ids, tl.zeros((TILE,), tl.float32), mask=is_void & (ids < VOCAB))
