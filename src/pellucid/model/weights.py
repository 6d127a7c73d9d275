"""Tensor names of Hugging Face checkpoints, their places in our fused parameters, strict loading.

A checkpoint's q, k and v (gate and up) are row ranges of one fused parameter here. Every source,
be it safetensors or GGUF, is a stream of (Hugging Face name, tensor); each tensor is copied
straight to its place, so that loading needs the memory of one model and one tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.model.shortage import GIB, shortage
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
MAX_NAMED = 3
"""Missing or unexpected tensors named in one message."""


class Place(NamedTuple):
    """Where a checkpoint's tensor lives: rows start … stop of a parameter."""

    parameter: str
    start: int
    stop: int


def places(spec: ModelSpec) -> dict[str, Place]:
    """Hugging Face tensor name -> place in our parameters, in the order of a checkpoint."""
    found = {EMBEDDING: Place("embedding.weight", 0, spec.vocab_size)}
    for layer in range(spec.num_layers):
        found |= _layer_places(spec, f"model.layers.{layer}.", f"blocks.{layer}.")
    found["model.norm.weight"] = Place("norm.weight", 0, spec.width)
    if not spec.is_head_tied:
        found[HEAD] = Place("head.weight", 0, spec.vocab_size)
    return found


def empty_model(spec: ModelSpec, *, dtype: torch.dtype, device: str) -> Decoder:
    """A decoder whose memory is allocated once, in its final type and place, not yet written.

    Raises ModelError with its bytes where there is no memory for it.
    """
    with torch.device("meta"):
        model = Decoder(spec).to(dtype)
    try:
        model.to_empty(device=device)
    except RuntimeError as error:
        line = shortage(error)
        if line is None:
            raise
        need = spec.num_parameters * dtype.itemsize / GIB
        raise ModelError(
            f"the model's weights take {need:.2f} GiB, and {line}: take a smaller model, or end "
            "what else uses the memory"
        ) from error
    if spec.is_head_tied:  # to_empty gives the head a parameter of its own
        model.head.weight = model.embedding.weight
    return model


@torch.no_grad()
def fill(model: Decoder, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Copies a checkpoint's tensors into the model, converting to its type.

    Raises ModelError naming the tensors that are missing, unexpected, repeated or of another shape.
    """
    wanted = places(model.spec)
    parameters = dict(model.named_parameters())
    seen: set[str] = set()
    unexpected = []
    stored_head: Tensor | None = None
    for name, tensor in tensors:
        if name in seen:
            raise ModelError(f"tensor {name} occurs twice in the checkpoint")
        if name.endswith("rotary_emb.inv_freq"):  # old checkpoints store what the config says
            continue
        if name == HEAD and model.spec.is_head_tied:
            stored_head = tensor
            continue
        if name not in wanted:
            unexpected.append(name)
            continue
        seen.add(name)
        _copy(name, tensor, parameters[wanted[name].parameter], wanted[name])
    missing = [name for name in wanted if name not in seen]
    if missing:
        raise ModelError(f"the checkpoint lacks {_names(missing)}: incomplete, or of another shape")
    if unexpected:
        raise ModelError(
            f"the checkpoint has {_names(unexpected)}, which its configuration does not"
        )
    if stored_head is not None:
        _check_tied(stored_head, model.embedding.weight)


def tensors_of(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors under their Hugging Face names: views, not copies."""
    parameters = dict(model.named_parameters())
    for name, place in places(model.spec).items():
        yield name, parameters[place.parameter].detach()[place.start : place.stop]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, single or sharded, in the order of their names."""
    index = folder / INDEX
    if index.is_file():
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            names = sorted({_plain_name(name) for name in listed})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} is damaged: fetch the model again") from error
        files = [folder / name for name in names]
    elif (folder / SINGLE).is_file():
        files = [folder / SINGLE]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder} holds no safetensors weights: convert the model to safetensors")
    for file in files:
        if not file.is_file():
            raise ModelError(
                f"{file} is missing: the download is incomplete, fetch the model again"
            )
    return files


def read_safetensors(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every file, one tensor in memory at a time."""
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as archive:
                for name in archive.keys():  # noqa: SIM118  not a dict
                    yield name, archive.get_tensor(name)
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged ({error}): fetch the model again") from error


def _layer_places(spec: ModelSpec, theirs: str, ours: str) -> dict[str, Place]:
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    qkv = {"q_proj": (0, q), "k_proj": (q, q + kv), "v_proj": (q + kv, q + 2 * kv)}
    ffn = spec.ffn_width
    found: dict[str, Place] = {}

    def put(name: str, parameter: str, start: int, stop: int, *, bias: bool = False) -> None:
        for kind in ("weight", "bias") if bias else ("weight",):
            found[f"{theirs}{name}.{kind}"] = Place(f"{ours}{parameter}.{kind}", start, stop)

    put("input_layernorm", "attention_norm", 0, spec.width)
    for name, (start, stop) in qkv.items():
        put(f"self_attn.{name}", "attention.qkv", start, stop, bias=spec.has_qkv_bias)
    put("self_attn.o_proj", "attention.out", 0, spec.width, bias=spec.has_o_bias)
    if spec.has_qk_norm:
        put("self_attn.q_norm", "attention.q_norm", 0, spec.head_dim)
        put("self_attn.k_norm", "attention.k_norm", 0, spec.head_dim)
    put("post_attention_layernorm", "mlp_norm", 0, spec.width)
    put("mlp.gate_proj", "mlp.gate_up", 0, ffn, bias=spec.has_mlp_bias)
    put("mlp.up_proj", "mlp.gate_up", ffn, 2 * ffn, bias=spec.has_mlp_bias)
    put("mlp.down_proj", "mlp.down", 0, spec.width, bias=spec.has_mlp_bias)
    return found


def _copy(name: str, tensor: Tensor, parameter: Tensor, place: Place) -> None:
    target = parameter[place.start : place.stop]
    if tensor.shape != target.shape:
        raise ModelError(
            f"tensor {name} has shape {list(tensor.shape)} where the configuration needs "
            f"{list(target.shape)}"
        )
    target.copy_(tensor)


def _check_tied(head: Tensor, embedding: Tensor) -> None:
    """Some checkpoints store a tied head all the same; another matrix there would be lost."""
    if head.shape != embedding.shape or not torch.equal(head.to(embedding), embedding):
        raise ModelError(f"{HEAD} differs from the embedding although config.json ties the two")


def _plain_name(name: str) -> str:
    """A shard lies beside its index: a path out of the folder is refused."""
    if Path(name).name != name:
        raise ValueError(f"not a file name: {name}")
    return name


def _names(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    more = len(names) - MAX_NAMED
    return f"tensor {shown}" + (f" and {more} more" if more > 0 else "")
