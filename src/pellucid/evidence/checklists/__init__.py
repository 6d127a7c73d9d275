"""Reporting checklists inside a dossier: an answer with a pointer into it; "yes" alone is nothing.

A pointer is a path of the dossier, or `claims.json#C3`: what it names has to be there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.artifacts import atomic_write_bytes
from pellucid.errors import RunError
from pellucid.evidence.core.archive import ArchiveError, open_archive, read_whole
from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.core.schema import SEAL_NAME

FOLDER = "checklists"
NAMES = ("nature-reporting", "neurips", "reforms")
ANSWERS = ("yes", "no", "n/a")
_HERE = Path(__file__).parent


def start_checklists(dossier: Path) -> list[Path]:
    """Write the empty checklists into a draft; those that are there stay as they are.

    Raises RunError for what is no dossier, and for a sealed one.
    """
    if not (dossier / "claims.json").is_file():
        raise RunError(f"{dossier} is no dossier: build it first")
    if (dossier / SEAL_NAME).exists():
        raise RunError(f"{dossier} is sealed: answer the checklists before sealing a new version")
    written = []
    for name in NAMES:
        path = dossier / FOLDER / f"{name}.json"
        if not path.exists():
            atomic_write_bytes(path, (_HERE / f"{name}.json").read_bytes())
            written.append(path)
    return written


def check_checklists(dossier: Path) -> list[str]:
    """A line for everything that is missing; empty where every answer has what it needs.

    Raises RunError where there is no checklist, or one is damaged.
    """
    try:
        with open_archive(dossier) as archive:
            there = [name for name in NAMES if f"{FOLDER}/{name}.json" in archive.sizes]
            if not there:
                raise RunError(f"{dossier} has no checklist: `pellucid dossier checklist --start`")
            claims = {
                claim["id"] for claim in parse_json(read_whole(archive, "claims.json"))["claims"]
            }
            lines = []
            for name in there:
                given = parse_json(read_whole(archive, f"{FOLDER}/{name}.json"))
                lines += _problems(name, given, archive.sizes, claims)
            return lines
    except (ArchiveError, JsonError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"the checklists of {dossier} cannot be read ({error})") from None


def _problems(
    name: str, given: Mapping[str, Any], paths: Collection[str], claims: Collection[str]
) -> Iterator[str]:
    """Against our own list of questions, so that leaving one out is no way around it."""
    rows = {row["id"]: row for row in given["answers"]}
    for asked in parse_json((_HERE / f"{name}.json").read_bytes())["answers"]:
        row = rows.get(asked["id"])
        problem = "is left out" if row is None else _problem(row, paths, claims)
        if problem is not None:
            yield f"{name}: {asked['id']} {problem}"


def _problem(row: Mapping[str, Any], paths: Collection[str], claims: Collection[str]) -> str | None:
    answer, pointer = row["answer"], row["pointer"]
    if answer not in ANSWERS:
        return f"is not answered: say one of {', '.join(ANSWERS)}"
    if answer != "yes":
        return None if (row["comment"] or "").strip() else f"says {answer!r} without saying why"
    if not pointer:
        return "says 'yes' without a pointer"
    path, hash_sign, claim = str(pointer).partition("#")
    if path not in paths and not any(p.startswith(f"{path.rstrip('/')}/") for p in paths):
        return f"points to {path!r}, which is not in the dossier"
    if hash_sign and (path != "claims.json" or claim not in claims):
        return f"points to {pointer!r}, which is no claim"
    return None
