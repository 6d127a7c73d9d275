"""Attention over shared prompts, slow and obvious, and small packs to try it on."""

from collections.abc import Sequence

import torch
from torch import Tensor

STRUCTURES = {
    "one group": ([3], [[2, 4, 1]]),
    "two groups of unequal rows": ([5, 2], [[1, 3], [4, 4, 2]]),
    "single samples": ([4, 1, 2], [[3], [1], [5]]),
    "a one-token prompt among others": ([3, 0, 2], [[2, 1], [4, 3], [1]]),
    "one-token prompts only": ([0, 0], [[2, 3], [1]]),
    "one token": ([0], [[1]]),
    "one body token, one own token": ([1], [[1]]),
}


def by_token(
    q: Tensor, k: Tensor, v: Tensor, bodies: Sequence[int], own: Sequence[Sequence[int]]
) -> Tensor:
    """Token by token: each sees its body and what comes before it in its row."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    seen = []
    start = 0
    for length in bodies:
        seen += [list(range(start, start + i + 1)) for i in range(length)]
        start += length
    body = 0
    for length, rows in zip(bodies, own, strict=True):
        for row in rows:
            before = list(range(body, body + length))
            seen += [before + list(range(start, start + i + 1)) for i in range(row)]
            start += row
        body += length
    out = []
    for token, keys in enumerate(seen):
        scores = torch.einsum("hk,shk->hs", q[token], k[keys]) / q.shape[2] ** 0.5
        out.append(torch.einsum("hs,shk->hk", scores.softmax(-1), v[keys]).flatten())
    return torch.stack(out)


def random_heads(
    tokens: int, dtype: torch.dtype = torch.float64, shape: tuple[int, int, int] = (4, 2, 8)
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v for so many heads, key/value heads and components, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    heads, num_kv, width = shape
    shapes = ((tokens, heads, width), (tokens, num_kv, width), (tokens, num_kv, width))
    q, k, v = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
