"""Fetch a data set, from a folder of published files or from its pinned revision, and store it.

Nothing is trusted: published files are checked against the digest of the original bytes where the
source holds those, and the normalised rows always. A set that is already there and whole stays.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

from pellucid.data.readers import READERS, Row, decode
from pellucid.data.registry import Dataset, Split, get_dataset
from pellucid.data.store import (
    check_content,
    default_data_dir,
    in_order,
    read_split,
    to_problems,
    write_dataset,
)
from pellucid.errors import DataError
from pellucid.protocols import ProgressFn
from pellucid.records import Problem

_TIMEOUT_S = 60


class Hosts(NamedTuple):
    """Base addresses of the two hosts, so that a mirror (or a test) can stand in."""

    hub: str | None = None
    """None: huggingface_hub's own default."""
    github: str = "https://raw.githubusercontent.com"


def get(
    name: str,
    *,
    source_folder: Path | None = None,
    data_dir: Path | None = None,
    hosts: Hosts | None = None,
    progress: ProgressFn | None = None,
) -> Path:
    """Fetch the data set and return its folder; `progress` counts splits.

    DataError: unknown, unreachable or altered. RunError: `data_dir` cannot be written.
    """
    return fetch(
        get_dataset(name),
        source_folder=source_folder,
        data_dir=data_dir,
        hosts=hosts or Hosts(),
        progress=progress,
    )


def fetch(
    dataset: Dataset,
    *,
    source_folder: Path | None,
    data_dir: Path | None,
    hosts: Hosts,
    progress: ProgressFn | None = None,
) -> Path:
    """`get` for a registry entry."""
    folder = (data_dir or default_data_dir()) / dataset.name
    if _is_whole(folder, dataset):
        return folder
    splits: dict[str, list[Problem]] = {}
    for split in dataset.splits:
        if source_folder is not None:
            where, rows = _rows_of_folder(source_folder, dataset, split)
        else:
            where = f"{dataset.repository} at {dataset.revision}"
            rows = _rows_of_host(dataset, split, hosts)
        problems = to_problems(dataset, split.name, in_order(dataset, rows))
        check_content(dataset, split, problems, f"{dataset.name} {split.name} from {where}")
        splits[split.name] = problems
        if progress is not None:
            progress(len(splits), len(dataset.splits))
    write_dataset(folder, dataset, splits)
    return folder


def _is_whole(folder: Path, dataset: Dataset) -> bool:
    if not (folder / "manifest.json").exists():
        return False
    try:
        for split in dataset.splits:
            read_split(folder, dataset, split)
    except DataError:  # damaged or of an older registry: fetched again
        return False
    return True


def _read(dataset: Dataset, split: Split, payload: bytes, path: str) -> list[Row]:
    reader = READERS[dataset.reader]
    try:
        rows = [reader(record) for record in decode(payload, path)]
        return [row for row in rows if row.split in ("", split.name)]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} has not the fields of {dataset.name} ({error!r}): "
            f"take it from {dataset.repository} at {dataset.revision}"
        ) from error


# --- from a folder ---


def _rows_of_folder(root: Path, dataset: Dataset, split: Split) -> tuple[str, list[Row]]:
    path = _find(root, dataset, split)
    payload = path.read_bytes()
    if path.suffix == ".gz":
        try:
            payload = gzip.decompress(payload)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file ({error}): copy it again") from error
    got = hashlib.sha256(payload).hexdigest()
    if got != split.original_sha256:
        raise DataError(
            f"{path} was altered: expected sha256 {split.original_sha256} (without .gz), "
            f"got {got}: copy it again"
        )
    return str(path), _read(dataset, split, payload, path.name)


def _find(root: Path, dataset: Dataset, split: Split) -> Path:
    """The published file below `root`, or beside it where `root` is the set's own folder."""
    names = (split.folder_file, split.folder_file.removesuffix(".gz"))
    for name in names:
        for path in (root / name, root / Path(name).name):
            if path.is_file():
                return path
    raise DataError(
        f"{dataset.name}: no {names[0]} below {root}: name the folder that holds it with --from, "
        f"or leave --from out to fetch {dataset.repository}"
    )


# --- from the network, at the pinned revision ---


def _rows_of_host(dataset: Dataset, split: Split, hosts: Hosts) -> list[Row]:
    rows: list[Row] = []
    for path in split.remote_files:
        if dataset.host == "hub":
            payload = _from_hub(dataset, path, hosts.hub)
        else:
            payload = _from_github(dataset, path, hosts.github)
            got = hashlib.sha256(payload).hexdigest()
            if got != split.original_sha256:
                raise DataError(
                    f"{dataset.repository}: {path} was altered: expected sha256 "
                    f"{split.original_sha256}, got {got}: fetch it again"
                )
        rows += _read(dataset, split, payload, path)
    return rows


def _unreachable(dataset: Dataset, path: str, error: Exception) -> DataError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return DataError(
        f"cannot fetch {path} of {dataset.repository} ({reason}): check the network, "
        f"or run `pellucid data get {dataset.name} --from FOLDER` on a folder that holds the files"
    )


def _from_hub(dataset: Dataset, path: str, endpoint: str | None) -> bytes:
    from huggingface_hub import hf_hub_download  # late: half a second of import

    with tempfile.TemporaryDirectory(prefix="pellucid-") as scratch:
        try:
            local = hf_hub_download(
                dataset.repository,
                path,
                repo_type="dataset",
                revision=dataset.revision,
                local_dir=scratch,
                endpoint=endpoint,
            )
        except OSError as error:  # every error of the hub client's transport is one
            raise _unreachable(dataset, path, error) from error
        return Path(local).read_bytes()


def _from_github(dataset: Dataset, path: str, base: str) -> bytes:
    address = f"{base}/{dataset.repository}/{dataset.revision}/{path}"
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as response:
            payload: bytes = response.read()
    except OSError as error:  # URLError, HTTPError and timeouts
        raise _unreachable(dataset, path, error) from error
    return payload
