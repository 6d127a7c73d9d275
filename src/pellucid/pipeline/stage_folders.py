"""Which folder a stage works in: what is there of another address is kept under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import SET_ASIDE, RunFolder, StageFolder, writing
from pellucid.pipeline.address import StageAddress, read_address, write_address

SHORT = 8
"""Hexadecimal digits of an address in the name of a folder set aside."""


class Claim(NamedTuple):
    """A stage's folder, ready for its work."""

    stage: StageFolder
    address: str
    """Digest of what the folder holds, or will hold."""
    set_aside: Path | None = None
    """Where the work of another address went."""
    reason: str | None = None
    """Why: what has changed since then."""


def find_folder(run: RunFolder, name: str) -> Path | None:
    """The folder of a stage, whatever number it had; None: there is none."""
    return next((s.root for s in run.stages() if s.stage_name == name), None)


def difference(address: StageAddress, there: dict[str, Any], *, accepts_code: bool) -> str | None:
    """What differs, in words; with `accepts_code` a change of the code alone is none."""
    if accepts_code:
        there = there | {"code": address.code}
    return address.difference(there)


def claim(
    run: RunFolder, number: int, name: str, address: StageAddress, *, accepts_code: bool = False
) -> Claim:
    """The folder `NN-name` for work of this address.

    What lies there of another address moves to `NN-name.before-<8 hex>`; what was set aside under
    this address comes back. Nothing is deleted.
    """
    folder = run.root / "stages" / f"{number:02d}-{name}"
    found = find_folder(run, name)
    if found is not None and found != folder:  # the recipe has other stages before it now
        with writing(folder):
            found.rename(folder)
    there = read_address(folder)
    if there is not None:
        reason = difference(address, there, accepts_code=accepts_code)
        if reason is None:
            return Claim(run.stage(number, name), there["digest"])
        aside = _move_aside(folder, there["digest"])
    else:
        reason, aside = None, None
    earlier = _set_aside_under(run, name, address.digest)
    if earlier is not None and not folder.exists():
        with writing(folder):
            earlier.rename(folder)
    stage = run.stage(number, name)
    write_address(stage.root, address)
    return Claim(stage, address.digest, aside, reason)


def _move_aside(folder: Path, digest: str) -> Path:
    """An address is set aside once at most: when it is wanted again, its folder comes back."""
    aside = folder.with_name(f"{folder.name}{SET_ASIDE}{digest[:SHORT]}")
    with writing(aside):
        folder.rename(aside)
    return aside


def _set_aside_under(run: RunFolder, name: str, digest: str) -> Path | None:
    """Work of this address that was set aside, under whatever number."""
    pattern = f"[0-9][0-9]-{name}{SET_ASIDE}{digest[:SHORT]}"
    found = sorted((run.root / "stages").glob(pattern))
    return found[0] if found else None
