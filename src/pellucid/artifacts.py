"""What lies on disk: the layout of a run folder, atomic writes, digests, the lock.

A reader never sees half an artefact: files and folders are written beside their place, synced, and
renamed. Append-only files live in `pellucid.jsonl`; what a manifest says, in `pellucid.manifest`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pellucid.errors import RunError

SEAL_NAME = "digests.json"
"""Written last into a sealed directory: relative path -> [bytes, sha256] of every other file."""

SET_ASIDE = ".before-"
"""In the name of a stage's folder: kept, but of other values, inputs or code than the recipe's."""

_TEMPORARY = ".partial-"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that says what to do.

    Raises RunError for OSError raised inside the block (full disk, no permission, read-only, …).
    """
    try:
        yield
    except OSError as error:
        raise RunError(os_error_line(error, path)) from error


def os_error_line(error: OSError, path: Path | None = None) -> str:
    """One line for a user: which path, why, and the remedy."""
    where = path if path is not None else error.filename or "the file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left to write {where}: free some and give the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = os.strerror(error.errno).lower()
        return f"cannot write {where}: {reason}; choose another folder or change its rights"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"cannot write {where}: a file is in the way; move it or choose another folder"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot use {where}: {reason}"


# Digests


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8.

    Raises ValueError for NaN and infinity, TypeError for what is not JSON.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(path: Path, pattern: str = "**/*") -> str:
    """Digest of a folder: names, sizes and contents of the files that match, in sorted order."""
    return sha256_json(_file_digests(path, pattern))


def _file_digests(path: Path, pattern: str = "**/*") -> dict[str, list[Any]]:
    files = sorted(p for p in path.glob(pattern) if p.is_file() and p.name != SEAL_NAME)
    return {p.relative_to(path).as_posix(): [p.stat().st_size, sha256_file(p)] for p in files}


# Atomic writes


