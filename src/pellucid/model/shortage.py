"""Memory that could not be had: torch's paragraph in one line."""

from __future__ import annotations

import re

import torch

GIB = 2**30
_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")
_LEFT = re.compile(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")
_BYTES = re.compile(r"DefaultCPUAllocator: .*?tried to allocate (\d+) bytes", re.DOTALL)


def shortage(error: RuntimeError) -> str | None:
    """What was asked for and what is free, where memory is what an error of torch is about; None
    where it is about something else.

    Example: "the GPU has no memory for 2.00 GiB more, 1.24 GiB of 139.80 GiB are free"
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        asked, left = _ASKED.search(text), _LEFT.search(text)
        line = f"the GPU has no memory for {asked[1] if asked else 'what it was asked for'} more"
        return line + (f", {left[2]} of {left[1]} are free" if left else "")
    if found := _BYTES.search(text):
        return f"this machine has no memory for {int(found[1]) / GIB:.2f} GiB more"
    return None
