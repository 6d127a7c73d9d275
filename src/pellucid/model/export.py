"""Writes a decoder as a Hugging Face folder that transformers opens unchanged."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pellucid.errors import ModelError
from pellucid.model.gguf_tokenizer import QWEN2
from pellucid.model.hf_config import config_from_spec
from pellucid.model.tensor_file import save_file
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder
from pellucid.model.weights import INDEX, SINGLE, tensors_of

SHARD_BYTES = 5 * 10**9
"""Largest weight file, as the hub prefers."""


def export_model(
    model: Decoder,
    tokenizer: TextTokenizer,
    folder: Path,
    dtype: torch.dtype | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes config.json, weights, tokenizer and generation_config.json; gives back `folder`.

    `dtype`: of the stored weights, by default the model's own, so that loading gives the same bits.
    The folder appears whole or not at all. Raises ModelError where it exists or cannot be written.
    Warns where transformers would open the tokenizer differently than it is written.
    """
    if folder.exists():
        raise ModelError(f"{folder} already exists: export to a new folder or remove it first")
    if model.spec.family == "qwen2" and not splits_like_qwen2(tokenizer):
        warnings.warn(
            "transformers 5 splits text for every qwen2 model by Qwen's own rule, which is not "
            "this tokenizer's: open its tokenizer.json with PreTrainedTokenizerFast instead",
            stacklevel=2,
        )
    dtype = dtype or model.embedding.weight.dtype
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror}") from error
    try:
        _write_configs(temporary, model, tokenizer, dtype)
        _write_weights(temporary, model, dtype, shard_bytes)
        tokenizer.save(temporary)
        _sync(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.rename(folder)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already where the rename succeeded
    return folder


def splits_like_qwen2(tokenizer: TextTokenizer) -> bool:
    """Whether text is normalised and split by the rule of Qwen's own tokenizer."""
    pipeline = json.loads(tokenizer.backend.to_str())
    steps = (pipeline["pre_tokenizer"] or {}).get("pretokenizers") or [{}]
    regex = (steps[0].get("pattern") or {}).get("Regex")
    is_nfc = (pipeline["normalizer"] or {}).get("type") == "NFC"
    return is_nfc == QWEN2.is_nfc and regex == QWEN2.regex


def _write_configs(
    folder: Path, model: Decoder, tokenizer: TextTokenizer, dtype: torch.dtype
) -> None:
    name = str(dtype).removeprefix("torch.")
    bos = tokenizer.token_id(tokenizer.bos_token) if tokenizer.bos_token else None
    config = config_from_spec(model.spec, dtype=name, eos_ids=tokenizer.eos_ids, bos_id=bos)
    _write_json(folder / "config.json", config)
    generation = {k: config[k] for k in ("bos_token_id", "eos_token_id") if config[k] is not None}
    _write_json(folder / "generation_config.json", generation)


def _write_weights(folder: Path, model: Decoder, dtype: torch.dtype, shard_bytes: int) -> None:
    shards = list(_shards(model, dtype, shard_bytes))
    weight_map, total = {}, 0
    for number, names in enumerate(shards, 1):
        file = SINGLE
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        wanted = set(names)
        # safetensors wants contiguous tensors of their own: one shard is copied at a time
        part = {
            name: tensor.to("cpu", dtype, copy=True).contiguous()
            for name, tensor in tensors_of(model)
            if name in wanted
        }
        total += sum(t.nbytes for t in part.values())
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / INDEX, index)


def _shards(model: Decoder, dtype: torch.dtype, shard_bytes: int) -> Iterator[list[str]]:
    """Tensor names of each file, in order, none above `shard_bytes` unless one tensor alone is."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors_of(model):
        added = tensor.numel() * dtype.itemsize
        if names and size + added > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += added
    yield names


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    """On disk before the rename, so that a power cut cannot leave a whole-looking empty folder."""
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
