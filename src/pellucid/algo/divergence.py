"""The reverse KL to a teacher over the whole vocabulary, straight from hidden states.

    KL(student || teacher) = sum_v p_v · (log p_v − log q_v)
    ∂ KL / ∂ logit_v       = p_v · (log p_v − log q_v − KL)

at each place of the student's own samples, which are taken as given: what the policy gradient of
`reverse_kl_advantages` estimates from the drawn token alone, without its noise (Agarwal et al.,
2306.13649, with λ = 1). A chunk of rows at a time; gradients are made on the way forward, so that
no logits are kept. Logits are float32 also where the weights are bfloat16.
Shapes: T tokens, D width of the student, E of the teacher, V and W their vocabularies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pellucid.algo.head import float32_logits

CHUNK_BYTES = 128 << 20
"""Float32 logits of one chunk."""
LIVE_CHUNKS = 7
"""Arrays of that size at once: log-probabilities of both models, probabilities, differences and
slopes of a chunk live on while the logits of the next are made and divided.
"""


class Head(NamedTuple):
    """What a model says of the next tokens, before the softmax."""

    hidden: Tensor
    """[T, D]."""
    weight: Tensor
    """[V, D]: the logits are hidden @ weightᵀ."""


class ReverseKl(NamedTuple):
    """Of T places."""

    loss: Tensor
    """Scalar: `scale` times the sum of `values`, with gradients to the student's head."""
    values: Tensor
    """[T] float32, nats, no gradient."""
    entropy: Tensor
    """[T] float32, nats: the student's; no gradient."""


def linear_reverse_kl(
    student: Head,
    teacher: Head,
    *,
    scale: float,
    temperature: float = 1.0,
    chunk: int | None = None,
    weight_grad: Tensor | None = None,
) -> ReverseKl:
    """Divergence of the two softmaxes, both of logits / temperature.

    The teacher may have more rows than the student: what it gives to those, the student cannot
    say. chunk: rows computed at once; default: as many as `CHUNK_BYTES` hold. weight_grad: float32
    [V, D] to which the backward pass adds the gradient of the student's weight, giving autograd
    none.
    """
    assert student.hidden.shape[0] == teacher.hidden.shape[0], "both read the same places"
    num_rows = student.weight.shape[0]
    assert num_rows <= teacher.weight.shape[0], "the teacher knows every token of the student"
    assert temperature > 0.0, "temperature is positive: greedy decoding has no distribution"
    rows = chunk or chunk_rows(teacher.weight.shape[0])
    return ReverseKl(
        *_LinearReverseKl.apply(*student, *teacher, scale, temperature, rows, weight_grad)
    )


def chunk_rows(vocab_size: int) -> int:
    """Rows computed at once for a teacher of that vocabulary."""
    return max(CHUNK_BYTES // (4 * vocab_size), 16)


class _LinearReverseKl(torch.autograd.Function):
    """See `linear_reverse_kl`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        scale: float,
        temperature: float,
        rows: int,
        weight_grad: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        into_hidden = torch.empty_like(hidden)
        into_weight = torch.zeros_like(weight, dtype=wide)
        values, entropies = [], []
        for h, t, into in zip(
            hidden.split(rows), teacher_hidden.split(rows), into_hidden.split(rows), strict=True
        ):
            own = (float32_logits(h, weight) / temperature).log_softmax(-1)
            other = (float32_logits(t, teacher_weight) / temperature).log_softmax(-1)
            probability, apart = own.exp(), own - other[:, : own.shape[1]]
            value = (probability * apart).sum(-1)
            values.append(value)
            entropies.append(-(probability * own).sum(-1))
            slope = probability * (apart - value[:, None]) * (scale / temperature)
            into.copy_(slope.to(weight.dtype) @ weight)
            into_weight += slope.t() @ h.to(wide)
        ctx.save_for_backward(into_hidden, into_weight)
        ctx.dtype, ctx.weight_grad = weight.dtype, weight_grad
        value, entropy = torch.cat(values), torch.cat(entropies)
        ctx.mark_non_differentiable(value, entropy)
        return scale * value.sum(), value, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        into_hidden, into_weight = ctx.saved_tensors
        to_weight = into_weight * upstream
        if ctx.weight_grad is not None:
            ctx.weight_grad.add_(to_weight)
            to_weight = None
        else:
            to_weight = to_weight.to(ctx.dtype)
        return into_hidden * upstream.to(into_hidden.dtype), to_weight, *(None,) * 6
