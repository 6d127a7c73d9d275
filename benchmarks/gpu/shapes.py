"""The models measured: Qwen2.5's dimensions, random weights, so that only speed is compared."""

from __future__ import annotations

from typing import Any

from pellucid.model.known_shapes import KNOWN_SHAPES
from pellucid.model.spec import ModelSpec

EOS_IDS = (151645, 151643)
"""Qwen2.5's end-of-turn and end-of-text. Random weights draw one of them once in 76,000 tokens."""


SPECS: dict[str, ModelSpec] = {
    "0.5b": KNOWN_SHAPES["Qwen/Qwen2.5-0.5B-Instruct"],
    "1.5b": KNOWN_SHAPES["Qwen/Qwen2.5-1.5B-Instruct"],
    "7b": KNOWN_SHAPES["Qwen/Qwen2.5-7B-Instruct"],
    "tiny": ModelSpec(
        family="qwen2", vocab_size=512, width=64, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=16, ffn_width=128, max_context=32768, rope_theta=1e6, has_qkv_bias=True,
    ),
}  # fmt: skip
"""`tiny` rehearses every job on a CPU."""


def hf_config(spec: ModelSpec) -> dict[str, Any]:
    """The fields of transformers' Qwen2Config, for the peers."""
    return {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.width,
        "intermediate_size": spec.ffn_width,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "max_position_embeddings": spec.max_context,
        "rms_norm_eps": spec.norm_eps,
        "tie_word_embeddings": spec.is_head_tied,
        "eos_token_id": EOS_IDS[0],
        "bos_token_id": EOS_IDS[1],
    }