def atomic_write_bytes(path: Path, data: bytes) -> str:
    """Write, sync, rename. Returns the SHA-256 of `data`; raises RunError when the disk refuses."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    return sha256_bytes(data)


def atomic_write_text(path: Path, text: str) -> str:
    """`atomic_write_bytes` of UTF-8 text."""
    return atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, value: Any) -> str:
    """Indented JSON with sorted keys, for people and programs. NaN is refused (ValueError)."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return atomic_write_text(path, text + "\n")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: fill the yielded one.

    On success it is sealed (`digests.json`, so that `damage_of` can name later damage), synced and
    renamed to `path`; an existing folder there is replaced.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    with writing(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                sync_file(file)
            atomic_write_json(temporary / SEAL_NAME, _file_digests(temporary))
            _put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    """rename(2) cannot replace a folder that holds files, so the old one steps aside first."""
    if path.exists():
        aside = path.with_name(f"{_TEMPORARY}old-{path.name}-{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        temporary.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        temporary.rename(path)
    sync_directory(path.parent)


def damage_of(path: Path) -> str | None:
    """What is wrong with a sealed folder, in words that name the file; None where it is whole."""
    try:
        expected = json.loads((path / SEAL_NAME).read_text())
    except FileNotFoundError:
        return f"{SEAL_NAME} is missing"
    except ValueError:
        return f"{SEAL_NAME} is not JSON"
    for name, (size, digest) in expected.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if sha256_file(file) != digest:
            return f"the bytes of {name} have changed"
    return None


def sync_file(path: Path) -> None:
    """fsync of one file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    sync_file(path)


# The run folder


@dataclass(frozen=True, slots=True)
class StageFolder:
    """`stages/01-zero/` of a run: where one stage keeps what it made."""

    root: Path

    @property
    def name(self) -> str:
        """`01-zero`"""
        return self.root.name

    @property
    def stage_name(self) -> str:
        """`zero`"""
        return self.root.name.partition("-")[2]

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.root / "rollouts.jsonl.zst"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def evals(self) -> Path:
        return self.root / "evals"

    @property
    def model(self) -> Path:
        """The exported model of a finished stage: a Hugging Face folder."""
        return self.root / "model"

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint taken after `step` training steps."""
        return self.checkpoints / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps with a checkpoint folder, newest first."""
        names = [p.name for p in self.checkpoints.glob("step-*") if p.is_dir()]
        return sorted((int(name.removeprefix("step-")) for name in names), reverse=True)

    def newest_whole_checkpoint(self) -> tuple[int | None, list[str]]:
        """Step of the newest undamaged checkpoint (None: there is none), a line per damaged one."""
        damaged = []
        for step in self.checkpoint_steps():
            damage = damage_of(self.checkpoint(step))
            if damage is None:
                return step, damaged
            damaged.append(f"{self.checkpoint(step).name}: {damage}")
        return None, damaged

    def prune_checkpoints(self, keep: int) -> None:
        """Delete all but the newest `keep` checkpoints."""
        for step in self.checkpoint_steps()[keep:]:
            shutil.rmtree(self.checkpoint(step))


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run. `open_run` opens one for writing; plain construction only reads."""

    root: Path
    holds: ClassVar[str] = "a run of another recipe"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def energy(self) -> Path:
        """The meter's windows."""
        return self.root / "energy" / "windows.jsonl"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    def stage(self, number: int, name: str) -> StageFolder:
        """The folder of a stage, made if need be: `stage(1, "zero")` is `stages/01-zero/`."""
        folder = StageFolder(self.root / "stages" / f"{number:02d}-{name}")
        with writing(folder.root):
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            folder.evals.mkdir(exist_ok=True)
        return folder

    def stages(self) -> list[StageFolder]:
        """Stages that have a folder, in order, without those that were set aside."""
        folders = sorted((self.root / "stages").glob("[0-9][0-9]-*"))
        return [StageFolder(p) for p in folders if SET_ASIDE not in p.name]

    def last_model(self) -> StageFolder | None:
        """The last stage that trained a model; None: none has yet."""
        return next((s for s in reversed(self.stages()) if s.model.is_dir()), None)


@contextmanager
def open_run(
    path: Path, recipe: str, *, may_change: bool = False, kind: type[RunFolder] = RunFolder
) -> Iterator[tuple[RunFolder, bool]]:
    """Open `path` for writing by this process alone; yields the folder and whether it is continued.

    `recipe` is the resolved TOML text (`config_io.dump_recipe`). A fresh or empty folder is made;
    one with the same values is continued, and with `may_change` (pipelines, whose stages know what
    they are made of) one with other values too. Raises RunError for a folder of another recipe, one
    that is not a run, one that another process is writing, and one that cannot be written. A run
    that failed before its stages wrote anything gives way to another recipe.
    """
    folder = kind(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another process is writing {path}: wait for it, or choose another --out"
            ) from None
        is_resumed = folder.recipe.exists()
        has_work = is_resumed and any(file.is_file() for file in path.glob("stages/**/*"))
        if has_work:
            _check_same_recipe(folder, recipe, may_change=may_change)
        elif not is_resumed:
            _check_empty(path)
        if may_change or not has_work:
            atomic_write_text(folder.recipe, recipe)
        _remove_leftovers(path)
        yield folder, is_resumed


def _check_empty(path: Path) -> None:
    strangers = [p.name for p in path.iterdir() if p.name != ".lock" and _TEMPORARY not in p.name]
    if strangers:
        raise RunError(
            f"{path} is no run folder (it holds {sorted(strangers)[0]}): choose another --out"
        )


def _remove_leftovers(path: Path) -> None:
    """What a killed process was writing: never renamed, so never read by anyone."""
    for leftover in path.rglob(f"{_TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _check_same_recipe(folder: RunFolder, recipe: str, *, may_change: bool) -> None:
    try:
        there = _flatten(tomllib.loads(folder.recipe.read_text()))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder.recipe} cannot be read ({error}): choose another --out") from None
    wanted = _flatten(tomllib.loads(recipe))
    if may_change and "stages.0.kind" in there:
        return
    differing = sorted(k for k in there.keys() | wanted.keys() if there.get(k) != wanted.get(k))
    if differing:
        # A value that both have says more than one that a newer version added.
        key = min(differing, key=lambda k: (k not in there or k not in wanted, k))
        values = f"{key} is {there.get(key, 'unset')} there and {wanted.get(key, 'unset')} here"
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise RunError(
            f"{folder.root} holds {folder.holds}: {values}{more}; choose another --out,"
            " or move that folder away"
        )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in items:
        flat |= _flatten(child, f"{prefix}.{key}" if prefix else str(key))
    return flat
