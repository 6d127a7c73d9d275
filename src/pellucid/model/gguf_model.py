"""A GGUF file as a decoder: its metadata as ModelSpec, its tensors under Hugging Face names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.model.gguf_file import GgufFile
from pellucid.model.gguf_tokenizer import tokenizer_from_metadata
from pellucid.model.spec import ModelSpec, RopeScaling
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder
from pellucid.model.weights import empty_model, fill

ARCHITECTURES = ("llama", "qwen2", "qwen3")
GLOBAL_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"
LLAMA3_CONTEXT = 8192
"""Trained context of every Llama 3 model: the file states the resulting factors, not this."""


def load_gguf(path: Path, *, dtype: torch.dtype, device: str) -> tuple[Decoder, TextTokenizer]:
    """Decoder and tokenizer of a GGUF file, dequantised to `dtype` while loading.

    Peak memory is the model and its largest tensor. Raises ModelError naming file and cause.
    """
    file = GgufFile(path)
    try:
        spec = spec_from_gguf(file)
        tokenizer = tokenizer_from_metadata(file.metadata)
        model = empty_model(spec, dtype=dtype, device=device)
        fill(model, _tensors(file, spec, dtype))
    except ModelError as error:
        text = str(error)
        raise ModelError(text if str(path) in text else f"{path}: {text}") from error
    return model, tokenizer


def spec_from_gguf(file: GgufFile) -> ModelSpec:
    """ModelSpec of a GGUF file. Raises ModelError that names what is missing or not supported."""
    data = file.metadata
    arch = data.get("general.architecture")
    if arch not in ARCHITECTURES:
        raise ModelError(
            f"GGUF architecture {arch} is not supported; supported are {', '.join(ARCHITECTURES)}"
        )
    width, num_heads = _number(data, "embedding_length"), _number(data, "attention.head_count")
    head_dim = _number(data, "attention.key_length", width // num_heads)
    _refuse_unsupported(data, head_dim)
    if "token_embd.weight" not in file.tensors:
        raise ModelError("the file lacks tensor token_embd.weight")
    theta = _real(data, "rope.freq_base", 10000.0)
    spec = ModelSpec(
        family=arch,
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        width=width,
        num_layers=_number(data, "block_count"),
        num_heads=num_heads,
        num_kv_heads=_number(data, "attention.head_count_kv", num_heads),
        head_dim=head_dim,
        ffn_width=_number(data, "feed_forward_length"),
        max_context=_number(data, "context_length"),
        norm_eps=_decimal(_real(data, "attention.layer_norm_rms_epsilon", 1e-6)),
        rope_theta=theta,
        rope_scaling=_rope_scaling(file, theta, head_dim),
        is_head_tied="output.weight" not in file.tensors,
        has_qkv_bias="blk.0.attn_q.bias" in file.tensors,
        has_o_bias="blk.0.attn_output.bias" in file.tensors,
        has_mlp_bias="blk.0.ffn_down.bias" in file.tensors,
        has_qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
    )
    _check_sizes(file, spec)
    return spec


def _tensors(file: GgufFile, spec: ModelSpec, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    orders = _row_orders(file, spec)
    for name in file.tensors:
        if name == ROPE_FACTORS:  # read into the spec
            continue
        part = name.split(".")[-2] if "." in name else name
        yield _hub_name(name), file.read(name, dtype, orders.get(part))


def _row_orders(file: GgufFile, spec: ModelSpec) -> dict[str, np.ndarray]:
    """llama.cpp pairs neighbouring rows for RoPE where transformers pairs the halves of a head.

    Converters reorder q and k of the llama architecture accordingly; this undoes it.
    """
    if file.metadata["general.architecture"] != "llama":
        return {}

    def order(num_heads: int) -> np.ndarray:
        rows = np.arange(num_heads * spec.head_dim).reshape(num_heads, spec.head_dim // 2, 2)
        return rows.swapaxes(1, 2).reshape(-1)

    return {"attn_q": order(spec.num_heads), "attn_k": order(spec.num_kv_heads)}


def _hub_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) == 2 and parts[0] in GLOBAL_NAMES:
        return f"{GLOBAL_NAMES[parts[0]]}.{parts[1]}"
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in BLOCK_NAMES:
        return f"model.layers.{parts[1]}.{BLOCK_NAMES[parts[2]]}.{parts[3]}"
    return name  # the strict loader names it as unexpected


def _check_sizes(file: GgufFile, spec: ModelSpec) -> None:
    """Metadata against tensors, before a garbled number asks for more memory than there is."""
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    expected = {
        "token_embd.weight": (spec.vocab_size, spec.width),
        "blk.0.attn_q.weight": (q, spec.width),
        "blk.0.attn_k.weight": (kv, spec.width),
        "blk.0.ffn_up.weight": (spec.ffn_width, spec.width),
        f"blk.{spec.num_layers - 1}.attn_norm.weight": (spec.width,),
    }
    for name, shape in expected.items():
        if name not in file.tensors:
            raise ModelError(f"the file lacks tensor {name}")
        if file.tensors[name].shape != shape:
            found = list(file.tensors[name].shape)
            raise ModelError(f"tensor {name} has shape {found} where metadata says {list(shape)}")


def _refuse_unsupported(data: Mapping[str, Any], head_dim: int) -> None:
    if _optional(data, "expert_count", 0):
        raise ModelError("mixture-of-experts GGUF files are not supported; dense ones are")
    rotary = _optional(data, "rope.dimension_count", head_dim)
    values = _optional(data, "attention.value_length", head_dim)
    if rotary != head_dim or values != head_dim:
        raise ModelError(
            f"heads of {head_dim} with {rotary} rotary and {values} value dimensions are not "
            "supported; all three must be equal"
        )
    window = _optional(data, "attention.sliding_window", 0)
    if window and window < _number(data, "context_length"):
        raise ModelError(
            f"sliding-window attention ({window} tokens) is not supported; full attention is"
        )


def _rope_scaling(file: GgufFile, theta: float, head_dim: int) -> RopeScaling | None:
    data = file.metadata
    kind = _optional(data, "rope.scaling.type", "none")
    if ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file.read(ROPE_FACTORS, torch.float32), theta, head_dim)
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise ModelError(f"RoPE scaling {kind} is not supported; none, linear, yarn and llama3 are")
    factor = _real(data, "rope.scaling.factor", 0.0)
    if factor <= 0:
        raise ModelError(f"RoPE scaling {kind} names no rope.scaling.factor")
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor", "yarn_log_multiplier"):
        if _optional(data, f"rope.scaling.{key}", None) not in (None, 1.0):
            raise ModelError(f"yarn with rope.scaling.{key} is not supported")
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=_number(data, "rope.scaling.original_context_length"),
        beta_fast=_real(data, "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=_real(data, "rope.scaling.yarn_beta_slow", 1.0),
    )


def _llama3_scaling(factors: Tensor, theta: float, head_dim: int) -> RopeScaling | None:
    """The scaling whose frequency divisors are `factors` [K/2], found by recomputing them."""
    if torch.all(factors == 1):
        return None
    found = RopeScaling(kind="llama3", factor=float(factors.max()), original_context=LLAMA3_CONTEXT)
    frequency = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    turns = found.original_context * frequency / (2 * math.pi)
    share = (turns - found.low_freq_factor) / (found.high_freq_factor - found.low_freq_factor)
    share = share.clamp(0, 1)  # 1: kept as it is, 0: stretched by the whole factor
    expected = 1 / (share + (1 - share) / found.factor)
    if factors.shape != expected.shape or not torch.allclose(factors.double(), expected, rtol=1e-3):
        raise ModelError(f"{ROPE_FACTORS} holds frequency factors that are not Llama 3's")
    return found


def _number(data: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = _optional(data, key, default)
    if not isinstance(value, int) or value < 1:
        arch = data.get("general.architecture")
        raise ModelError(f"metadata {arch}.{key} should be a positive whole number, not {value!r}")
    return value


def _real(data: Mapping[str, Any], key: str, default: float) -> float:
    value = _optional(data, key, default)
    if not isinstance(value, (int, float)):
        arch = data.get("general.architecture")
        raise ModelError(f"metadata {arch}.{key} should be a number, not {value!r}")
    return float(value)


def _optional(data: Mapping[str, Any], key: str, default: Any) -> Any:
    return data.get(f"{data.get('general.architecture')}.{key}", default)


def _decimal(value: float) -> float:
    """The shortest decimal of a float32: the file's 9.99999974e-06 was written as 1e-5."""
    return float(str(np.float32(value)))
