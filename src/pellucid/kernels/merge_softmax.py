"""Two softmaxes over different keys of the same queries become one.

Shapes: T tokens, Q tokens that saw other keys too, H heads, K head dimension.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 16


def merge_softmax(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, first: int) -> None:
    """Merges other [Q, H, K] and its log-sum-exp [H, Q] into out [T, H, K] and lse [H, T] float32,
    in place, for the tokens first … T - 1.

    A row of `other` whose log-sum-exp is infinite, of either sign, saw no key and changes nothing.
    Computed in float32 and rounded once.
    """
    num_heads, num_tokens = lse.shape
    num_other, _, width = other.shape
    assert out.is_contiguous(), "out is contiguous"
    assert other.is_contiguous(), "other is contiguous"
    assert lse.is_contiguous(), "lse is contiguous"
    assert other_lse.is_contiguous(), "other_lse is contiguous"
    assert lse.dtype == other_lse.dtype == torch.float32, "log-sum-exps are float32"
    assert first + num_other == num_tokens, "other holds the last tokens"
    num_rows = num_other * num_heads
    grid = (triton.cdiv(num_rows, _ROWS),)
    _merge[grid](
        out[first:], lse[:, first:], other, other_lse,
        num_rows, num_heads, num_tokens, num_other,
        WIDTH=width, COLUMNS=triton.next_power_of_2(width), ROWS=_ROWS,
    )  # fmt: skip


@triton.jit
def _merge(
    out,
    lse,
    other,
    other_lse,
    num_rows,
    num_heads,
    num_tokens,
    num_other,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    is_row = row < num_rows
    token, head = row // num_heads, row % num_heads
    mine = tl.load(lse + head * num_tokens + token, mask=is_row, other=0.0)
    theirs = tl.load(other_lse + head * num_other + token, mask=is_row, other=0.0)
    theirs = tl.where(tl.abs(theirs) == float("inf"), float("-inf"), theirs)
    largest = tl.maximum(mine, theirs)
    total = largest + tl.log(tl.exp(mine - largest) + tl.exp(theirs - largest))
    weight = tl.exp(theirs - total)
    places = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    inside = is_row[:, None] & (column < WIDTH)[None, :]
    a = tl.load(out + places, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(other + places, mask=inside, other=0.0).to(tl.float32)
    merged = a + (b - a) * weight[:, None]
    tl.store(out + places, merged.to(out.dtype.element_ty), mask=inside)
    tl.store(lse + head * num_tokens + token, total, mask=is_row)
