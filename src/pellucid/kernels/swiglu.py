"""SwiGLU, silu(gate) · up, in one pass each way; the backward pass recomputes what it needs.

Computed in float32 and rounded once, to the input's dtype.

Shapes: T tokens, F feed-forward width.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.room import empty_with_room

BLOCK = 1024
"""Columns of a program: 8 a thread, one 16-byte load of bfloat16."""


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up: [T, F] of gate_up [T, 2F] (gate first), in its dtype."""
    if gate_up.requires_grad and torch.is_grad_enabled():
        return _SwiGLU.apply(gate_up)
    return _forward(gate_up, **pdl(gate_up.device))


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up):
        ctx.save_for_backward(gate_up)
        return _forward(gate_up)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        (gate_up,) = ctx.saved_tensors
        gate_up = gate_up.contiguous()
        d_gate_up = torch.empty_like(gate_up)
        width = gate_up.shape[1] // 2
        if gate_up.numel():
            grid = (gate_up.shape[0], triton.cdiv(width, BLOCK))
            _backward_kernel[grid](gate_up, d_out.contiguous(), d_gate_up, F=width, BLOCK=BLOCK)
        return d_gate_up


def _forward(gate_up: Tensor, **launch: Any) -> Tensor:
    num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = empty_with_room(num_rows, width, gate_up.dtype, gate_up.device)
    if out.numel():
        grid = (num_rows, triton.cdiv(width, BLOCK))
        _forward_kernel[grid](gate_up.contiguous(), out, F=width, BLOCK=BLOCK, **launch)
    return out


@triton.jit
def _forward_kernel(
    gate_up, out, F: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr = False
):  # fmt: skip
    if PDL:
        take_turn()
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < F
    gate = tl.load(gate_up + row * (2 * F) + cols, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * F) + F + cols, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(out + row * F + cols, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(gate_up, d_out, d_gate_up, F: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < F
    gate = tl.load(gate_up + row * (2 * F) + cols, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * F) + F + cols, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(d_out + row * F + cols, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    d_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    d_up = grad * gate * sigmoid
    dtype = d_gate_up.dtype.element_ty
    tl.store(d_gate_up + row * (2 * F) + cols, d_gate.to(dtype), mask=inside)
    tl.store(d_gate_up + row * (2 * F) + F + cols, d_up.to(dtype), mask=inside)
