"""Whether there is a dossier at a place at all, before anything is said against it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pellucid.evidence.core.archive import ArchiveError, open_archive
from pellucid.evidence.core.schema import MANIFEST_NAME, SEAL_NAME
from pellucid.evidence.core.tar import is_tar

SIGNS = (MANIFEST_NAME, SEAL_NAME, "claims.json")
"""A dossier that was damaged still has one of these."""
_NONE = f"no {', '.join(SIGNS[:-1])} or {SIGNS[-1]} here"
_ZIPS = (b"PK\x03\x04", b"PK\x05\x06")


def why_no_dossier(path: Path) -> str | None:
    """One line, where a folder or file is no dossier; None: it is one, whole or not.

    Example: "runs/x is no dossier: no MANIFEST.jsonl, …; there is one in runs/x/dossier".
    """
    if path.is_dir():
        if _has_sign(path):
            return None
        inner = next(_inner(path), None)
        hint = f"; there is one in {inner}" if inner is not None else ""
        return f"{path} is no dossier: {_NONE}{hint}"
    try:
        with open_archive(path) as archive:
            return None if _is_signed(archive.sizes) else f"{path} is no dossier: {_NONE}"
    except ArchiveError:
        if _is_archive(path):
            return None
        return f"{path} is no dossier: it is neither a folder nor a zip or tar"


def _has_sign(folder: Path) -> bool:
    return any(os.path.lexists(folder / sign) for sign in SIGNS)


def _inner(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(entry for entry in folder.iterdir() if _has_sign(entry))
    except OSError:
        return


def _is_signed(names: dict[str, int]) -> bool:
    return any(sign in names for sign in SIGNS)


def _is_archive(path: Path) -> bool:
    if is_tar(path):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIPS
    except OSError:
        return True  # the examination says why it cannot be read
