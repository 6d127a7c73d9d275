"""A dossier as a folder, a zip or a tar (`tar.py`), read as if an enemy had made it.

Names that leave the folder, links, devices, names that collide on some file system, encrypted or
out-of-proportion members are refused and named; no member ever becomes a file, nothing is executed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from pellucid.evidence.core.tar import Part, TarError, is_tar, members_of, unrolled

MAX_FILES = 100_000
MAX_JSON_BYTES = 32 << 20
"""Of a file that is read whole."""
MAX_FILE_BYTES = 64 << 30
MAX_PATH_CHARS = 300
MAX_PARTS = 16
MAX_ZIP_RATIO = 250
"""Unpacked bytes per packed byte beyond the first `FREE_BYTES`."""
FREE_BYTES = 64 << 20
_CHUNK = 1 << 20
_FOREIGN = set('\\:*?"<>|')


class ArchiveError(Exception):
    """A dossier, or a file of it, that cannot or must not be read: says why in one line."""


class Archive(Protocol):
    """Read-only files by their relative paths."""

    sizes: dict[str, int]
    """Path -> bytes, of all files that may be read."""
    problems: list[tuple[str, str]]
    """(path, why) of what is there and must not be read."""

    def open(self, path: str) -> BinaryIO: ...


def path_problem(path: object) -> str | None:
    """Why a path of a dossier is not safe on every file system, or None."""
    if type(path) is not str or not path:
        return "no path"
    if len(path) > MAX_PATH_CHARS or path.count("/") >= MAX_PARTS:
        return "too long"
    if not path.isprintable() or unicodedata.normalize("NFC", path) != path:
        return "characters that are not printable, or not in their composed form"
    if _FOREIGN & set(path):
        return "characters that some file systems give a meaning"
    for part in path.split("/"):
        if part in ("", ".", "..") or part != part.strip() or part.endswith("."):
            return "a part that is empty, or leads elsewhere"
    return None


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The dossier at `path`: a folder, a zip or a tar. Raises ArchiveError where it is none."""
    if path.is_dir():
        yield FolderArchive(path)
        return
    if is_tar(path):
        try:
            with unrolled(path, MAX_FILE_BYTES) as tar:
                yield TarArchive(tar)
        except TarError as error:
            raise ArchiveError(f"{path.name} is no whole tar: {error}") from None
        return
    try:
        with zipfile.ZipFile(path) as file:
            yield ZipArchive(file)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise ArchiveError(f"{path.name} is neither a folder, zip nor tar: {error}") from None


def read_whole(archive: Archive, path: str, limit: int = MAX_JSON_BYTES) -> bytes:
    """All bytes of a file. Raises ArchiveError for a missing, damaged or too large one."""
    if path not in archive.sizes:
        raise ArchiveError("is not there")
    try:
        with archive.open(path) as file:
            data = file.read(limit + 1)
    except READ_ERRORS as error:
        raise ArchiveError(f"cannot be read: {error}") from None
    if len(data) > limit:
        raise ArchiveError(f"has more than {limit} bytes")
    return data


def digest_of(archive: Archive, path: str, limit: int) -> tuple[int, str]:
    """(bytes, SHA-256) of a file, reading at most `limit` bytes and one. Raises ArchiveError."""
    digest, size = hashlib.sha256(), 0
    try:
        with archive.open(path) as file:
            while size <= limit and (chunk := file.read(min(_CHUNK, limit + 1 - size))):
                digest.update(chunk)
                size += len(chunk)
    except READ_ERRORS as error:
        raise ArchiveError(f"cannot be read: {error}") from None
    return size, digest.hexdigest()


READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError)
"""What reading a damaged file or zip member raises (zipfile: RuntimeError for an encrypted one)."""


class FolderArchive:
    """Files of a folder; links are never followed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.sizes: dict[str, int] = {}
        self.problems: list[tuple[str, str]] = []
        self._walk()
        self.problems += _collisions(self.sizes)

    def _walk(self) -> None:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.problems.append((folder, f"cannot be listed: {error.strerror}"))
                continue
            for entry in found:
                path = f"{folder}/{entry.name}".lstrip("/")
                why = path_problem(path)
                mode = entry.stat(follow_symlinks=False).st_mode
                if why is None and stat.S_ISDIR(mode):
                    waiting.append(path)
                elif why is None and stat.S_ISREG(mode):
                    self.sizes[path] = entry.stat(follow_symlinks=False).st_size
                else:
                    self.problems.append((path, why or "a link or device"))
            if len(self.sizes) + len(self.problems) + len(waiting) > MAX_FILES:
                raise ArchiveError(f"more than {MAX_FILES} files")

    def open(self, path: str) -> BinaryIO:
        handle = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW)
        return os.fdopen(handle, "rb")


class ZipArchive:
    """Members of a zip, all below one folder or none."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.sizes: dict[str, int] = {}
        self.problems: list[tuple[str, str]] = []
        members = file.infolist()
        if len(members) > MAX_FILES:
            raise ArchiveError(f"more than {MAX_FILES} files")
        prefix = _shared_folder([m.filename for m in members])
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            if not member.is_dir():
                self._add(member.filename.removeprefix(prefix), member)
        self.problems += _collisions(self.sizes)

    def _add(self, path: str, member: zipfile.ZipInfo) -> None:
        why = path_problem(path)
        mode = member.external_attr >> 16
        if why is None and path in self._members:
            why = "stands twice in the zip"
        elif why is None and mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            why = "a link or device"
        elif why is None and member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = "packed in another way than deflate"
        elif why is None and member.file_size > FREE_BYTES + MAX_ZIP_RATIO * member.compress_size:
            why = "out of proportion to its packed size"
        if why is not None:
            self.problems.append((path, why))
            return
        self._members[path] = member
        self.sizes[path] = member.file_size

    def open(self, path: str) -> BinaryIO:
        return self._file.open(self._members[path])  # type: ignore[return-value]


def _shared_folder(names: list[str]) -> str:
    """`dossier/` where all members of an archive lie below it, else nothing."""
    top = names[0].split("/")[0] + "/" if names else ""
    return top if all(name.startswith(top) for name in names) else ""


class TarArchive:
    """Members of a tar, all below one folder or none."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sizes: dict[str, int] = {}
        self.problems: list[tuple[str, str]] = []
        members = list(members_of(file, MAX_FILES))
        prefix = _shared_folder([m.name for m in members])
        self._offsets: dict[str, int] = {}
        for member in members:
            path = member.name.removeprefix(prefix)
            if member.is_folder:
                continue
            why = path_problem(path)
            if why is None and not member.is_file:
                why = "a link or device"
            elif why is None and path in self.sizes:
                why = "stands twice in the tar"
            if why is not None:
                self.problems.append((path, why))
            else:
                self.sizes[path], self._offsets[path] = member.size, member.offset
        self.problems += _collisions(self.sizes)

    def open(self, path: str) -> BinaryIO:
        return Part(self._file, self._offsets[path], self.sizes[path]).reader()


def _collisions(paths: dict[str, int]) -> list[tuple[str, str]]:
    """Paths that are one file where case does not count."""
    seen: dict[str, str] = {}
    found = []
    for path in paths:
        other = seen.setdefault(unicodedata.normalize("NFKC", path).casefold(), path)
        if other != path:
            found.append((path, f"differs from {other} in case alone"))
    return found
