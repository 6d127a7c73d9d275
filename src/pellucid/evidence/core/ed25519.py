"""Checks Ed25519 signatures (RFC 8032, 5.1.7) in plain Python, so that a referee needs no package.

Checking handles no secret, so its timing gives nothing away; signing is left to a real library.
Points are in extended homogeneous coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
"""

from __future__ import annotations

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the base point."""
D = -121665 * pow(121666, -1, P) % P
SQRT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]
NEUTRAL: Point = (0, 1, 1, 0)


def is_signed_by(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` [64 bytes] of `message` is by the owner of `public_key` [32 bytes]."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    owner = _decode(public_key)
    s = int.from_bytes(signature[32:], "little")
    if owner is None or s >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    # R = sB - kA, compared as bytes.
    x, y, z, t = owner
    minus_owner = (P - x, y, z, P - t)
    return _encode(_sum_of(s, BASE, challenge, minus_owner)) == signature[:32]


def _add(a: Point, b: Point) -> Point:
    u = (a[1] - a[0]) * (b[1] - b[0]) % P
    v = (a[1] + a[0]) * (b[1] + b[0]) % P
    w = 2 * a[3] * b[3] * D % P
    z = 2 * a[2] * b[2] % P
    e, f, g, h = v - u, z - w, z + w, v + u
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _sum_of(s: int, a: Point, k: int, b: Point) -> Point:
    """sA + kB, both read from the highest bit on."""
    both, result = _add(a, b), NEUTRAL
    for bit in reversed(range(max(s.bit_length(), k.bit_length()))):
        result = _add(result, result)
        pair = (s >> bit & 1, k >> bit & 1)
        if pair != (0, 0):
            result = _add(result, both if pair == (1, 1) else a if pair == (1, 0) else b)
    return result


def _encode(point: Point) -> bytes:
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(data: bytes) -> Point | None:
    """The point, or None: not on the curve, or not written in its one form."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_OF_MINUS_1 % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def _base() -> Point:
    point = _decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    assert point is not None, "the base point is on the curve"
    return point


BASE = _base()
