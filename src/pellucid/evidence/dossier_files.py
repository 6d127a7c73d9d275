"""Files of a dossier on the disk, read by those who add to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pellucid.errors import RunError
from pellucid.evidence.core.canonical import JsonError, canonical_json, parse_json
from pellucid.evidence.core.samples import Sample, SampleError, read_samples
from pellucid.evidence.core.shapes import shape_problem


def rows_of(dossier: Path, folder: str) -> Iterator[tuple[bytes, Sample]]:
    """(line, sample) of an evaluation. Raises RunError where they cannot be read."""
    path = dossier / folder / "samples.jsonl.gz"
    try:
        yield from read_samples(path)
    except (OSError, SampleError) as error:
        raise RunError(f"{path} cannot be read ({error}): build the dossier again") from None


def read_json(path: Path, shape: Any) -> Any:
    """A JSON file of a dossier in its shape. Raises RunError."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, JsonError) as error:
        raise RunError(f"{path} cannot be read ({error}): is this a dossier?") from None
    if problem := shape_problem(value, shape):
        raise RunError(f"{path} is not in its form ({problem}): build the dossier again")
    return value


def json_bytes(value: Any) -> bytes:
    """Canonical JSON and a newline."""
    return canonical_json(value) + b"\n"
