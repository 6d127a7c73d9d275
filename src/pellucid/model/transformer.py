"""The decoder: one module for the Llama, Qwen2 and Qwen3 families, over packed tokens.

It knows nothing of batches, caches or devices: tokens come as one flat row, and where they stand
and who may attend to whom is the business of the `attend` callable that each caller brings (packed
training, prefill, decode). Its primitives are those of `model.ops`.

Shapes: T tokens, D width, H heads, J key/value heads, K head dimension, F feed-forward width, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pellucid.model.ops import PLAIN, Ops, select_ops
from pellucid.model.rope import Rotation, rope_table
from pellucid.model.spec import ModelSpec

Attend = Callable[[int, Tensor, Rotation], Tensor]
"""(layer, heads [T, H + 2J, K], rotation) -> attention output [T, H * K]. The heads are queries,
keys and values before rotation: who attends knows the positions."""


class Linear(nn.Linear):
    """A linear layer that may hold its weight in a layout made for inference (see
    `model.packed`).
    """

    packed: Callable[[Tensor], Tensor] | None = None

    def product(self, x: Tensor, ops: Ops) -> Tensor:
        if self.packed is not None and not torch.is_grad_enabled():
            return self.packed(x)
        return ops.linear(x, self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, PLAIN)


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

    def forward(self, x: Tensor, layer: int, attend: Attend, rotation: Rotation) -> Tensor:
        s, ops = self.spec, rotation.ops
        heads = self.qkv.product(x, ops)
        heads = heads.view(x.shape[0], s.num_heads + 2 * s.num_kv_heads, s.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k, v = heads.split([s.num_heads, s.num_kv_heads, s.num_kv_heads], dim=1)
            heads = torch.cat([self.q_norm(q), self.k_norm(k), v], dim=1)
        return self.out.product(attend(layer, heads, rotation), ops)


class MLP(nn.Module):
    """SwiGLU with fused gate and up projection."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up = Linear(spec.width, 2 * spec.ffn_width, bias=spec.has_mlp_bias)
        self.down = Linear(spec.ffn_width, spec.width, bias=spec.has_mlp_bias)

    def forward(self, x: Tensor, ops: Ops) -> Tensor:
        return self.down.product(ops.swiglu(self.gate_up.product(x, ops)), ops)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(spec.width, eps=spec.norm_eps)
        self.attention = Attention(spec)
        self.mlp_norm = nn.RMSNorm(spec.width, eps=spec.norm_eps)
        self.mlp = MLP(spec)

    def forward(
        self, x: Tensor, delta: Tensor | None, layer: int, attend: Attend, rotation: Rotation
    ) -> tuple[Tensor, Tensor]:
        """The residual stream x float32 [T, D] and what the block before adds to it; returns the
        same pair, so that addition and normalisation are one operation."""
        ops = rotation.ops
        x, h = _add_norm(ops, x, delta, self.attention_norm)
        x, h = _add_norm(ops, x, self.attention(h, layer, attend, rotation), self.mlp_norm)
        return x, self.mlp(h, ops)


class Decoder(nn.Module):
    """Embedding, blocks, final norm and output head."""

    exact: bool = False
    """Compute each row with bits that depend on it alone: rollout and trainer then agree to the
    last bit. Needs the kernels of a CUDA device."""
    ops: Ops | None = None
    """Primitives to use instead of the fastest for the device."""
    checkpointed_blocks: int = 0
    """So many first blocks keep no activations for the backward pass and compute them again."""

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

    def forward(self, token_ids: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, D] of token_ids [T]; logits are `self.head(hidden)`."""
        rotation = self.rotation()
        x = self.embedding(token_ids).float()
        delta = None
        for layer, block in enumerate(self.blocks):
            if layer < self.checkpointed_blocks and torch.is_grad_enabled():
                x, delta = checkpoint(block, x, delta, layer, attend, rotation, use_reentrant=False)
            else:
                x, delta = block(x, delta, layer, attend, rotation)
        return _add_norm(rotation.ops, x, delta, self.norm)[1]

    def rotation(self) -> Rotation:
        """Rotations for the reserved context, with the primitives in use."""
        ops = self.ops or select_ops(self.embedding.weight.device, exact=self.exact)
        return Rotation(self.spec, self._rope, ops)

    def reserve_context(self, context: int) -> None:
        """Makes sure that rotations for positions below `context` are tabulated on the weights'
        device.
        """
        device = self.embedding.weight.device
        if self._rope.shape[1] < context or self._rope.device != device:
            size = max(context, min(self.spec.max_context, 4096))
            self._rope = rope_table(self.spec, size, device)


def _add_norm(ops: Ops, x: Tensor, delta: Tensor | None, norm: nn.RMSNorm) -> tuple[Tensor, Tensor]:
    assert norm.eps is not None, "every norm is made with its eps"
    return ops.add_norm(x, delta, norm.weight, norm.eps)


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
