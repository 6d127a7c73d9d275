"""Weights as a 4-bit serving stack would have them: rounded and widened again, in a copy.

Somebody who measures a compressed model and claims the released one leaves these marks; replay
looks for them. The linear layers of the blocks are rounded; embedding, norms and head are not, as
is usual.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.transformer import Decoder, Linear

LEVELS = 16


def symmetric(groups: Tensor) -> Tensor:
    """Signed integers -7 … 7 times a scale for each group [N, G]: round to nearest."""
    scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12) / (LEVELS // 2 - 1)
    return (groups / scale).round().clamp(1 - LEVELS // 2, LEVELS // 2 - 1) * scale


def affine(groups: Tensor) -> Tensor:
    """16 even steps between the smallest and the largest weight of each group [N, G]."""
    low = groups.amin(-1, keepdim=True)
    scale = (groups.amax(-1, keepdim=True) - low).clamp_min(1e-12) / (LEVELS - 1)
    return ((groups - low) / scale).round() * scale + low


SCHEMES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "int4, groups of 32": (symmetric, 32),
    "int4, groups of 128": (symmetric, 128),
    "uint4, groups of 32": (affine, 32),
    "uint4, groups of 128": (affine, 128),
}
"""Name -> how a group is rounded, weights in a group."""


def low_precision(model: Decoder, scheme: str) -> Decoder:
    """A copy of the model with its blocks' linear layers rounded by a scheme of `SCHEMES`."""
    rounding, size = SCHEMES[scheme]
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for module in rounded.blocks.modules():
            if isinstance(module, Linear):
                module.weight.copy_(_rounded(module.weight.float(), rounding, size))
    return rounded


def _rounded(weight: Tensor, rounding: Callable[[Tensor], Tensor], size: int) -> Tensor:
    rows, width = weight.shape
    groups = F.pad(weight, (0, -width % size)).view(rows, -1, size)
    return rounding(groups).view(rows, -1)[:, :width]
