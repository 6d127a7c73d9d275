"""Device memory that can be given back and taken again at the same address.

A captured CUDA graph holds the addresses of the tensors that it reads. So that keys and values can
lend their memory to the trainer between two rollouts, their range of addresses is reserved once,
and physical memory is mapped into it while it is needed (CUDA's virtual memory management, through
`cuda.bindings`, which torch's CUDA 13 packages bring along).
"""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import UserError

CHUNK_BYTES = 2**30
"""Physical memory is mapped in pieces: one large piece may not be had where many small ones are."""


class FixedBuffer:
    """A tensor whose memory comes and goes while its address stays.

    Example: buffer = FixedBuffer.make(shape, dtype, device); buffer.give_back(); buffer.take().
    Between the two calls `tensor` must not be used. What it held is lost.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        """Raises UserError with the bytes where the device has no memory for it."""
        self._span = _Span(math.prod(shape) * dtype.itemsize, device)
        self._span.take()
        flat = torch.as_tensor(self._span, device=self._span.device)
        used = math.prod(shape) * dtype.itemsize
        self.tensor: Tensor = flat[:used].view(dtype).view(shape)

    @staticmethod
    def make(
        shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> FixedBuffer | None:
        """A buffer with its memory; None where the device or `cuda.bindings` cannot do it."""
        return FixedBuffer(shape, dtype, device) if can_give_back(device) else None

    @property
    def is_mapped(self) -> bool:
        """Whether there is memory behind the address."""
        return bool(self._span.chunks)

    def give_back(self) -> None:
        """Frees the memory for others once the device has done what was asked of it."""
        self._span.give_back()

    def take(self) -> None:
        """Maps memory again, with arbitrary content. Raises UserError where there is too little."""
        self._span.take()


def can_give_back(device: torch.device) -> bool:
    """Whether this device and this installation can map memory at fixed addresses."""
    if device.type != "cuda" or not _has_bindings():
        return False
    driver = _driver()
    asked = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
    status, supported = driver.cuDeviceGetAttribute(asked, _index(device))
    return status == driver.CUresult.CUDA_SUCCESS and bool(supported)


class _Span:
    """A reserved range of addresses. The tensors made of it keep it alive."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self.device = torch.device("cuda", _index(device))
        self.chunks: list[tuple[int, int, Any]] = []
        """(address, bytes, physical memory) of what is mapped."""
        torch.cuda.current_stream(self.device).synchronize()  # the device's context is there now
        self.driver = _driver()
        self._where = self._location()
        grain = int(
            self._call(
                "cuMemGetAllocationGranularity",
                self._where,
                self.driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_RECOMMENDED,
            )
        )
        self.num_bytes = max(-(-num_bytes // grain), 1) * grain
        self._chunk = max(CHUNK_BYTES // grain, 1) * grain
        self.address = int(self._call("cuMemAddressReserve", self.num_bytes, 0, 0, 0))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (self.num_bytes,),
            "typestr": "|u1",
            "data": (self.address, False),
            "strides": None,
            "version": 2,
        }

    def take(self) -> None:
        if self.chunks:
            return
        if not self._map_all():
            # torch holds freed memory for itself: it goes back before this fails.
            torch.cuda.empty_cache()
            if not self._map_all():
                free = torch.cuda.mem_get_info(self.device)[0]
                raise UserError(
                    f"keys and values need {self.num_bytes / 2**30:.2f} GiB, "
                    f"{free / 2**30:.2f} GiB are free: lower rollout.slots"
                )

    def give_back(self) -> None:
        if self.chunks:
            # Unmapping waits for nothing: what still runs must not lose its memory.
            torch.cuda.synchronize(self.device)
        while self.chunks:
            address, size, handle = self.chunks.pop()
            self._call("cuMemUnmap", address, size)
            self._call("cuMemRelease", handle)

    def _map_all(self) -> bool:
        """Maps the whole range, or nothing where the memory runs out."""
        access = self.driver.CUmemAccessDesc()
        access.location.type = self._where.location.type
        access.location.id = self._where.location.id
        access.flags = self.driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        with torch.cuda.device(self.device):
            for start in range(0, self.num_bytes, self._chunk):
                size = min(self._chunk, self.num_bytes - start)
                status, handle = self.driver.cuMemCreate(size, self._where, 0)
                if status == self.driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                    self.give_back()
                    return False
                self._expect("cuMemCreate", status)
                address = self.address + start
                self._call("cuMemMap", address, size, 0, handle, 0)
                self.chunks.append((address, size, handle))
                self._call("cuMemSetAccess", address, size, [access], 1)
        return True

    def _location(self) -> Any:
        where = self.driver.CUmemAllocationProp()
        where.type = self.driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        where.location.type = self.driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        where.location.id = self.device.index
        return where

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self.driver, name)(*arguments)
        self._expect(name, status)
        return values[0] if values else None

    def _expect(self, name: str, status: Any) -> None:
        if status != self.driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{name}: {status.name}")

    def __del__(self) -> None:
        # At the end of the process the driver takes everything back, and may be gone already.
        if hasattr(self, "address") and not sys.is_finalizing():
            self.give_back()
            self._call("cuMemAddressFree", self.address, self.num_bytes)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _has_bindings() -> bool:
    return (
        importlib.util.find_spec("cuda") is not None
        and importlib.util.find_spec("cuda.bindings") is not None
    )


def _driver() -> Any:
    from cuda.bindings import driver

    return driver
