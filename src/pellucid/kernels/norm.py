"""Residual addition and RMSNorm in one pass, with its gradient.

The residual stream is float32; the norm computes in float32 and rounds once, to the weight's dtype.
One program owns one row, so a row's bits never depend on its neighbours or their number.

Shapes: T tokens, D width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.room import empty_with_room

PARTIAL_ROWS = 1024
"""Most programs of the backward pass; each owns one partial sum of the weight's gradient."""


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + delta, its RMSNorm times weight): float32 [T, D] and [T, D] in weight's dtype.

    x is float32 [T, D], delta [T, D] of any float dtype or None (the sum is then x itself), weight
    [D]. Gradients reach x, delta and weight; either output may go unused.
    """
    assert x.dtype == torch.float32, f"the residual stream is float32, not {x.dtype}"
    needs_grad = x.requires_grad or weight.requires_grad
    needs_grad |= delta is not None and delta.requires_grad
    if needs_grad and torch.is_grad_enabled():
        return _AddNorm.apply(x, delta, weight, eps)
    return _forward(x, delta, weight, eps, rstd=None)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, delta, weight, eps):
        rstd = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
        total, normed = _forward(x, delta, weight, eps, rstd)
        ctx.save_for_backward(total, rstd, weight)
        ctx.delta_dtype = None if delta is None else delta.dtype
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx, d_total, d_normed):
        if d_normed is None:
            has_delta = d_total is not None and ctx.delta_dtype is not None
            return d_total, d_total.to(ctx.delta_dtype) if has_delta else None, None, None
        total, rstd, weight = ctx.saved_tensors
        dx, d_weight = _backward(d_total, d_normed, total, rstd, weight, ctx.delta_dtype)
        d_delta = dx[1] if ctx.delta_dtype is not None else None
        return dx[0], d_delta, d_weight, None


def _forward(
    x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, rstd: Tensor | None
) -> tuple[Tensor, Tensor]:
    num_rows, width = x.shape
    rows = x.contiguous()
    total = x if delta is None else torch.empty_like(rows)
    normed = empty_with_room(num_rows, width, weight.dtype, x.device)
    if num_rows:
        added = rows if delta is None else delta.contiguous()
        _forward_kernel[(num_rows,)](
            rows, added, weight, total, normed, normed if rstd is None else rstd, eps,
            D=width, BLOCK=triton.next_power_of_2(width),
            HAS_DELTA=delta is not None, HAS_RSTD=rstd is not None,
            num_warps=_warps(width), **(pdl(x.device) if rstd is None else {}),
        )  # fmt: skip
    return total, normed


def _backward(
    d_total: Tensor | None,
    d_normed: Tensor,
    total: Tensor,
    rstd: Tensor,
    weight: Tensor,
    delta_dtype: torch.dtype | None,
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """((gradient of x, of delta), of weight)."""
    num_rows, width = total.shape
    dx = torch.empty(num_rows, width, dtype=torch.float32, device=total.device)
    is_twice = delta_dtype not in (None, torch.float32)
    d_delta = torch.empty_like(dx, dtype=delta_dtype) if is_twice else dx
    if not num_rows:
        return (dx, d_delta), torch.zeros_like(weight)
    programs = min(num_rows, PARTIAL_ROWS)
    partial = torch.empty(programs, width, dtype=torch.float32, device=total.device)
    d_normed = d_normed.contiguous()
    _backward_kernel[(programs,)](
        d_normed if d_total is None else d_total.contiguous(), d_normed,
        total.contiguous(), rstd, weight, dx, d_delta, partial, num_rows,
        D=width, BLOCK=triton.next_power_of_2(width),
        HAS_D_TOTAL=d_total is not None, HAS_D_DELTA=is_twice,
        num_warps=_warps(width),
    )  # fmt: skip
    return (dx, d_delta), partial.sum(0).to(weight.dtype)


def _warps(width: int) -> int:
    """8 to 16 elements a thread; a function of the width alone, as it orders the row's sum."""
    return min(max(triton.next_power_of_2(width) // 256, 1), 16)


@triton.jit
def _forward_kernel(
    x, delta, weight, total, normed, rstd, eps,
    D: tl.constexpr, BLOCK: tl.constexpr, HAS_DELTA: tl.constexpr, HAS_RSTD: tl.constexpr,
    PDL: tl.constexpr = False,
):  # fmt: skip
    if PDL:
        take_turn()
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < D
    gain = tl.load(weight + cols, mask=inside, other=0.0).to(tl.float32)  # under way with the row
    value = tl.load(x + row * D + cols, mask=inside, other=0.0)
    if HAS_DELTA:
        value += tl.load(delta + row * D + cols, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + row * D + cols, value, mask=inside)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / D + eps)
    result = (value * scale * gain).to(normed.dtype.element_ty)
    tl.store(normed + row * D + cols, result, mask=inside)
    if HAS_RSTD:
        tl.store(rstd + row, scale)


@triton.jit(do_not_specialize=["num_rows"])
def _backward_kernel(
    d_total, d_normed, total, rstd, weight, dx, d_delta, partial, num_rows,
    D: tl.constexpr, BLOCK: tl.constexpr, HAS_D_TOTAL: tl.constexpr, HAS_D_DELTA: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    inside = cols < D
    gain = tl.load(weight + cols, mask=inside, other=0.0).to(tl.float32)
    d_gain = tl.zeros([BLOCK], tl.float32)
    for index in range(program, num_rows, tl.num_programs(0)):
        row = tl.cast(index, tl.int64)
        scale = tl.load(rstd + row)
        unit = tl.load(total + row * D + cols, mask=inside, other=0.0) * scale
        d_out = tl.load(d_normed + row * D + cols, mask=inside, other=0.0).to(tl.float32)
        d_gain += d_out * unit
        d_unit = d_out * gain
        grad = (d_unit - unit * (tl.sum(d_unit * unit, axis=0) / D)) * scale
        if HAS_D_TOTAL:
            grad += tl.load(d_total + row * D + cols, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + row * D + cols, grad, mask=inside)
        if HAS_D_DELTA:
            tl.store(d_delta + row * D + cols, grad.to(d_delta.dtype.element_ty), mask=inside)
    tl.store(partial + program.to(tl.int64) * D + cols, d_gain, mask=inside)
