"""What is drawn where nothing can be read: a model, always with its bounds and its label.

Wrong by a factor of two either way, and said so: an estimate is better than a silent zero, and no
better than that.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from typing import NamedTuple

from pellucid.energy.counters import Source

CORE_W = (3.0, 8.0, 15.0)
"""Watts of one busy core with its share of the package: a dense server, usual, a desktop."""
MEMORY_W_PER_GIB = (0.1, 0.3, 0.5)
"""Watts per GiB in use."""
GPU_SHARE = (0.1, 0.6, 1.0)
"""Of the board's power limit: idle, usual in training and sampling, never above."""
DEFAULT_GPU_W = 400.0
BOARD_W = {
    "B200": 1000.0,
    "H200": 700.0,
    "H100 PCIe": 350.0,
    "H100": 700.0,
    "A100": 400.0,
    "L40S": 350.0,
    "RTX 4090": 450.0,
    "V100": 300.0,
    "T4": 70.0,
}
"""Board power limits of the makers' data sheets, the most specific name first."""


class Part(NamedTuple):
    """The energy of one component in a window."""

    component: str
    source: Source
    joules: float
    low: float
    high: float


def board_watts(name: str) -> float:
    """The power limit of a board, by its name."""
    return next((watts for key, watts in BOARD_W.items() if key in name), DEFAULT_GPU_W)


def gpu_estimate(component: str, seconds: float, limit_w: float) -> Part:
    """A device for which no counter can be read."""
    low, usual, high = (share * limit_w * seconds for share in GPU_SHARE)
    return Part(component, Source.ESTIMATE, usual, low, high)


def cpu_estimate(core_seconds: float) -> Part:
    """The processor, from the time that this process and its ended children kept cores busy."""
    low, usual, high = (watts * core_seconds for watts in CORE_W)
    return Part("cpu", Source.ESTIMATE, usual, low, high)


def memory_estimate(seconds: float, gib: float) -> Part:
    """The memory in use."""
    low, usual, high = (watts * gib * seconds for watts in MEMORY_W_PER_GIB)
    return Part("dram", Source.ESTIMATE, usual, low, high)


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process has used so far."""

    core_seconds: float
    peak_gib: float


def usage_now() -> Usage:
    """Processor time with that of children that have ended, and the largest memory so far."""
    times = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(
        times.user + times.system + times.children_user + times.children_system,
        peak * unit / 2**30,
    )
