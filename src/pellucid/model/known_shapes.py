"""Shapes of models on the hub that need no download to be planned with: facts of their config.json.

Only planning reads them. What is loaded is described by its own files.
"""

from __future__ import annotations

from typing import Any

from pellucid.model.spec import ModelSpec


def _qwen(max_context: int = 32768, **sizes: Any) -> ModelSpec:
    return ModelSpec(
        family="qwen2", max_context=max_context, rope_theta=1e6, has_qkv_bias=True, **sizes
    )


_HALF: dict[str, Any] = {
    "vocab_size": 151936, "width": 896, "num_layers": 24, "num_heads": 14, "num_kv_heads": 2,
    "head_dim": 64, "ffn_width": 4864,
}  # fmt: skip
_ONE_AND_A_HALF: dict[str, Any] = {
    "vocab_size": 151936, "width": 1536, "num_layers": 28, "num_heads": 12, "num_kv_heads": 2,
    "head_dim": 128, "ffn_width": 8960,
}  # fmt: skip
_SEVEN: dict[str, Any] = {
    "vocab_size": 152064, "width": 3584, "num_layers": 28, "num_heads": 28, "num_kv_heads": 4,
    "head_dim": 128, "ffn_width": 18944, "is_head_tied": False,
}  # fmt: skip

KNOWN_SHAPES: dict[str, ModelSpec] = {
    f"Qwen/Qwen2.5-{name}": spec
    for name, spec in {
        "0.5B": _qwen(**_HALF),
        "0.5B-Instruct": _qwen(**_HALF),
        "1.5B": _qwen(131072, **_ONE_AND_A_HALF),
        "1.5B-Instruct": _qwen(**_ONE_AND_A_HALF),
        "7B": _qwen(131072, **_SEVEN),
        "7B-Instruct": _qwen(**_SEVEN),
        "Coder-0.5B": _qwen(**_HALF),
        "Coder-0.5B-Instruct": _qwen(**_HALF),
        "Coder-1.5B": _qwen(**_ONE_AND_A_HALF),
        "Coder-1.5B-Instruct": _qwen(**_ONE_AND_A_HALF),
        "Coder-7B": _qwen(**_SEVEN),
        "Coder-7B-Instruct": _qwen(**_SEVEN),
    }.items()
}
"""By hub id; the same at all revisions."""
