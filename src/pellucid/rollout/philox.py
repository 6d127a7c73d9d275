"""Philox4x32-10 (Salmon et al., SC 2011): the counter-based generator behind every sampled token.

A token's randomness is a pure function of (run seed, sample id, index of the token in its
completion). It does not depend on batch, slot, order, device or restart, so anyone can replay it.

Shapes: N samples, M token indices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)

Words = NDArray[np.uint64]


def uniforms(seed: int, sample_ids: Words, positions: NDArray[np.integer]) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) with 53 random bits, [N, M].

    `seed` in [0, 2^64) is the key; the counter is (sample id: low word, high word; position; 0).
    `sample_ids` [N] uint64; `positions` [M], or [N, M] where each sample has its own, below 2^32: 0
    is the first token of the completion. The draw is the top 53 bits of output words 0 (high) and 1
    (low).
    """
    ids = np.asarray(sample_ids, dtype=np.uint64)[:, None]
    index = np.atleast_2d(np.asarray(positions, dtype=np.uint64))
    key = (seed & 0xFFFFFFFF, seed >> 32)
    high, low, _, _ = philox4x32((ids & LOW, ids >> WORD, index, np.zeros_like(index)), key)
    return ((high << WORD | low) >> np.uint64(11)) * 2.0**-53


def philox4x32(
    counter: tuple[Words, Words, Words, Words], key: tuple[int, int]
) -> tuple[Words, ...]:
    """The four output words for a counter of four 32-bit words (held in uint64, shapes
    broadcast)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c2 = p1 >> WORD ^ c1 ^ np.uint64(k0), p0 >> WORD ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & LOW, p0 & LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3
