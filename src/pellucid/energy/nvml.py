"""NVIDIA's total-energy counter of each GPU, through the driver's own library.

`nvidia-smi` and polling of power see a fraction of the time (arXiv 2312.02741); the counter adds up
inside the device. Loaded with ctypes, so no package is needed; absent without an NVIDIA driver.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pellucid.energy.counters import CounterError, Source

LIBRARY = "libnvidia-ml.so.1"
ERROR_FRAC = 0.05
"""An allowance: the error of the power readings that the counter adds up (arXiv 2312.02741)."""
_UUID_BYTES = 96


class NvmlError(CounterError):
    """A call that the driver answered with an error code."""


class Nvml(Protocol):
    """What is needed of the driver, by index of the device."""

    def count(self) -> int: ...
    def uuid(self, index: int) -> str: ...
    def energy_mj(self, index: int) -> int: ...
    def power_limit_mw(self, index: int) -> int: ...


class NvmlLibrary:
    """`libnvidia-ml`. Raises NvmlError where a call fails, OSError where there is no library."""

    def __init__(self, name: str = LIBRARY) -> None:
        self._library = ctypes.CDLL(name)
        self._call("nvmlInit_v2")

    def count(self) -> int:
        """Devices that this process may see."""
        number = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(number))
        return number.value

    def uuid(self, index: int) -> str:
        """`GPU-…`"""
        text = ctypes.create_string_buffer(_UUID_BYTES)
        self._call("nvmlDeviceGetUUID", self._handle(index), text, ctypes.c_uint(_UUID_BYTES))
        return text.value.decode()

    def energy_mj(self, index: int) -> int:
        """Millijoules since the driver was loaded."""
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle(index), ctypes.byref(value))
        return value.value

    def power_limit_mw(self, index: int) -> int:
        """Milliwatts that the device is held to."""
        value = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerManagementLimit", self._handle(index), ctypes.byref(value))
        return value.value

    def _handle(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise NvmlError(f"{name} gave error {code}")


def load_nvml() -> Nvml | None:
    """The driver's library; None where there is none, or it does not answer."""
    try:
        return NvmlLibrary()
    except (OSError, AttributeError, NvmlError):
        return None


@dataclass
class NvmlCounter:
    """The counter of one device."""

    component: str
    nvml: Nvml
    index: int
    source: Source = Source.NVML
    error_frac: float = ERROR_FRAC
    range_joules: float | None = None
    """64 bits of millijoules never wrap round."""

    def read(self) -> float:
        """Joules. Raises CounterError."""
        return self.nvml.energy_mj(self.index) / 1e3

    def limit_w(self) -> float | None:
        """Watts that the device is held to; None where the driver does not say."""
        try:
            return self.nvml.power_limit_mw(self.index) / 1e3
        except CounterError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A device that the run computes on. Example: Gpu(uuid="GPU-1b2c…", name="NVIDIA H200")"""

    uuid: str
    """As the driver writes it, with or without `GPU-`."""
    name: str


def nvml_counters(gpus: Sequence[Gpu], nvml: Nvml | None) -> dict[str, NvmlCounter]:
    """Component (`gpu0`, …, in the order of `gpus`) -> its counter, for devices that have one.

    The others' share of a run is estimated: they are never left out.
    """
    if nvml is None:
        return {}
    indices: dict[str, int] = {}
    for index in range(nvml.count()):
        indices[_bare(nvml.uuid(index))] = index
    found = {}
    for number, gpu in enumerate(gpus):
        index = indices.get(_bare(gpu.uuid))
        if index is None:
            continue
        counter = NvmlCounter(f"gpu{number}", nvml, index)
        try:
            counter.read()
        except CounterError:
            continue  # older than Volta, or a slice of a device: the estimate says so
        found[counter.component] = counter
    return found


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-").lower()
