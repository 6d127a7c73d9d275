"""What a device has left."""

from __future__ import annotations

import os

import torch

KV_MEMORY_FRAC = 0.85
"""Share of the free memory of a CUDA device that keys and values may take."""


def free_bytes(device: torch.device) -> int:
    """What can be allocated: the driver's free memory and what torch holds without using it."""
    if device.type != "cuda":  # the interpreter's small runs
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
