"""Reads the GGUF container: metadata, tensor table, tensors dequantised a block of rows at a time.

The table is parsed here rather than by `gguf.GGUFReader`, which is some 50 times slower on a large
vocabulary and fails anywhere in a cut-off file; the arithmetic of the quantised types is the `gguf`
package's. Little-endian files of version 2 and 3.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quant
from torch import Tensor

from pellucid.errors import ModelError

SUPPORTED_TYPES = (
    Quant.F32,
    Quant.F16,
    Quant.BF16,
    Quant.Q4_0,
    Quant.Q4_1,
    Quant.Q5_0,
    Quant.Q5_1,
    Quant.Q8_0,
    Quant.Q4_K,
    Quant.Q5_K,
    Quant.Q6_K,
)
BLOCK_ELEMENTS = 1 << 22
"""Elements dequantised at once: 16 MB of float32."""
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One line of the tensor table. Example: name `blk.0.attn_q.weight`, shape (576, 576)."""

    name: str
    shape: tuple[int, ...]
    """Rows first, as in torch (the file stores the reverse)."""
    type: Quant
    start: int
    """First byte in the file."""
    row_bytes: int
    """Bytes of one row, the last axis."""

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])


class GgufFile:
    """An open GGUF file. Tensors stay on disk until they are read.

    Example: GgufFile(path).metadata["general.architecture"] == "llama"
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelError where the file is no GGUF, cut off, or has unsupported tensor types."""
        self.path = path
        try:
            with path.open("rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as a GGUF file: {error}") from error
        try:
            self.metadata, self.tensors = self._parse(_Cursor(self._bytes))
        except (
            struct.error,
            ValueError,
            TypeError,
            KeyError,
            OverflowError,
            RecursionError,
        ) as error:
            raise self._damaged("its header is cut off or garbled") from error

    def read(self, name: str, dtype: torch.dtype, row_order: np.ndarray | None = None) -> Tensor:
        """A tensor dequantised to `dtype`, its rows (a vector's elements) in `row_order`."""
        entry = self.tensors[name]
        if len(entry.shape) == 1 and row_order is not None:
            return self.read(name, dtype)[torch.from_numpy(row_order)]
        size = entry.rows * entry.row_bytes
        raw = np.frombuffer(self._bytes, np.uint8, size, entry.start)
        raw = raw.reshape(entry.rows, entry.row_bytes)
        out = torch.empty(entry.rows, entry.shape[-1], dtype=dtype)
        step = max(1, BLOCK_ELEMENTS // entry.shape[-1])
        for start in range(0, entry.rows, step):
            rows = slice(start, start + step)
            block = raw[rows] if row_order is None else raw[row_order[rows]]
            out[rows] = torch.from_numpy(_dequantised(block, entry.type))
        return out.view(entry.shape)

    def _parse(self, cursor: _Cursor) -> tuple[dict[str, Any], dict[str, TensorEntry]]:
        if cursor.take("4s") != b"GGUF":
            raise ModelError(f"{self.path} is not a GGUF file")
        version = cursor.take("I")
        if version not in (2, 3):
            raise ModelError(f"{self.path}: GGUF version {version} is not supported; 2 and 3 are")
        num_tensors, num_fields = cursor.take("Q"), cursor.take("Q")
        metadata = {}
        for _ in range(num_fields):
            key = cursor.text()
            metadata[key] = cursor.value(cursor.take("I"))
        raw = [self._raw_entry(cursor) for _ in range(num_tensors)]
        alignment = int(metadata.get("general.alignment", 32)) or 32
        data = -(-cursor.offset // alignment) * alignment
        tensors: dict[str, TensorEntry] = {}
        for name, dims, type_id, offset in raw:
            if name in tensors:
                raise self._damaged(f"tensor {name} occurs twice")
            tensors[name] = self._entry(name, dims, type_id, data + offset)
        return metadata, tensors

    @staticmethod
    def _raw_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
        name = cursor.text()
        dims = tuple(cursor.take("Q") for _ in range(cursor.take("I")))
        return name, dims, cursor.take("I"), cursor.take("Q")

    def _entry(self, name: str, dims: tuple[int, ...], type_id: int, start: int) -> TensorEntry:
        known = {int(t): t for t in SUPPORTED_TYPES}
        if type_id not in known:
            all_types = {int(t): t.name for t in Quant}
            names = ", ".join(t.name for t in SUPPORTED_TYPES)
            found = all_types.get(type_id, f"number {type_id}")
            raise ModelError(
                f"{self.path}: tensor {name} has type {found}, which is not supported; {names} are"
            )
        block, block_bytes = gguf.GGML_QUANT_SIZES[known[type_id]]
        if not dims or 0 in dims or dims[0] % block:
            raise self._damaged(f"tensor {name} has the impossible shape {list(dims)}")
        row_bytes = dims[0] // block * block_bytes
        end = start + row_bytes * math.prod(dims[1:])
        if end > len(self._bytes):
            raise self._damaged(f"tensor {name} ends at byte {end:,} of {len(self._bytes):,}")
        return TensorEntry(
            name=name, shape=dims[::-1], type=known[type_id], start=start, row_bytes=row_bytes
        )

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self.path} is damaged or cut off: {what}; fetch it again")


class _Cursor:
    """Reads values one after another; past the end it raises struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.offset = data, 0

    def take(self, code: str) -> Any:
        layout = "<" + code
        (value,) = struct.unpack_from(layout, self.data, self.offset)
        self.offset += struct.calcsize(layout)
        return value

    def text(self) -> str:
        size = self.take("Q")
        if size > len(self.data) - self.offset:
            raise struct.error("a string runs past the end of the file")
        value = self.data[self.offset : self.offset + size]
        self.offset += size
        return value.decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return list(self._array())
        return self.take(_SCALARS[kind])

    def _array(self) -> Iterator[Any]:
        kind, count = self.take("I"), self.take("Q")
        if kind in (_STRING, _ARRAY):
            for _ in range(count):
                yield self.value(kind)
            return
        layout = f"<{count}{_SCALARS[kind]}"
        values = struct.unpack_from(layout, self.data, self.offset)
        self.offset += struct.calcsize(layout)
        yield from values


def _dequantised(block: np.ndarray, kind: Quant) -> np.ndarray:
    """float32 values of rows of raw bytes."""
    if kind is Quant.F32:
        return block.view(np.float32).copy()
    if kind is Quant.F16:
        return block.view(np.float16).astype(np.float32)
    return gguf.quants.dequantize(block, kind)
