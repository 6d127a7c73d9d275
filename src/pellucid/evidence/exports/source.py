"""What exports are made of: the dossier's JSON files, in their shapes, and when things happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import RunError
from pellucid.evidence.core.archive import Archive, ArchiveError, open_archive, read_whole
from pellucid.evidence.core.canonical import JsonError, parse_json, sha256_bytes
from pellucid.evidence.core.schema import MANIFEST_NAME, SEAL_NAME, Claims, DataSet, Root
from pellucid.evidence.core.schema_training import Weights
from pellucid.evidence.core.shapes import shape_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dossier that was read. What it says is not checked here: that is `verify`'s part."""

    folder: Path
    claims: Claims
    weights: Weights
    roots: Mapping[str, Root]
    """`evals/SUITE/ARM` -> root.json"""
    sets: Mapping[str, DataSet]
    """Suite -> data/SUITE.json"""
    digests: Mapping[str, str]
    """Path -> SHA-256, as the manifest lists them; empty for a draft."""
    sizes: Mapping[str, int]
    """Path -> bytes of what is there."""
    seal: str | None
    """SHA-256 of the seal; None: a draft."""
    times: Mapping[int, tuple[str, str]]
    """Serial of an evaluation -> UTC when it began and ended."""

    @property
    def released(self) -> dict[str, Root]:
        """The evaluations of the very weights that the dossier releases."""
        return {f: r for f, r in self.roots.items() if r["model"] == self.weights["root"]}


def read_source(folder: Path) -> Source:
    """Read a dossier. Raises RunError, one line, for what is missing or not in its form."""
    try:
        with open_archive(folder) as archive:
            names = sorted(archive.sizes)
            roots = [n for n in names if n.startswith("evals/") and n.endswith("/root.json")]
            sets = [n for n in names if n.startswith("data/") and n.count("/") == 1]
            sets = [n for n in sets if n.endswith(".json") and "croissant-" not in n]
            return Source(
                folder=folder,
                claims=_read(archive, "claims.json", Claims),
                weights=_read(archive, "weights/manifest.json", Weights),
                roots={n.removesuffix("/root.json"): _read(archive, n, Root) for n in roots},
                sets={n[5:].removesuffix(".json"): _read(archive, n, DataSet) for n in sets},
                digests=_digests(archive),
                sizes=dict(archive.sizes),
                seal=sha256_bytes(read_whole(archive, SEAL_NAME)) if SEAL_NAME in names else None,
                times=_times(archive),
            )
    except ArchiveError as error:
        raise RunError(f"{folder} cannot be read as a dossier: {error}") from None


def _read(archive: Archive, path: str, shape: Any) -> Any:
    try:
        value = parse_json(read_whole(archive, path))
    except (ArchiveError, JsonError) as error:
        raise RunError(f"{path} of the dossier: {error}") from None
    problem = shape_problem(value, shape)
    if problem is not None:
        raise RunError(f"{path} is not in its form ({problem}): build the dossier again")
    return value


def _lines(archive: Archive, path: str) -> list[Any]:
    if path not in archive.sizes:
        return []
    try:
        return [parse_json(line) for line in read_whole(archive, path).splitlines()]
    except JsonError as error:
        raise RunError(f"{path} of the dossier: {error}") from None


def _digests(archive: Archive) -> dict[str, str]:
    try:
        return {row["path"]: row["sha256"] for row in _lines(archive, MANIFEST_NAME)}
    except (KeyError, TypeError):
        raise RunError(f"{MANIFEST_NAME} lists no files: seal the dossier again") from None


def _times(archive: Archive) -> dict[int, tuple[str, str]]:
    began: dict[int, str] = {}
    times: dict[int, tuple[str, str]] = {}
    try:
        for event in _lines(archive, "ledger.jsonl"):
            serial = event["payload"].get("serial")
            if event["kind"] == "evaluation_started":
                began[serial] = event["time"]
            elif event["kind"] == "evaluation_ended" and serial in began:
                times[serial] = (began[serial], event["time"])
    except (KeyError, TypeError):
        raise RunError("ledger.jsonl holds what is no event: build the dossier again") from None
    return times
