"""Tars as a stranger packed them: plain, .gz, .bz2 or .xz; members by their place, never unpacked.

A compressed tar is unrolled into a nameless temporary file, in proportion to its size, and read
there. Known are the forms that tar programs write: ustar, pax and GNU's long names.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

BLOCK = 512
MAX_HEADER_BYTES = 1 << 16
"""Of a long name, or of what pax says of a member."""
MAX_RATIO = 250
"""Unpacked bytes per packed byte, beyond the first `FREE_BYTES`: more is a bomb."""
FREE_BYTES = 64 << 20
XZ_MEMORY = 256 << 20
"""What unpacking may take: `xz -9e` needs 65 MiB."""
_CHUNK = 1 << 20
_XZ, _GZIP, _BZIP2, _MAGIC = b"\xfd7zXZ\x00", b"\x1f\x8b", b"BZh", b"ustar"
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


class TarError(Exception):
    """What is no tar, damaged, or out of proportion: says why."""


class Member(NamedTuple):
    """Example: Member(name="dossier/claims.json", offset=1024, size=3500, is_file=True, …)"""

    name: str
    offset: int
    """Of its first byte in the tar."""
    size: int
    is_file: bool
    is_folder: bool


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar does, or as what tars are packed with."""
    try:
        with path.open("rb") as file:
            start = file.read(BLOCK) if path.is_file() else b""
    except OSError:
        return False
    return start.startswith((_XZ, _GZIP, _BZIP2)) or start[257:262] == _MAGIC


@contextmanager
def unrolled(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """The tar without its compression, to be read in any order. Raises TarError."""
    with path.open("rb") as packed, tempfile.TemporaryFile() as plain:
        start = packed.read(BLOCK)
        packed.seek(0)
        if start[257:262] == _MAGIC:
            yield packed
            return
        limit = min(max_bytes, FREE_BYTES + MAX_RATIO * path.stat().st_size)
        size = 0
        try:
            for chunk in _chunks(packed, start):
                size += len(chunk)
                if size > limit:
                    raise TarError(f"unpacks to more than {limit} bytes")
                plain.write(chunk)
        except _DAMAGE as error:
            raise TarError(str(error)[:120] or "it ends too early") from None
        plain.seek(0)
        yield cast(BinaryIO, plain)


def _chunks(packed: BinaryIO, start: bytes) -> Iterator[bytes]:
    if start.startswith(_XZ):
        yield from _xz_chunks(packed)
        return
    with gzip.open(packed) if start.startswith(_GZIP) else bz2.open(packed) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _xz_chunks(packed: BinaryIO) -> Iterator[bytes]:
    """`lzma.open` would take whatever memory the file asks for."""
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    while not reader.eof:
        data = packed.read(_CHUNK) if reader.needs_input else b""
        if reader.needs_input and not data:
            raise TarError("it ends too early")
        yield reader.decompress(data, _CHUNK)
    if reader.unused_data or packed.read(1):
        raise TarError("something follows its end")


def members_of(tar: BinaryIO, max_members: int) -> Iterator[Member]:
    """All members, in their order. Raises TarError."""
    end = tar.seek(0, io.SEEK_END)
    place, name, size = 0, "", -1
    """`name`, `size`: what a header before the member's own says of it."""
    for _ in range(max_members):
        header = _read(tar, place, BLOCK)
        if len(header) < BLOCK or not any(header):
            return
        kind, given = _checked(header), _number(header[124:136])
        place += BLOCK
        if kind in (b"x", b"L", b"K", b"g"):
            if given > MAX_HEADER_BYTES:
                raise TarError(f"a header of {given} bytes")
            about = _read(tar, place, given)
            if kind == b"x":
                said = _pax(about)
                name, size = said.get("path", name), int(said.get("size", size))
            elif kind == b"L":
                name = _text(about)
            place += _padded(given)
            continue
        given = given if size < 0 else size
        own = (name or _own_name(header)).removeprefix("./")
        if place + given > end:
            raise TarError(f"{ascii(own)[:60]} is cut off")
        is_folder = kind == b"5" or (kind in (b"0", b"\0") and own.endswith("/"))
        if own:
            yield Member(own, place, given, kind in (b"0", b"\0") and not is_folder, is_folder)
        place, name, size = place + _padded(given), "", -1
    raise TarError(f"more than {max_members} members")


def _read(tar: BinaryIO, place: int, size: int) -> bytes:
    tar.seek(place)
    return tar.read(size)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _checked(header: bytes) -> bytes:
    """The kind of a member whose header is whole."""
    if sum(header[:148]) + sum(header[156:]) + 8 * 32 != _number(header[148:156]):
        raise TarError("a header is damaged")
    return header[156:157]


def _number(field: bytes) -> int:
    """Octal digits, or as GNU writes what they cannot: big-endian behind 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.translate(None, b"01234567"):
        raise TarError("a header is damaged")
    return int(digits or b"0", 8)


def _own_name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        return f"{_text(header[345:500])}/{name}"
    return name


def _text(field: bytes) -> str:
    try:
        return field.partition(b"\0")[0].decode()
    except UnicodeDecodeError:
        raise TarError("a name that is not UTF-8") from None


def _pax(about: bytes) -> dict[str, str]:
    """`27 path=dossier/claims.json` and a newline, each with its own length in front."""
    said = {}
    while about:
        length, _, rest = about.partition(b" ")
        if not (length.isdigit() and len(length) < 7 and len(length) < int(length) <= len(about)):
            raise TarError("a header is damaged")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise TarError("a file with holes")
        if key in (b"path", b"size"):
            said[key.decode()] = _text(value)
        about = about[int(length) :]
    if not said.get("size", "0").isdecimal() or len(said.get("size", "")) > 15:
        raise TarError("a header is damaged")
    return said


class Part(io.RawIOBase):
    """Some bytes of a file, as a file. Several may be read in turn."""

    def __init__(self, whole: BinaryIO, offset: int, size: int) -> None:
        self._whole, self._place, self._end = whole, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._whole.seek(self._place)
        data = self._whole.read(min(len(buffer), self._end - self._place))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def reader(self) -> BinaryIO:
        """With a buffer."""
        return io.BufferedReader(self)
