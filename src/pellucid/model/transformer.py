"""The decoder: one module for the Llama, Qwen2 and Qwen3 families, over packed tokens.

It knows nothing of batches, caches or devices: tokens come as one flat row, and who may attend to
whom is the business of the `attend` callable that each caller brings (packed training, prefill,
decode).

Shapes: T tokens, D width, H heads, J key/value heads, K head dimension, F feed-forward width, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.model.rope import rope_table, rotate
from pellucid.model.spec import ModelSpec

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q [T, H, K], k [T, J, K], v [T, J, K]) -> attention output [T, H * K]."""


class Linear(nn.Linear):
    """A linear layer that may hold its weight in a layout made for inference (see
    `model.packed`).
    """

    packed: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and not torch.is_grad_enabled():
            return self.packed(x)
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Grouped-query attention with fused q, k, v projection, optional biases and QK-norm."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.num_heads * spec.head_dim
        kv = spec.num_kv_heads * spec.head_dim
        self.qkv = Linear(spec.width, inner + 2 * kv, bias=spec.has_qkv_bias)
        self.out = Linear(inner, spec.width, bias=spec.has_o_bias)
        self.q_norm = nn.RMSNorm(spec.head_dim, eps=spec.norm_eps) if spec.has_qk_norm else None
        self.k_norm = nn.RMSNorm(spec.head_dim, eps=spec.norm_eps) if spec.has_qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, attend: Attend) -> Tensor:
        s = self.spec
        heads = self.qkv(x).view(x.shape[0], s.num_heads + 2 * s.num_kv_heads, s.head_dim)
        qk, v = heads.split([s.num_heads + s.num_kv_heads, s.num_kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([s.num_heads, s.num_kv_heads], dim=1)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], dim=1)
        # Rotated together: half as many small operations, which decoding is bound by.
        q, k = rotate(qk, cos, sin).split([s.num_heads, s.num_kv_heads], dim=1)
        return self.out(attend(layer, q, k, v))


class MLP(nn.Module):
    """SwiGLU with fused gate and up projection."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up = Linear(spec.width, 2 * spec.ffn_width, bias=spec.has_mlp_bias)
        self.down = Linear(spec.ffn_width, spec.width, bias=spec.has_mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(spec.width, eps=spec.norm_eps)
        self.attention = Attention(spec)
        self.mlp_norm = nn.RMSNorm(spec.width, eps=spec.norm_eps)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, attend: Attend) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, layer, attend)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    """Embedding, blocks, final norm and output head."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Embedding(spec.vocab_size, spec.width)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.num_layers))
        self.norm = nn.RMSNorm(spec.width, eps=spec.norm_eps)
        self.head = Linear(spec.width, spec.vocab_size, bias=False)
        if spec.is_head_tied:
            self.head.weight = self.embedding.weight
        self._rope = torch.empty(2, 0, spec.head_dim // 2)

    def forward(self, token_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, D] of token_ids [T] at positions [T]; logits are
        `self.head(hidden)`.
        """
        x = self.embedding(token_ids)
        cos, sin = self._rotations(positions, x)
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin, layer, attend)
        return self.norm(x)

    def reserve_context(self, context: int) -> None:
        """Makes sure that rotations for positions below `context` are tabulated on the weights'
        device.
        """
        device = self.embedding.weight.device
        if self._rope.shape[1] < context or self._rope.device != device:
            size = max(context, min(self.spec.max_context, 4096))
            self._rope = rope_table(self.spec, size, device)

    def _rotations(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._rope[:, positions].to(like.dtype).unsqueeze(2)
        return cos, sin


def init_weights(model: Decoder, seed: int) -> None:
    """Normal(0, 0.02) for matrices, scaled down by depth where a block writes to the residual.

    Biases are 0 and norms 1: every weight is a function of the seed.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = 0.02 / (2 * model.spec.num_layers) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            continue
        std = residual if name.endswith(("out.weight", "down.weight")) else 0.02
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
