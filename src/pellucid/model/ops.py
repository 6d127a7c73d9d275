"""The decoder's primitives: in plain torch, or as fused kernels on CUDA.

All follow one contract, so that rollout and trainer round at the same places: the residual stream
is float32; normalisation, rotation and SwiGLU compute in float32 and round once, to the type of the
weights; matrix products take that type and accumulate float32.

Shapes: T tokens, D width, N heads of a fused projection, K head dimension, F feed-forward width.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.errors import UserError
from pellucid.kernels.available import hopper_ready, triton_ready


class Product(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor: ...


class AddNorm(Protocol):
    def __call__(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]: ...


class SwiGLU(Protocol):
    def __call__(self, gate_up: Tensor) -> Tensor: ...


class Rotate(Protocol):
    def __call__(
        self, heads: Tensor, num_rotated: int, table: Tensor, positions: Tensor
    ) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """One way to compute the primitives."""

    linear: Product
    """x [T, D], weight [N, D], bias [N] -> [T, N]."""
    add_norm: AddNorm
    """x float32 [T, D] and what is to be added to it -> their sum, and its RMS norm in the type of
    the weights."""
    swiglu: SwiGLU
    """[T, 2F] -> silu(first half) times second half, [T, F]."""
    rotate: Rotate
    """Rotates the first heads of [T, N, K] by the angles of their positions [T]; see `rope`."""
    is_fused: bool = False
    is_exact: bool = False
    """Bits of a row depend on that row alone, whatever else is computed beside it."""


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = x if delta is None else x + delta
    return total, F.rms_norm(total, weight.shape, weight.float(), eps).to(weight.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(gate_up.dtype)


def rotate(heads: Tensor, num_rotated: int, table: Tensor, positions: Tensor) -> Tensor:
    turned = turn(heads[:, :num_rotated], table, positions)
    return torch.cat([turned, heads[:, num_rotated:]], dim=1)


def turn(heads: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    """Rotates all heads [T, N, K], pairing each component of the first half with the second's."""
    cos, sin = table[:, positions].unsqueeze(2)
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(heads.dtype)


PLAIN = Ops(linear=F.linear, add_norm=add_norm, swiglu=swiglu, rotate=rotate)


@functools.cache
def select_ops(device: torch.device, *, exact: bool = False) -> Ops:
    """The fastest primitives that run on a device.

    Raises UserError if `exact` is asked for where the kernels it needs do not run.
    """
    if exact and not hopper_ready(device):
        raise UserError(
            "exact = true needs an NVIDIA GPU of capability 9.0 or newer on which Triton compiles "
            "kernels: set it to false"
        )
    if not triton_ready(device):
        return PLAIN
    from pellucid.kernels.matmul import fast_matmul, matmul
    from pellucid.kernels.norm import add_norm as fused_add_norm
    from pellucid.kernels.rope import rotate as fused_rotate
    from pellucid.kernels.swiglu import swiglu as fused_swiglu

    fastest = fast_matmul if hopper_ready(device) else F.linear
    return Ops(
        linear=matmul if exact else fastest,
        add_norm=fused_add_norm,
        swiglu=fused_swiglu,
        rotate=fused_rotate,
        is_fused=True,
        is_exact=exact,
    )
