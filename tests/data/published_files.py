"""The fixture rows as published files, with registry entries whose digests are theirs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow
import pyarrow.parquet

from pellucid.data.readers import READERS, decode
from pellucid.data.registry import Dataset
from pellucid.data.store import content_digest, in_order

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Published:
    folder: Path
    """Laid out as `pellucid data get NAME --from` wants it."""
    datasets: dict[str, Dataset]


def parquet_bytes(rows: list[dict]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def tar_bytes(rows: list[dict]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, row in enumerate(rows):
            payload = json.dumps(row).encode()
            member = tarfile.TarInfo(f"subject/{number}.json")
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
    return stream.getvalue()


def zip_bytes(files: list[Path]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file in files:
            split = file.stem.rsplit("_", 1)[1]
            archive.writestr(f"data/{split}/{file.name}", file.read_bytes())
    return stream.getvalue()


def original_bytes(folder_file: str) -> bytes:
    """The published file (without .gz) of a fixture."""
    if folder_file.startswith("math/MATH_"):
        split = folder_file.removeprefix("math/MATH_").removesuffix(".tar.gz")
        return tar_bytes(json.loads((FIXTURES / f"math/{split}.json").read_text()))
    if folder_file.endswith(".parquet"):
        source = FIXTURES / folder_file.replace(".parquet", ".json")
        return parquet_bytes(json.loads(source.read_text()))
    if folder_file.endswith(".zip"):
        return zip_bytes(sorted((FIXTURES / folder_file).parent.glob("*.csv")))
    return (FIXTURES / folder_file.removesuffix(".gz")).read_bytes()


def fixture_entry(dataset: Dataset, folder: Path) -> Dataset:
    splits = []
    for split in dataset.splits:
        payload = original_bytes(split.folder_file)
        path = folder / split.folder_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(payload) if path.suffix == ".gz" else payload)
        records = decode(payload, split.folder_file)
        read = [READERS[dataset.reader](r) for r in records]
        rows = in_order(dataset, [row for row in read if row.split in ("", split.name)])
        splits.append(
            replace(
                split,
                rows=len(rows),
                original_sha256=hashlib.sha256(payload).hexdigest(),
                content_sha256=content_digest((row.question, row.gold) for row in rows),
            )
        )
    return replace(dataset, splits=tuple(splits))
