"""Philox4x32-10 inside kernels, bit-equal to `rollout/philox.py`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """The four output words for a counter of four words and a key of two, all uint32."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c2 = high1 ^ c1 ^ k0, high0 ^ c3 ^ k1
        c1, c3 = low1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def uniform53(seed_low, seed_high, id_low, id_high, index):
    """Draws in [0, 1) with 53 random bits, float64, for token `index` of a sample.

    All arguments are int32 with the bits of the words; `index` and the id have one shape.
    """
    c0, c1 = id_low.to(tl.uint32, bitcast=True), id_high.to(tl.uint32, bitcast=True)
    c2 = index.to(tl.uint32, bitcast=True)
    k0, k1 = seed_low.to(tl.uint32, bitcast=True), seed_high.to(tl.uint32, bitcast=True)
    high, low, _, _ = philox4x32(c0, c1, c2, tl.zeros_like(c2), k0, k1)
    # 21 bits of the second word: a 53-bit number is exact in float64, and positive in int64.
    bits = (high.to(tl.int64) << 21) | (low >> 11).to(tl.int64)
    return bits.to(tl.float64) * (1.0 / 9007199254740992.0)
