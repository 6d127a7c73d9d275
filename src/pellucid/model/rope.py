"""Rotary position embedding (arXiv 2104.09864) in transformers' half-split layout, with scalings.

Shapes: T tokens, H heads, J key/value heads, K head dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.model.ops import Ops, turn
from pellucid.model.spec import ModelSpec, RopeScaling


def rope_table(spec: ModelSpec, context: int, device: torch.device | str = "cpu") -> Tensor:
    """cos and sin for positions 0 … context-1, float32 [2, context, K/2]."""
    inverse, scale = _frequencies(spec)
    angles = torch.outer(torch.arange(context, dtype=torch.float32), inverse)
    return (torch.stack([angles.cos(), angles.sin()]) * scale).to(device)


class Rotation:
    """The rotations of a decoder, as handed to whoever attends."""

    def __init__(self, spec: ModelSpec, table: Tensor, ops: Ops) -> None:
        self.spec, self.table, self.ops = spec, table, ops

    def apply(self, heads: Tensor, positions: Tensor) -> Tensor:
        """Heads [T, H + 2J, K] with queries and keys rotated by their positions [T]."""
        num_rotated = self.spec.num_heads + self.spec.num_kv_heads
        return self.ops.rotate(heads, num_rotated, self.table, positions)

    def split(self, heads: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated q [T, H, K], rotated k [T, J, K] and v [T, J, K] of heads [T, H + 2J, K]."""
        sizes = (self.spec.num_heads, self.spec.num_kv_heads)
        if self.ops.is_fused:
            q, k, v = self.apply(heads, positions).split([*sizes, sizes[1]], dim=1)
            return q, k, v
        # Queries and keys together, values untouched: decoding a small model on a CPU is bound by
        # the number of such operations.
        qk, v = heads.split([sum(sizes), sizes[1]], dim=1)
        q, k = turn(qk, self.table, positions).split(sizes, dim=1)
        return q, k, v


def _frequencies(spec: ModelSpec) -> tuple[Tensor, float]:
    half = torch.arange(0, spec.head_dim, 2, dtype=torch.float32) / spec.head_dim
    inverse = 1.0 / spec.rope_theta**half
    scaling = spec.rope_scaling
    if scaling is None:
        return inverse, 1.0
    if scaling.kind == "linear":
        return inverse / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(inverse, scaling), 1.0
    return _yarn(inverse, spec, scaling)


def _llama3(inverse: Tensor, s: RopeScaling) -> Tensor:
    wavelength = 2 * math.pi / inverse
    longest = s.original_context / s.low_freq_factor
    shortest = s.original_context / s.high_freq_factor
    smooth = (s.original_context / wavelength - s.low_freq_factor) / (
        s.high_freq_factor - s.low_freq_factor
    )
    blended = (1 - smooth) * inverse / s.factor + smooth * inverse
    scaled = torch.where(wavelength > longest, inverse / s.factor, blended)
    return torch.where(wavelength < shortest, inverse, scaled)


def _yarn(inverse: Tensor, spec: ModelSpec, s: RopeScaling) -> tuple[Tensor, float]:
    def dimension(rotations: float) -> float:
        ratio = s.original_context / (rotations * 2 * math.pi)
        return spec.head_dim * math.log(ratio) / (2 * math.log(spec.rope_theta))

    low = max(math.floor(dimension(s.beta_fast)), 0)
    high = min(math.ceil(dimension(s.beta_slow)), spec.head_dim - 1)
    ramp = (torch.arange(spec.head_dim // 2, dtype=torch.float32) - low) / max(high - low, 1e-3)
    keep = 1 - ramp.clamp(0, 1)
    scale = s.attention_factor
    if scale is None:
        scale = 0.1 * math.log(s.factor) + 1.0 if s.factor > 1 else 1.0
    return inverse / s.factor * (1 - keep) + inverse * keep, scale
