"""Products of narrow matrices, kept or added up in float32, by the device's library.

Adding gradients of many packs in bfloat16 would lose them; a product that adds to a float32 sum
rounds nothing on the way, and saves writing, reading and adding a narrow gradient.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def float32_product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b, accumulated and returned in float32 where the operands are narrower; float64 stays."""
    if a.dtype in (torch.float32, torch.float64):
        return torch.mm(a, b, out=out)
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32, out=out)
    return torch.mm(a.float(), b.float(), out=out)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in place, without rounding the product to a narrower type first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.device.type == "cuda" and _adds_in_float32(a.device, a.dtype):
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.add_(float32_product(a, b))


@functools.cache
def _adds_in_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch lets a narrow product be added to a float32 matrix. Its first versions
    with `out_dtype` wanted all three operands alike.
    """
    total = torch.zeros(16, 16, device=device)
    operand = torch.zeros(16, 16, dtype=dtype, device=device)
    try:
        torch.addmm(total, operand, operand, out_dtype=torch.float32, out=total)
    except RuntimeError:
        return False
    return True
