"""Log-probabilities of tokens straight from hidden states, without the logits of all tokens.

A chunk of rows at a time goes through the output head; the backward pass computes the chunk's
logits again, unless there is one chunk only. Logits, log-softmax and the weight's gradient are
float32 also where the weights are bfloat16.
Shapes: T tokens, D width, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CPU_CHUNK_BYTES = 256 << 20
_CUDA_CHUNK_BYTES = 1 << 30
"""Size of one chunk's float32 logits; forward and backward hold up to two such buffers."""


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of targets [T] and entropy, both [T] float32 in nats, under the softmax of
    hidden [T, D] @ weight [V, D]ᵀ / temperature.

    The log-probabilities carry gradients to hidden and weight, the entropy none. chunk: rows
    computed at once; by default as many as fit a fixed number of bytes. Never waits for the device.
    float64 tensors are computed and returned in float64.
    """
    assert hidden.dim() == 2, f"hidden is [T, D], not {tuple(hidden.shape)}"
    assert weight.dim() == 2, f"weight is [V, D], not {tuple(weight.shape)}"
    assert hidden.shape[1] == weight.shape[1], "hidden and weight have the same width"
    assert hidden.dtype == weight.dtype, f"hidden is {hidden.dtype}, weight {weight.dtype}"
    assert targets.shape == hidden.shape[:1], "targets are [T]"
    assert temperature > 0.0, "temperature is positive: greedy decoding has no log-probabilities"
    rows = chunk or default_chunk(weight.shape[0], weight.device)
    logprobs, entropy = _LinearLogprobs.apply(hidden, weight, targets, temperature, rows)
    return logprobs, entropy


def float32_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden [C, D] @ weight [V, D]ᵀ as [C, V] float32, not rounded to bfloat16 on the way.

    Meant for use without autograd. A sampler that uses it too reports the log-probabilities that
    the trainer computes: rounding logits of size 20 to bfloat16 alone moves log-probabilities by up
    to 0.06. float64 stays float64.
    """
    return _matmul(hidden, weight.t())


def default_chunk(vocab_size: int, device: torch.device) -> int:
    """Rows of a chunk whose float32 logits fill the number of bytes that suits the device."""
    size = _CUDA_CHUNK_BYTES if device.type == "cuda" else _CPU_CHUNK_BYTES
    return max(size // (4 * vocab_size), 16)


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, rows: int
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = torch.empty(hidden.shape[0], dtype=dtype, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        kept = None
        for part in _parts(hidden.shape[0], rows):
            logits = _tempered_logits(hidden[part], weight, temperature)
            every = logits.log_softmax(dim=1)
            logprobs[part] = every.gather(1, targets[part].unsqueeze(1)).squeeze(1)
            entropy[part] = -torch.exp(every, out=logits).mul_(every).sum(dim=1)
            # A single chunk is small enough to hold: the backward pass need not compute it again.
            kept = every if hidden.shape[0] <= rows and any(ctx.needs_input_grad) else None
        ctx.save_for_backward(hidden, weight, targets, kept)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, targets, kept = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = (
            torch.zeros(weight.shape, dtype=grad_logprobs.dtype, device=weight.device)
            if needs_weight
            else None
        )
        # d logprob / d logit = (1 at the target - probability) / temperature.
        scale = (grad_logprobs / ctx.temperature).unsqueeze(1)
        for part in _parts(hidden.shape[0], ctx.rows):
            if kept is None:
                probabilities = _tempered_logits(hidden[part], weight, ctx.temperature).softmax(1)
            else:
                probabilities = kept.exp()
            grad = probabilities.mul_(-scale[part])
            target = targets[part].unsqueeze(1)
            grad.scatter_(1, target, grad.gather(1, target) + scale[part])
            # The products below take the weights' type, as those of the layers beneath do.
            grad = grad.to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad @ weight
            if grad_weight is not None:
                _add_product(grad_weight, grad.t(), hidden[part])
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None, None


def _tempered_logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = float32_logits(hidden, weight)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _parts(total: int, rows: int) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, total, rows)]


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, accumulated and returned in float32 where the operands are narrower."""
    if a.dtype in (torch.float32, torch.float64):
        return a @ b
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in place, without rounding the product to a narrower type first."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(_matmul(a, b))
