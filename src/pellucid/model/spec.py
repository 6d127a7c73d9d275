"""The frozen description of a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context (HF `rope_scaling`)."""

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context: int = 0
    """Context the base model was trained with (llama3, yarn)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """yarn: scale of cos and sin; None: 0.1 ln(factor) + 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Shape of a decoder.

    Example: SmolLM2-135M is a llama of 30 layers, width 576, 9 heads and 3 KV heads.
    """

    family: Literal["llama", "qwen2", "qwen3"]
    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_width: int
    max_context: int = 2048
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    is_head_tied: bool = True
    """The output head is the embedding matrix."""
    has_qkv_bias: bool = False
    has_o_bias: bool = False
    has_mlp_bias: bool = False
    has_qk_norm: bool = False
    """RMSNorm on each head of q and k before RoPE (Qwen3)."""

    def __post_init__(self) -> None:
        """Raises ModelError where heads do not divide as attention and RoPE need."""
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"{self.num_heads} attention heads cannot share {self.num_kv_heads} KV heads: "
                "the first number must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise ModelError(f"RoPE needs an even head dimension, not {self.head_dim}")

    @property
    def num_parameters(self) -> int:
        """Parameters, a tied head counted once."""
        qkv = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        attention = self.width * qkv + self.num_heads * self.head_dim * self.width
        attention += qkv * self.has_qkv_bias + self.width * self.has_o_bias
        attention += 2 * self.head_dim * self.has_qk_norm
        mlp = 3 * self.width * self.ffn_width
        mlp += (2 * self.ffn_width + self.width) * self.has_mlp_bias
        embedding = self.vocab_size * self.width * (1 if self.is_head_tied else 2)
        return self.num_layers * (attention + mlp + 2 * self.width) + embedding + self.width
