"""May this device run the Triton kernels? Asked before any kernel file is imported.

Kernel files import triton at their top; this one does not, so that machines without triton, or
without what triton needs, take the plain path. PELLUCID_KERNELS=0 switches the kernels off, and
PELLUCID_KERNELS=interpret lets Triton's interpreter serve tensors of the CPU (slow: for tests).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os

import torch

log = logging.getLogger(__name__)

OLDEST_CAPABILITY = (8, 0)
"""Ampere: the first with bfloat16 in its tensor cores."""
HOPPER = (9, 0)


def triton_ready(device: torch.device, *, can_interpret: bool = False) -> bool:
    """Whether kernels can serve tensors of `device`; never raises.

    For a CUDA device that cannot, one line of the log says why, once. For the CPU the answer is
    no, unless TRITON_INTERPRET=1 and `can_interpret` (or PELLUCID_KERNELS=interpret) asks for it.
    """
    device = _numbered(torch.device(device))
    switch = os.environ.get("PELLUCID_KERNELS", "")
    if device.type == "cuda":
        return _cuda_ready(device, switch)
    is_asked = switch != "0" and (can_interpret or switch == "interpret")
    return is_asked and os.environ.get("TRITON_INTERPRET") == "1" and _has_triton()


def hopper_ready(device: torch.device) -> bool:
    """Whether kernels may use what came with capability 9.0: copies by tensor descriptors. Of an
    older CUDA device one line of the log says so, once.
    """
    device = _numbered(torch.device(device))
    if not triton_ready(device):
        return False
    return device.type != "cuda" or _is_hopper(device)


def _numbered(device: torch.device) -> torch.device:
    """A bare "cuda" with the number of the device that it is now: it may be another one later, and
    answers are remembered by device."""
    if device.type != "cuda" or device.index is not None:
        return device
    try:
        return torch.device("cuda", torch.cuda.current_device())
    except (AssertionError, RuntimeError):
        return device  # that there is none is said with the other obstacles


@functools.cache
def _is_hopper(device: torch.device) -> bool:
    capability = torch.cuda.get_device_capability(device)
    if capability < HOPPER:
        log.warning(
            "%s: the host leads decoding, slower and not exact: capability %d.%d is below 9.0",
            device,
            *capability,
        )
    return capability >= HOPPER


@functools.cache
def _cuda_ready(device: torch.device, switch: str) -> bool:
    obstacle = "PELLUCID_KERNELS=0 switched them off" if switch == "0" else _obstacle(device)
    if obstacle:
        log.warning("%s runs without Triton kernels, slower: %s", device, obstacle)
    return not obstacle


def _obstacle(device: torch.device) -> str:
    if not _has_triton():
        return "triton is not installed (pip install triton)"
    try:
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_CAPABILITY:
            return f"capability {capability[0]}.{capability[1]} is below 8.0"
        return _trial(device)
    # Compilers, drivers and Python headers fail in many ways; all of them leave the plain path.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().splitlines()
        return f"{type(error).__name__}: {reason[0] if reason else 'no reason given'}"


def _trial(device: torch.device) -> str:
    """Compiles and runs one small kernel; what is wrong with its answer, or nothing."""
    from pellucid.kernels.swiglu import swiglu

    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        answer = swiglu(torch.tensor([[1.0, 2.0]], device=device)).item()
    expected = 1.4621171  # 2 · silu(1)
    return "" if abs(answer - expected) < 1e-5 else f"a trial kernel gave {answer}, not {expected}"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
