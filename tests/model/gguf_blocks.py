"""Random GGUF blocks with a slow reading of each layout, to compare the loader with."""

from __future__ import annotations

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quant


def half(raw) -> float:
    return float(np.frombuffer(bytes(raw), np.float16)[0])


def read_q4_0(b):
    d, q = half(b[:2]), [int(x) for x in b[2:]]
    return [d * ((x & 15) - 8) for x in q] + [d * ((x >> 4) - 8) for x in q]


def read_q4_1(b):
    d, m, q = half(b[:2]), half(b[2:4]), [int(x) for x in b[4:]]
    return [d * (x & 15) + m for x in q] + [d * (x >> 4) + m for x in q]


def fives(b, start):
    high = int.from_bytes(bytes(b[start : start + 4]), "little")
    q = [int(x) for x in b[start + 4 :]]
    nibbles = [x & 15 for x in q] + [x >> 4 for x in q]
    return [n | ((high >> i & 1) << 4) for i, n in enumerate(nibbles)]


def read_q5_0(b):
    return [half(b[:2]) * (x - 16) for x in fives(b, 2)]


def read_q5_1(b):
    return [half(b[:2]) * x + half(b[2:4]) for x in fives(b, 4)]


def read_q8_0(b):
    return [half(b[:2]) * x for x in np.frombuffer(bytes(b[2:]), np.int8).tolist()]


def k_scales(s):
    """(scale, minimum) of the eight parts of a K block, six bits each in twelve bytes."""
    s = [int(x) for x in s]
    low = [(s[j] & 63, s[j + 4] & 63) for j in range(4)]
    high = [
        (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4) for j in range(4, 8)
    ]
    return low + high


def read_q4_k(b, high=None):
    d, dmin, scales, q = half(b[:2]), half(b[2:4]), k_scales(b[4:16]), [int(x) for x in b[-128:]]
    out = []
    for part, (scale, minimum) in enumerate(scales):
        for i in range(32):
            byte = q[32 * (part // 2) + i]
            value = byte >> 4 if part % 2 else byte & 15
            if high is not None:
                value += (int(high[i]) >> part & 1) * 16
            out.append(d * scale * value - dmin * minimum)
    return out


def read_q5_k(b):
    return read_q4_k(b, high=b[16:48])


def read_q6_k(b):
    low, high = [int(x) for x in b[:128]], [int(x) for x in b[128:192]]
    scales, d = np.frombuffer(bytes(b[192:208]), np.int8).tolist(), half(b[208:])
    out = [0.0] * 256
    for n in range(2):
        for i in range(32):
            for part in range(4):
                nibble = low[64 * n + i + 32 * (part % 2)]
                nibble = nibble >> 4 if part >= 2 else nibble & 15
                value = (nibble | (high[32 * n + i] >> 2 * part & 3) << 4) - 32
                out[128 * n + 32 * part + i] = d * scales[8 * n + 2 * part + i // 16] * value
    return out


READERS = {
    Quant.Q4_0: (read_q4_0, 0.01),
    Quant.Q4_1: (read_q4_1, 0.01),
    Quant.Q5_0: (read_q5_0, 0.005),
    Quant.Q5_1: (read_q5_1, 0.005),
    Quant.Q8_0: (read_q8_0, 0.0007),
    Quant.Q4_K: (read_q4_k, 0.0002),
    Quant.Q5_K: (read_q5_k, 0.0001),
    Quant.Q6_K: (read_q6_k, 0.00004),
}
"""Type -> (reading of one block, scale that gives weights of about 0.05)."""
HALVES = {Quant.Q6_K: (104,), Quant.Q4_1: (0, 1), Quant.Q5_1: (0, 1), Quant.Q4_K: (0, 1),
          Quant.Q5_K: (0, 1)}  # fmt: skip
"""Where a block keeps its float16 numbers, in units of two bytes."""


def random_rows(kind, rows, columns, rng, *, is_slow=True):
    """(bytes as stored [rows, bytes], values [rows, columns]); slow: by the readers above."""
    if kind in (Quant.F32, Quant.F16, Quant.BF16):
        values = torch.from_numpy(rng.normal(0, 0.05, (rows, columns)).astype(np.float32))
        if kind is Quant.F32:
            return values.numpy(), values
        if kind is Quant.F16:
            return values.half().numpy(), values.half().float()
        raw = values.bfloat16().view(torch.int16).numpy().view(np.uint8)
        return raw.reshape(rows, -1), values.bfloat16().float()
    read, scale = READERS[kind]
    size, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // size, num_bytes), dtype=np.uint8)
    halves = blocks.view(np.float16)
    for at in HALVES.get(kind, (0,)):
        halves[:, at] = rng.uniform(0.5, 1.5, len(blocks)) * scale * (-6 if kind in (
            Quant.Q4_1, Quant.Q5_1) and at else 1)  # fmt: skip
    blocks = blocks.reshape(rows, -1)
    if not is_slow:
        return blocks, torch.from_numpy(gguf.quants.dequantize(blocks, kind))
    values = [read(b) for b in blocks.reshape(-1, num_bytes)]
    return blocks, torch.from_numpy(np.array(values, dtype=np.float32).reshape(rows, columns))
