"""Philox4x32-10 on torch tensors of any device, bit-equal to `rollout/philox.py`.

32-bit words are held in int64: products wrap to the right 64 bits, and shifts are masked.
"""

from __future__ import annotations

from torch import Tensor

from pellucid.rollout import philox

MULTIPLIERS = tuple(int(word) for word in philox.MULTIPLIERS)
LOW = 0xFFFFFFFF


def uniforms_of(seed: Tensor, id_low: Tensor, id_high: Tensor, index: Tensor) -> Tensor:
    """Draws in [0, 1) with 53 random bits, [N] float64: `philox.uniforms` for one index a sample.

    `seed` [2] int32: low and high word; `id_low`, `id_high` [N] int32: words of the sample ids;
    `index` [N]: index of the token in its completion, below 2^32.
    """
    counter = (id_low.long() & LOW, id_high.long() & LOW, index.long() & LOW, index.long() * 0)
    high, low, _, _ = philox4x32(counter, seed.long() & LOW)
    # 21 bits of the second word: the 53-bit number stays positive in int64.
    return (high << 21 | low >> 11).double() * 2.0**-53


def philox4x32(counter: tuple[Tensor, ...], key: Tensor) -> tuple[Tensor, ...]:
    """The four output words for a counter of four words [N] and a key of two, all in int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key[0], key[1]
    for _ in range(philox.ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = (p1 >> 32) & LOW ^ c1 ^ k0, (p0 >> 32) & LOW ^ c3 ^ k1
        c1, c3 = p1 & LOW, p0 & LOW
        k0, k1 = (k0 + philox.WEYL[0]) & LOW, (k1 + philox.WEYL[1]) & LOW
    return c0, c1, c2, c3
