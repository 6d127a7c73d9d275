"""Resolves a model's name to files, and the files to a decoder with its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from pellucid.config import ModelConfig
from pellucid.errors import ModelError
from pellucid.model.hf_config import spec_from_config
from pellucid.model.known_shapes import KNOWN_SHAPES
from pellucid.model.spec import ModelSpec
from pellucid.model.tokenizer import TextTokenizer, read_json
from pellucid.model.transformer import Decoder
from pellucid.model.weights import empty_model, fill, read_safetensors, weight_files

EMBEDDED = ("tiny-base", "tiny-r1-base", "tiny-r1-student")
ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A decoder ready to run, with where it came from.

    Example: load_model(ModelConfig(), dtype=torch.float32, device="cpu").name == "tiny-base"
    """

    model: Decoder
    tokenizer: TextTokenizer
    name: str
    """What the recipe calls the model: `config.id`."""
    digest: str
    """sha256 of the weight file; of several, sha256 over their names and digests."""
    path: Path
    """Folder or GGUF file that was read."""


class Outline(NamedTuple):
    """What is known of a model without its weights."""

    spec: ModelSpec
    tokenizer: Callable[[], TextTokenizer]


def load_model(config: ModelConfig, *, dtype: torch.dtype, device: str) -> LoadedModel:
    """Loads the model that a recipe names, in `dtype` on `device`.

    `config.path` comes first, then an embedded model, an existing folder or `.gguf` file, and last
    the hub. Raises ModelError that says what to do.
    """
    path = resolve(config)
    if path.is_dir():
        model, tokenizer = _load_folder(path, dtype=dtype, device=device)
    else:
        model, tokenizer = _load_gguf(path, dtype=dtype, device=device)
    if tokenizer.vocab_size > model.spec.vocab_size:
        raise ModelError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens but the embedding only "
            f"{model.spec.vocab_size} rows; the two belong to different models"
        )
    digest = weights_digest(path)
    return LoadedModel(model=model, tokenizer=tokenizer, name=config.id, digest=digest, path=path)


def resolve(config: ModelConfig, *, has_weights: bool = True) -> Path:
    """The folder or GGUF file of a model, fetched from the hub where it is not local; from there
    without `has_weights` the description of the model alone.
    """
    local = _local(config)
    if local is not None:
        return local
    from pellucid.model.hub import DESCRIPTION, FILES, fetch

    patterns = FILES if has_weights else DESCRIPTION
    return fetch(config.id, config.revision, patterns=patterns)


def find_outline(config: ModelConfig) -> Outline:
    """Shape and tokenizer of the model that a recipe names, for planning: of a hub model from its
    cache, else from the hub, else, without its tokenizer, from the shapes that are known here.

    Raises ModelError that says what to bring.
    """
    local = _local(config)
    if local is not None:
        return read_outline(local)
    from pellucid.model.hub import UnreachableError, describe

    try:
        return read_outline(describe(config.id, config.revision))
    except UnreachableError as error:
        spec = KNOWN_SHAPES.get(config.id)
        if spec is None:
            raise ModelError(_bring(config.id, error)) from error

    def tokenizer() -> TextTokenizer:
        raise ModelError(f"the hub is out of reach, and the tokenizer of {config.id} is not here")

    return Outline(spec, tokenizer)


def _bring(id: str, error: Exception) -> str:
    return (
        f"the shape of {id} is not known here ({error}): download its config.json and "
        "tokenizer.json into a folder and add --set model.path=FOLDER, or plan for a model of the "
        f"same shape with --set model.id=ID, where ID is one of {', '.join(KNOWN_SHAPES)}"
    )


def _local(config: ModelConfig) -> Path | None:
    """The files of a model that is not on the hub; None: it is."""
    if config.path is not None:
        path = Path(config.path).expanduser()
        if not path.exists():
            raise ModelError(f"model.path {config.path} does not exist: correct it or leave it out")
        return path
    if config.id in EMBEDDED:
        if not (ASSETS / config.id).is_dir():
            raise ModelError(
                f"this installation lacks the embedded model {config.id}: reinstall it"
            )
        return ASSETS / config.id
    local = Path(config.id).expanduser()
    if local.is_dir() or (local.is_file() and local.suffix == ".gguf"):
        return local
    if local.suffix == ".gguf" or not _is_hub_id(config.id):
        raise ModelError(
            f"no model {config.id}: give {EMBEDDED[0]}, an existing folder or .gguf file, "
            "or a hub id owner/name"
        )
    return None


def read_outline(path: Path) -> Outline:
    """Shape and tokenizer of what `resolve` found, its weights not read. Raises ModelError."""
    if path.is_dir():
        config = read_json(path / "config.json")
        if not config:
            raise ModelError(f"{path} has no config.json: not a model folder")
        return Outline(spec_from_config(config), lambda: TextTokenizer.from_folder(path))
    from pellucid.model.gguf_file import GgufFile
    from pellucid.model.gguf_model import spec_from_gguf
    from pellucid.model.gguf_tokenizer import tokenizer_from_metadata

    file = GgufFile(path)
    return Outline(spec_from_gguf(file), lambda: tokenizer_from_metadata(file.metadata))


def weights_digest(path: Path) -> str:
    """sha256 (hex) of a model's weights: see `LoadedModel.digest`."""
    files = weight_files(path) if path.is_dir() else [path]
    digests = [_file_digest(f, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    if len(files) == 1:
        return digests[0]
    lines = "".join(f"{f.name} {d}\n" for f, d in zip(files, digests, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=64)
def _file_digest(file: Path, size: int, mtime_ns: int) -> str:
    """Remembered per size and time of change, so that one run hashes a file once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load_folder(folder: Path, *, dtype: torch.dtype, device: str) -> tuple[Decoder, TextTokenizer]:
    config = read_json(folder / "config.json")
    if not config:
        raise ModelError(f"{folder} has no config.json: not a model folder")
    try:
        spec = spec_from_config(config)
        files = weight_files(folder)
        tokenizer = TextTokenizer.from_folder(folder)
        model = empty_model(spec, dtype=dtype, device=device)
        fill(model, read_safetensors(files))
    except ModelError as error:
        text = str(error)
        raise ModelError(text if str(folder) in text else f"{folder}: {text}") from error
    return model, tokenizer


def _load_gguf(file: Path, *, dtype: torch.dtype, device: str) -> tuple[Decoder, TextTokenizer]:
    from pellucid.model.gguf_model import load_gguf

    return load_gguf(file, dtype=dtype, device=device)


def _is_hub_id(name: str) -> bool:
    owner, slash, repo = name.partition("/")
    return bool(owner and slash and repo) and "/" not in repo and owner not in (".", "..", "~")
