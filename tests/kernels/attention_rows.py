"""Rows to attend with, and their attention in float64, slow and plain."""

from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.kernels.attention import KeySource, attend_rows


class Shape(NamedTuple):
    heads: int
    num_kv: int
    head_dim: int


class Rows(NamedTuple):
    q: Tensor
    own: KeySource
    prompt: KeySource
    group: Tensor


def slots(lengths: Tensor, order: Tensor, room: int, shape: Shape, dtype: torch.dtype) -> KeySource:
    """Keys of rows whose slot [S, J, C, K] is `order`: NaN wherever no row may look."""
    _, num_kv, head_dim = shape
    size = (int(order.max()) + 1, num_kv, room, head_dim)
    longest = torch.zeros(size[0], dtype=lengths.dtype, device=lengths.device)
    longest[order] = lengths
    is_free = torch.arange(room, device=lengths.device) >= longest[:, None]
    k, v = (torch.randn(size, device=lengths.device).to(dtype) for _ in "kv")
    for store in (k, v):
        store.masked_fill_(is_free[:, None, :, None], torch.nan)
    starts = order.long() * num_kv * room * head_dim
    return KeySource(k, v, starts, lengths.int(), room * head_dim, head_dim)


def random_rows(
    own: list[int],
    prompt: list[int],
    group: list[int],
    shape: Shape,
    dtype: torch.dtype,
    device: str = "cpu",
) -> Rows:
    """`prompt` has the length of each group's prompt. Slots lie in reverse order of the rows."""
    groups, bodies, owns = (torch.tensor(x, device=device) for x in (group, prompt, own))
    reverse = torch.arange(len(own) - 1, -1, -1, device=device)
    return Rows(
        torch.randn(len(own), shape.heads, shape.head_dim, device=device).to(dtype),
        slots(owns, reverse, max(own) + 8, shape, dtype),
        slots(bodies[groups], groups, max(prompt) + 8, shape, dtype),
        groups.int(),
    )


def in_pages(own: KeySource, page: int) -> KeySource:
    """The same rows with their keys [S, J, C, K] in pages [P, J, page, K], strewn about."""
    slots, num_kv, room, head_dim = own.k.shape
    per_row = -(-room // page)
    table = torch.randperm(slots * per_row, device=own.k.device).view(slots, per_row)

    def strew(keys: Tensor) -> Tensor:
        padded = keys.new_full((slots, num_kv, per_row * page, head_dim), torch.nan)
        padded[:, :, :room] = keys
        pages = padded.view(slots, num_kv, per_row, page, head_dim).transpose(1, 2).flatten(0, 1)
        out = pages.new_empty(pages.shape)
        out[table.flatten()] = pages
        return out

    return own._replace(
        k=strew(own.k),
        v=strew(own.v),
        start=own.start // (num_kv * room * head_dim) * per_row,
        head_stride=page * head_dim,
        pages=table.int(),
        page=page,
        page_stride=num_kv * page * head_dim,
    )


def take(source: KeySource, rows: Tensor) -> KeySource:
    return source._replace(start=source.start[rows], length=source.length[rows])


def attend(rows: Rows, shape: Shape, which: Tensor | None = None, **bounds: int) -> Tensor:
    """Output and logarithm of the sum of these rows of `rows`, in one tensor [B, H, K + 1]."""
    if which is None:
        which = torch.arange(len(rows.q), device=rows.q.device)
    bounds = {
        "max_own": int(rows.own.length.max()),
        "max_prompt": int(rows.prompt.length.max()),
    } | bounds
    out, lse = attend_rows(
        rows.q[which],
        take(rows.own, which),
        take(rows.prompt, which),
        rows.group[which],
        num_kv=shape.num_kv,
        with_lse=True,
        **bounds,
    )
    return torch.cat([out.view_as(rows.q[which]).float(), lse[..., None]], 2)


def dense(rows: Rows, shape: Shape, scale: float | None = None) -> Tensor:
    """What `attend` should give, row by row in float64."""
    heads, num_kv, head_dim = shape
    results = []
    for row, q in enumerate(rows.q.double().view(-1, num_kv, heads // num_kv, head_dim)):
        parts = [_gather(source, row, shape) for source in (rows.prompt, rows.own)]
        k, v = (torch.cat(pair, 1) for pair in zip(*parts, strict=True))  # [J, positions, K]
        scores = q @ k.mT * (head_dim**-0.5 if scale is None else scale)
        out = scores.softmax(-1) @ v
        results.append(torch.cat([out, scores.logsumexp(-1, keepdim=True)], -1).flatten(0, 1))
    return torch.stack(results)


def _gather(source: KeySource, row: int, shape: Shape) -> tuple[Tensor, Tensor]:
    size = (shape.num_kv, int(source.length[row]), shape.head_dim)
    where = size, (source.head_stride, source.position_stride, 1), int(source.start[row])
    return source.k.as_strided(*where).double(), source.v.as_strided(*where).double()
