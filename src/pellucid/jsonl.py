"""Append-only files of JSON records that survive `kill -9`: plain lines, and zstd frames of lines.

A record reaches the operating system before `append` returns. A writer killed in the middle of one
leaves a torn tail; the next writer cuts it off and says how many bytes that were (`cut_bytes`).
Readers skip a torn tail (someone may be writing) and raise RunError for damage anywhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import zstandard

from pellucid.artifacts import canonical_json, writing
from pellucid.errors import RunError

_CHUNK_BYTES = 1 << 20
_ZSTD_LEVEL = 6
"""About 5 times smaller than plain rollouts at over 100 MB/s: never the bottleneck."""


class _Appender:
    """A file that only grows, by whole blobs, and can be cut back to an earlier length."""

    def __init__(self, path: Path, *, whole_bytes: int) -> None:
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self.offset = os.fstat(self._handle).st_size
            """Bytes in the file: what a checkpoint records, to be given to `truncate` on resume."""
        self.cut_bytes = self.offset - whole_bytes
        """Bytes cut on opening: a torn tail, or all after `at`. 0: there was nothing to cut."""
        if self.cut_bytes:
            self.truncate(whole_bytes)

    def _append_blob(self, blob: bytes) -> None:
        with writing(self.path):
            try:
                rest = memoryview(blob)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
            except OSError:
                # A full disk leaves no half record; if even this fails, the next opening cuts it.
                with suppress(OSError):
                    os.ftruncate(self._handle, self.offset)
                raise
        self.offset += len(blob)

    def truncate(self, offset: int) -> None:
        """Cut the file back to `offset` bytes. Raises RunError where it is shorter than that."""
        if offset > self.offset:
            raise RunError(
                f"{self.path} has {self.offset} bytes but its checkpoint knows of {offset}: someone"
                " shortened it; restore it, or start afresh with another --out"
            )
        with writing(self.path):
            os.ftruncate(self._handle, offset)
            os.fsync(self._handle)
        self.offset = offset

    def sync(self) -> None:
        """Make all records survive a power cut. Call it before a checkpoint records `offset`."""
        with writing(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Sync and close; further calls do nothing."""
        if self._handle >= 0:
            self.sync()
            os.close(self._handle)
            self._handle = -1

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JsonlWriter(_Appender):
    """One canonical JSON record a line."""

    def __init__(self, path: Path, *, at: int | None = None) -> None:
        """`at`: a checkpoint's offset, all after it is cut. None: end of the last whole line."""
        super().__init__(path, whole_bytes=_whole_lines_bytes(path) if at is None else at)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record. NaN is refused (ValueError); a disk that refuses raises RunError."""
        self._append_blob(canonical_json(record) + b"\n")

    def truncate_after(self, step: int) -> int:
        """Drop the first record whose `step` is greater than `step`, and all that follow it.

        Returns the step of the last record kept, -1 where none is. Raises RunError naming a
        damaged line before it.
        """
        offset, last = 0, -1
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                here = _parsed(line, self.path, number).get("step", -1)
                if here > step:
                    break
                offset, last = offset + len(line), here
        self.truncate(offset)
        return last


class ZstdJsonlWriter(_Appender):
    """One zstd frame, with checksum, per call of `append_all`; `zstd -d` reads the file."""

    def __init__(self, path: Path, *, at: int | None = None) -> None:
        """`at`: offset from a checkpoint, all after it is cut. None: the end of the last frame."""
        super().__init__(path, whole_bytes=_whole_frames_bytes(path) if at is None else at)

    def append_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the records of one step as one frame: all of them arrive, or none."""
        lines = b"".join(canonical_json(record) + b"\n" for record in records)
        if lines:
            compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
            self._append_blob(compressor.compress(lines))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSONL file, without a torn last line. Raises RunError naming a damaged line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield _parsed(line, path, number)


def _parsed(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        raise RunError(f"{path} line {number} is damaged: it is not JSON") from None


def read_zstd_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a file of zstd frames; a torn last frame is skipped. Raises RunError on damage."""
    for _, data in _frames(path):
        for line in data.splitlines():
            yield json.loads(line)


def _whole_lines_bytes(path: Path) -> int:
    """Bytes up to the end of the last line that is complete. Only the tail is read."""
    if not path.exists():
        return 0
    with writing(path), path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _CHUNK_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _whole_frames_bytes(path: Path) -> int:
    """Bytes up to the end of the last frame that is complete."""
    if not path.exists():
        return 0
    return max((end for end, _ in _frames(path)), default=0)


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset of the frame's end, its content) for each complete frame; one in memory at a time."""
    consumed, pending = 0, b""
    with writing(path), path.open("rb") as file:
        while True:
            frame = zstandard.ZstdDecompressor().decompressobj()
            content = []
            while not frame.eof:
                chunk = pending or file.read(_CHUNK_BYTES)
                if not chunk:
                    return  # the end of the file, or a torn frame
                try:
                    content.append(frame.decompress(chunk))
                except zstandard.ZstdError as error:
                    raise RunError(
                        f"{path} is damaged after byte {consumed} ({error}): restore it, or start"
                        " afresh with another --out"
                    ) from None
                consumed += len(chunk)
                pending = b""
            pending = frame.unused_data
            consumed -= len(pending)
            yield consumed, b"".join(content)
