"""The local form of a data set: a JSON-lines file of problems a split, and a manifest written last.

    DATA_DIR/gsm8k/train.jsonl      {"id": "gsm8k/train/0", "question": …, "gold": "72", …}
    DATA_DIR/gsm8k/manifest.json    source, revision, licence, and for each split rows and digests

A folder without a manifest is an unfinished fetch and is never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pellucid.artifacts import atomic_write_json, atomic_write_text, sha256_bytes, writing
from pellucid.data.readers import Row
from pellucid.data.registry import Dataset, Split
from pellucid.errors import DataError
from pellucid.records import Problem

FORMAT = 1
"""Version of the local form."""


def default_data_dir() -> Path:
    """Where data sets lie unless the user names a folder."""
    return Path.home() / ".cache" / "pellucid" / "data"


def content_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """sha256 over the (question, gold) pairs, each as one line of compact ASCII JSON."""
    digest = hashlib.sha256()
    for question, gold in pairs:
        digest.update(json.dumps([question, gold], separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def in_order(dataset: Dataset, rows: Sequence[Row]) -> list[Row]:
    """The rows in the order that their ids count."""
    if dataset.order == "source":
        return list(rows)
    return sorted(rows, key=lambda row: (hashlib.sha256(row.question.encode()).digest(), row.gold))


def to_problems(dataset: Dataset, split: str, rows: Sequence[Row]) -> list[Problem]:
    """Problems with ids `name/split/row`, the row counted from 0."""
    return [
        Problem(
            id=f"{dataset.name}/{split}/{number}",
            question=row.question,
            gold=row.gold,
            grader=dataset.grader,
            family=_family(dataset.name, row.family),
            language=row.language,
        )
        for number, row in enumerate(rows)
    ]


def _family(name: str, text: str) -> str:
    if not text:
        return ""
    return f"{name}/{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def check_content(dataset: Dataset, split: Split, problems: Sequence[Problem], where: str) -> None:
    """DataError where rows or content differ from what the registry pins."""
    got = content_digest((p.question, p.gold) for p in problems)
    if len(problems) != split.rows or got != split.content_sha256:
        raise DataError(
            f"{where}: expected {split.rows} rows with content sha256 {split.content_sha256}, "
            f"got {len(problems)} rows with {got}: altered, or not {dataset.name} {split.name} "
            "at its pinned revision; fetch it again"
        )


def write_dataset(folder: Path, dataset: Dataset, splits: dict[str, list[Problem]]) -> None:
    """Write all splits, then the manifest; each file appears whole or not at all."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
    described: dict[str, Any] = {}
    for name, problems in splits.items():
        lines = [json.dumps(asdict(p), ensure_ascii=False, sort_keys=True) for p in problems]
        described[name] = {
            "file": f"{name}.jsonl",
            "rows": len(problems),
            "sha256": atomic_write_text(folder / f"{name}.jsonl", "\n".join(lines) + "\n"),
            "content_sha256": dataset.split(name).content_sha256,
        }
    manifest = {
        "format": FORMAT,
        "name": dataset.name,
        "host": dataset.host,
        "repository": dataset.repository,
        "revision": dataset.revision,
        "licence": dataset.licence,
        "rights": dataset.rights,
        "first_public": dataset.first_public,
        "splits": described,
    }
    atomic_write_json(folder / "manifest.json", manifest)


def read_split(folder: Path, dataset: Dataset, split: Split) -> list[Problem]:
    """Problems of one split, digests checked. DataError: the copy is missing, damaged or old."""
    again = f"fetch it again with `{get_command(dataset.name, folder.parent)}`"
    manifest_path = folder / "manifest.json"
    if not manifest_path.exists():
        raise DataError(
            f"data set {dataset.name!r} is not in {folder.parent}: "
            f"run `{get_command(dataset.name, folder.parent)}`"
        )
    try:
        manifest = json.loads(manifest_path.read_bytes())
        described = manifest["splits"][split.name]
        payload = (folder / described["file"]).read_bytes()
        is_current = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{manifest_path} or a file it names is damaged ({error!r}): {again}"
        ) from error
    path = folder / described["file"]
    if not is_current:
        raise DataError(f"{folder} has the form of another version of Pellucid: {again}")
    got = sha256_bytes(payload)
    if got != described["sha256"]:
        raise DataError(
            f"{path} was altered: expected sha256 {described['sha256']}, got {got}: {again}"
        )
    try:
        problems = [Problem(**json.loads(line)) for line in payload.decode().split("\n") if line]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} does not hold problems ({error}): {again}") from error
    check_content(dataset, split, problems, str(path))
    return problems


def get_command(name: str, data_dir: Path) -> str:
    """The command that fetches a data set from a folder; without --from it asks the network."""
    where = "" if data_dir == default_data_dir() else f" --data-dir {data_dir}"
    return f"pellucid data get {name} --from FOLDER{where}"
