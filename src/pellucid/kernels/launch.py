"""Programmatic dependent launch: a kernel is set up while the one before it still runs.

A decoding step of few rows is a chain of some 260 small kernels; without this a graph leaves about
a microsecond between two of them. The contract of a kernel launched with `pdl(device)`, the same
in all files so that nothing depends on which kernel follows which:

- it calls `take_turn()` before it reads or writes anything in memory, in every program. That waits:
  until the kernel before has ended and what it wrote can be seen. As each kernel waits, all kernels
  before that one have ended too: a chain is as ordered as without PDL. Only what is known to be
  older than its predecessor may be read before, as `attention_step` does with a row's place;
- only then does it let the next one start: whatever starts early may rely on all but its immediate
  predecessor having ended.

Neither does harm to a launch without PDL, nor does a predecessor that knows nothing of it. A kernel
that joins two streams, or is the first on a stream that was forked, must not be launched early: it
takes `pdl(device, is_early=False)` and still lets its own successor start.

Source: PTX ISA, griddepcontrol; CUDA programming guide, "Programmatic Dependent Launch".
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import triton
import triton.language as tl

OLDEST_CAPABILITY = (9, 0)
"""Hopper: the first that has the instructions."""


def pdl(device: torch.device, *, is_early: bool = True) -> dict[str, Any]:
    """Keywords of a launch on `device`: the kernel's constant PDL, and whether to launch it early.

    PELLUCID_PDL=0 switches early launches off: for measurements, and for drivers before CUDA 12.3,
    which cannot capture them.
    """
    if not _has_pdl(device) or os.environ.get("PELLUCID_PDL") == "0":
        return {"PDL": False}
    return {"PDL": True, "launch_pdl": True} if is_early else {"PDL": True}


@functools.cache
def _has_pdl(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip or os.environ.get("TRITON_INTERPRET") == "1":
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST_CAPABILITY


@triton.jit
def take_turn():
    """What the contract asks for at the beginning of a kernel launched with PDL: waits until the
    kernel before has ended and its writes can be seen, then lets the next one start as far as there
    is room. Call it under `if PDL:`, as it exists on the device only."""
    tl.extra.cuda.gdc_wait()
    tl.extra.cuda.gdc_launch_dependents()
