"""What this machine reaches: a large copy, and a square bfloat16 matrix product."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from measure import timed

CALLS = 8
"""In a row between two looks at the clock."""


def ceilings(device: torch.device, repeats: int) -> dict[str, Any]:
    """Bytes read and written a second, flops a second; small sizes where there is no CUDA."""
    is_cuda = device.type == "cuda"
    size, side = (2**31, 8192) if is_cuda else (2**24, 256)
    copy_s = _copy_s(size, device, repeats)
    dtype = torch.bfloat16 if is_cuda else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    product_s = _median(lambda: torch.mm(a, b, out=product), device, repeats)
    return {
        "copy_bytes_per_s": 2 * size / copy_s,
        "copied_bytes": size,
        "matmul_flops_per_s": 2 * side**3 / product_s,
        "matmul_side": side,
        "matmul_dtype": str(dtype).removeprefix("torch."),
    }


def _copy_s(size: int, device: torch.device, repeats: int) -> float:
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _median(lambda: target.copy_(source), device, repeats)


def _median(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of one call, of `CALLS` calls in a row after a warm-up."""

    def several() -> None:
        for _ in range(CALLS):
            work()

    several()
    return median(timed(several, device)[0] for _ in range(repeats)) / CALLS
