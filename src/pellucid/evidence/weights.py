"""Which bytes a model is: digests of its files, and one root over them.

The root covers weights, configuration and tokenizer, since another of any of these is another
model. A folder's other files (a README, a licence) are not part of it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from pellucid.artifacts import SEAL_NAME
from pellucid.errors import ModelError
from pellucid.evidence.core.canonical import sha256_json
from pellucid.evidence.core.schema_training import WeightsFile

PATTERNS = ("*.safetensors", "*.json", "*.jinja")
"""Of a Hugging Face folder: what is read to make the model and its prompts."""
_CHUNK = 1 << 20


def model_files(path: Path) -> dict[str, WeightsFile]:
    """Name -> size and digest of the files of a model folder, or of one GGUF file."""
    if path.is_file():
        files = [path]
    else:
        found = {file for pattern in PATTERNS for file in path.glob(pattern) if file.is_file()}
        files = sorted(file for file in found if file.name != SEAL_NAME)
    if not any(file.suffix in (".safetensors", ".gguf") for file in files):
        raise ModelError(f"{path} holds no weights: name a model folder or a .gguf file")
    return {file.name: _described(file) for file in files}


def weights_root(path: Path) -> str:
    """The digest that names a model everywhere in a dossier."""
    return sha256_json(model_files(path))


def tensor_digests(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> sha256, type and shape of every tensor of a folder's safetensors files.

    A GGUF file gives none: its file digest stands for them.
    """
    tensors: dict[str, dict[str, Any]] = {}
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else ():
        tensors |= _tensors(file)
    return tensors


def _described(file: Path) -> WeightsFile:
    stat = file.stat()
    return {"bytes": stat.st_size, "sha256": _digest(file, stat.st_size, stat.st_mtime_ns)}


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    """Remembered per size and time of change, so that a run hashes a file once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tensors(file: Path) -> dict[str, dict[str, Any]]:
    """The format's header says where each tensor lies; nothing is loaded."""
    digests = {}
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            stream.seek(8 + length + start)
            digest, left = hashlib.sha256(), end - start
            while left:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    raise ModelError(f"{file} ends inside {name}: fetch or export the model again")
                digest.update(chunk)
                left -= len(chunk)
            shown = {"sha256": digest.hexdigest(), "dtype": entry["dtype"], "shape": entry["shape"]}
            digests[name] = shown
    return digests
