"""Hugging Face `config.json` to ModelSpec and back.

Only what changes the computation is read. A feature that the decoder lacks is refused by name: a
model that loads computes what its authors meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.errors import ModelError
from pellucid.model.spec import ModelSpec, RopeScaling

FAMILIES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",  # without its sliding window, Mistral is a Llama
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
SUPPORTED = "supported are " + ", ".join(FAMILIES)
ROPE_KINDS = "supported are default, linear, llama3, yarn"


def spec_from_config(config: Mapping[str, Any]) -> ModelSpec:
    """ModelSpec of a config.json, in the style of transformers 4 or 5.

    Raises ModelError that names the architecture, feature or key that does not fit.
    """
    architecture = _architecture(config)
    _refuse_unsupported(config)
    width, num_heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    theta, scaling = _rope(config)
    has_attention_bias = bool(config.get("attention_bias", False))
    is_qwen2 = architecture == "Qwen2ForCausalLM"
    # transformers' own default where the key is absent
    context = config.get("max_position_embeddings", 2048)
    head_dim = config.get("head_dim") or (
        128 if architecture == "Qwen3ForCausalLM" else width // num_heads
    )
    return ModelSpec(
        family=FAMILIES[architecture],  # type: ignore[arg-type]
        vocab_size=_whole(config, "vocab_size"),
        width=width,
        num_layers=_whole(config, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=int(config.get("num_key_value_heads") or num_heads),
        head_dim=int(head_dim),
        ffn_width=_whole(config, "intermediate_size"),
        max_context=int(context),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        rope_scaling=scaling,
        is_head_tied=bool(config.get("tie_word_embeddings", False)),
        has_qkv_bias=True if is_qwen2 else has_attention_bias,
        has_o_bias=False if is_qwen2 else has_attention_bias,
        has_mlp_bias=bool(config.get("mlp_bias", False)),
        has_qk_norm=architecture == "Qwen3ForCausalLM",
    )


def config_from_spec(
    spec: ModelSpec, *, dtype: str, eos_ids: Sequence[int] = (), bos_id: int | None = None
) -> dict[str, Any]:
    """The config.json of a decoder, readable by transformers 4 and 5.

    `dtype`: `float32`, `bfloat16` or `float16`. The architecture follows from the spec's features.
    Raises ModelError where none has them all.
    """
    architecture = _architecture_for(spec)
    model_type = next(t for t, a in MODEL_TYPES.items() if a == architecture)
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.width,
        "intermediate_size": spec.ffn_width,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": spec.max_context,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "rope_scaling": _scaling_dict(spec.rope_scaling),
        "tie_word_embeddings": spec.is_head_tied,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "bos_token_id": bos_id,
        "eos_token_id": eos_ids[0] if len(eos_ids) == 1 else list(eos_ids) or None,
    }
    if architecture == "LlamaForCausalLM":
        config |= {"attention_bias": spec.has_o_bias, "mlp_bias": spec.has_mlp_bias}
    elif architecture == "Qwen3ForCausalLM":
        config |= {"attention_bias": spec.has_o_bias, "use_sliding_window": False}
    else:
        config |= {"use_sliding_window": False}
    return config


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures") or []
    name = names[0] if names else MODEL_TYPES.get(str(config.get("model_type")), "")
    if name not in FAMILIES:
        what = name or config.get("model_type") or "(none named in config.json)"
        raise ModelError(f"architecture {what} is not supported; {SUPPORTED}")
    return name


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    act = config.get("hidden_act", "silu")
    if act not in ("silu", "swish"):
        raise ModelError(f"hidden_act {act} is not supported; supported is silu")
    if config.get("quantization_config"):
        method = dict(config["quantization_config"]).get("quant_method", "quantised")
        raise ModelError(
            f"{method} weights are not supported; use the unquantised model or a GGUF file"
        )
    context = config.get("max_position_embeddings", 2048)
    window = config.get("sliding_window")
    is_mistral = _architecture(config) == "MistralForCausalLM"
    uses_window = is_mistral or config.get("use_sliding_window", False)
    layers = config.get("layer_types") or []
    if any(kind != "full_attention" for kind in layers) or (
        uses_window and window is not None and window < context
    ):
        raise ModelError(
            f"sliding-window attention (sliding_window {window}) is not supported; "
            "supported is full attention"
        )


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base frequency and scaling, from `rope_parameters` (transformers 5) or `rope_scaling` (4)."""
    params = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = float(params.get("rope_theta") or config.get("rope_theta") or 10000.0)
    partial = params.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ModelError(f"partial_rotary_factor {partial} is not supported; supported is 1.0")
    kind = params.get("rope_type", params.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3", "yarn"):
        raise ModelError(f"RoPE scaling {kind} is not supported; {ROPE_KINDS}")
    needed = ("factor", "low_freq_factor", "high_freq_factor") if kind == "llama3" else ("factor",)
    for key in needed:
        if params.get(key) is None:
            raise ModelError(f"RoPE scaling {kind} names no {key} in config.json")
    factor = float(params["factor"])
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=factor)
    original = int(
        params.get("original_max_position_embeddings") or config["max_position_embeddings"]
    )
    if kind == "llama3":
        low, high = float(params["low_freq_factor"]), float(params["high_freq_factor"])
        return theta, RopeScaling(
            kind="llama3",
            factor=factor,
            original_context=original,
            low_freq_factor=low,
            high_freq_factor=high,
        )
    return theta, _yarn(params, factor, original)


def _yarn(params: Mapping[str, Any], factor: float, original: int) -> RopeScaling:
    for key in ("mscale", "mscale_all_dim"):
        if params.get(key):
            raise ModelError(f"yarn with {key} is not supported; supported is attention_factor")
    if not params.get("truncate", True):
        raise ModelError("yarn with truncate false is not supported; supported is true")
    attention = params.get("attention_factor")
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_context=original,
        beta_fast=float(params.get("beta_fast") or 32.0),
        beta_slow=float(params.get("beta_slow") or 1.0),
        attention_factor=None if attention is None else float(attention),
    )


def _scaling_dict(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "linear":
        return found
    found["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        return found | {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
        }
    found |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    if scaling.attention_factor is not None:
        found["attention_factor"] = scaling.attention_factor
    return found


def _architecture_for(spec: ModelSpec) -> str:
    """The transformers class that has exactly the spec's biases and norms."""
    if spec.has_qk_norm:
        name, fits = "Qwen3ForCausalLM", spec.has_qkv_bias == spec.has_o_bias
        fits = fits and not spec.has_mlp_bias
    elif spec.has_qkv_bias and not spec.has_o_bias:
        name, fits = "Qwen2ForCausalLM", not spec.has_mlp_bias
    else:
        name, fits = "LlamaForCausalLM", spec.has_qkv_bias == spec.has_o_bias
    if not fits:
        raise ModelError(
            "no transformers architecture has this mix of biases and norms: "
            f"qkv bias {spec.has_qkv_bias}, output bias {spec.has_o_bias}, "
            f"mlp bias {spec.has_mlp_bias}, QK-norm {spec.has_qk_norm}"
        )
    return name


def _whole(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"config.json needs a positive whole number for {key}, not {value!r}")
    return value
