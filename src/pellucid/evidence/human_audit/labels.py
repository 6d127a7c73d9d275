"""Takes labels into a dossier, and computes what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pellucid.artifacts import atomic_write_bytes, sha256_file
from pellucid.errors import RunError
from pellucid.evidence.core.audit import (
    AUDITS,
    GRADERS,
    LABELS_PREDICATE,
    DrawFile,
    GraderOpinions,
    Label,
    SecondFile,
    Watcher,
    common_labels,
)
from pellucid.evidence.core.audit_numbers import audit_numbers, printed_numbers
from pellucid.evidence.core.canonical import (
    JsonError,
    canonical_json,
    parse_canonical,
    sha256_bytes,
)
from pellucid.evidence.core.judged import JudgeOpinions
from pellucid.evidence.core.schema import Claims
from pellucid.evidence.dossier_files import json_bytes, read_json
from pellucid.evidence.human_audit.draw import (
    DRAW,
    RESULT,
    SECOND,
    read_population,
)
from pellucid.evidence.human_audit.sheet import Sheet, read_sheet
from pellucid.evidence.judges.record import read_judged, write_result
from pellucid.evidence.seal import Key, envelope, now

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}", re.A)


def import_labels(dossier: Path, sheet: Path, by: str, key: Key | None) -> dict[str, Any]:
    """Files the labels of one person, signed with their `key` where they have one, and computes
    the numbers again; returns result.json. The dossier has to be sealed again.

    Raises RunError where the sheet is of another draw, lacks labels or holds foreign ones.
    """
    if _NAME.fullmatch(by) is None:
        raise RunError(f"--by {by!r}: a name of letters, digits, - and _, at most 40 of them")
    read = read_sheet(sheet)
    folder = _audit_of(dossier, sheet, read)
    draw: DrawFile = read_json(folder / DRAW, DrawFile)
    _check_sheet(read, sheet, draw)
    judged = None if draw["name"] == GRADERS else read_judged(dossier, draw["name"])
    opinions = JudgeOpinions(judged) if judged is not None else _graders(folder, draw)
    watcher = Watcher(draw, opinions)
    evaluations = read_population(dossier, watcher)
    if watcher.drawn() != draw["drawn"]:
        raise RunError(f"the samples of {dossier} are not those that were drawn from: restore them")
    _file_labels(folder, by, _lines(read, draw), key)
    sheets = {path.stem.removeprefix("labels-"): _read_labels(path)
              for path in sorted(folder.glob("labels-*.jsonl"))}  # fmt: skip
    if judged is not None:
        return write_result(dossier, judged, common_labels(list(sheets.values())))
    claims: Claims = read_json(dossier / "claims.json", Claims)
    numbers = audit_numbers(watcher, read.draw, sheets, claims["claims"], evaluations)
    result: dict[str, Any] = printed_numbers(numbers)
    atomic_write_bytes(folder / RESULT, json_bytes(result))
    return result


def _audit_of(dossier: Path, path: Path, read: Sheet) -> Path:
    """The folder of the audit whose draw the sheet names."""
    draws = sorted((dossier / AUDITS).glob(f"*/{DRAW}"))
    if not draws:
        raise RunError(f"{dossier} has no draw: `pellucid dossier audit draw` makes one")
    own = [draw.parent for draw in draws if sha256_file(draw) == read.draw]
    if not own:
        raise RunError(f"{path} is the sheet of another draw: label the one that lies here")
    return own[0]


def _check_sheet(read: Sheet, path: Path, draw: DrawFile) -> None:
    wanted = {drawn["leaf"] for drawn in draw["drawn"]}
    if strange := read.labels.keys() - wanted:
        raise RunError(f"{path}: sample {min(strange)[:16]}… was not drawn: label what was")
    if missing := len(wanted - read.labels.keys()):
        raise RunError(
            f"{path}: {missing} of {len(wanted)} samples have no label: give each one, unsure "
            "where it cannot be told"
        )


def _graders(folder: Path, draw: DrawFile) -> GraderOpinions:
    second: SecondFile | None = None
    if draw["second"] is not None:
        second = read_json(folder / SECOND, SecondFile)
        if sha256_file(folder / SECOND) != draw["second"]:
            raise RunError(f"{folder / SECOND} is not the file that was drawn by: restore it")
    return GraderOpinions(second)


def _lines(read: Sheet, draw: DrawFile) -> bytes:
    lines: list[Label] = [
        {"v": 1, "draw": read.draw, "leaf": d["leaf"], "label": read.labels[d["leaf"]]}
        for d in draw["drawn"]
    ]
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def _file_labels(folder: Path, by: str, data: bytes, key: Key | None) -> None:
    path = folder / f"labels-{by}.jsonl"
    if path.is_file() and path.read_bytes() != data:
        raise RunError(f"{path} holds other labels of {by}: what was labelled is not replaced")
    name = f"{AUDITS}{folder.name}/{path.name}"
    predicate = {"v": 1, "by": by, "time": now()}
    statement = envelope(name, sha256_bytes(data), LABELS_PREDICATE, predicate, key)
    atomic_write_bytes(path, data)
    atomic_write_bytes(folder / f"labels-{by}.dsse.json", statement)


def _read_labels(path: Path) -> dict[str, str]:
    try:
        lines = [parse_canonical(raw) for raw in path.read_bytes().splitlines()]
        return {line["leaf"]: line["label"] for line in lines}
    except (JsonError, KeyError, TypeError):
        raise RunError(f"{path} is damaged: restore it") from None
