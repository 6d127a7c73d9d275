"""Attention over packs with shared prompts by torch's flash-attention kernels (CUDA, half
precision).

Two calls: all rows (bodies and own rows) causally, each to itself; and the own rows of a prompt, as
one long row, to its body. Their outputs are merged by log-sum-exp. The backward pass calls the
kernel for both parts with the merged output and log-sum-exp: the kernel recomputes probabilities as
exp(score - lse) and row corrections as dot(gradient, output), which then are those of the whole
softmax, so that the gradients of the two parts add up to the exact ones.

Shapes: T tokens, P prompts, R rows, H heads, J key/value heads, K head dimension.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import deterministic


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where rows, groups and bodies begin, on the device. Bodies lie before all own rows."""

    num_body_tokens: int
    rows: Tensor
    """[R + 1] int32: bodies that are not empty and own rows, in the order of the tokens."""
    longest_row: int
    groups: Tensor
    """[P + 1] int32: a prompt's own rows, counted from the first own token."""
    largest_group: int
    bodies: Tensor
    """[P + 1] int32."""
    longest_body: int
    parts: BodyParts


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyParts:
    """Groups cut into C parts of equal size, each with a copy of its body, for the backward pass:
    the kernel works on blocks of keys in parallel, and on the queries that see them one after
    another. A few bodies that thousands of queries see would leave most of a GPU idle.
    """

    queries: Tensor
    """[P * C + 1] int32: as `groups`, of each part."""
    largest: int
    bodies: Tensor
    """[P * C + 1] int32: as `bodies`, of the copies."""
    copied: Tensor
    """[copied tokens] int64: the body token that a copy is of."""
    copies: Tensor
    """[C, body tokens] int64: the copies of a body token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Which tokens each token sees, on the device: `length` tokens from `start` on."""

    own_start: Tensor
    """[T] int64."""
    own_length: Tensor
    """[T] int32, at least 1: up to and including itself."""
    body_start: Tensor
    """[T] int64."""
    body_length: Tensor
    """[T] int32; 0 for tokens of bodies."""
    group: Tensor
    """[T] int32: tokens of the same number have the same body."""
    longest_own: int
    longest_body: int


def flash_ready(q: Tensor) -> bool:
    """Whether the kernels take such queries [T, H, K]."""
    return (
        q.is_cuda
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.shape[2] % 8 == 0
        and q.shape[2] <= 256
        and torch.cuda.get_device_capability(q.device) >= (8, 0)
    )


def attend_flash(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """Attention output [T, H * K] of rotated q [T, H, K], k and v [T, J, K], with gradients."""
    return _SharedFlash.apply(q, k, v, segments, None)


def attend_exactly(q: Tensor, k: Tensor, v: Tensor, segments: Segments, keys: Keys) -> Tensor:
    """As `attend_flash`, by the kernel that decoding uses: a token's output has the bits that it
    had when the token was sampled. The gradients are those of `attend_flash`.
    """
    return _SharedFlash.apply(q, k, v, segments, keys)


class _SharedFlash(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: Segments, keys: Keys | None
    ) -> Tensor:
        out, lse = _forward(q, k, v, segments) if keys is None else _exact(q, k, v, keys)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.segments = segments
        return out.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, lse = ctx.saved_tensors
        s: Segments = ctx.segments
        cut = s.num_body_tokens
        grad = grad.view_as(out)
        rows = (s.rows, s.rows, s.longest_row, s.longest_row)
        dq, dk, dv = _flash_backward(grad, q, k, v, out, lse, *rows, is_causal=True)
        if cut:
            p = s.parts
            parts = (p.queries, p.bodies, p.largest, s.longest_body)
            keys, values = k[:cut][p.copied], v[:cut][p.copied]
            part_lse = lse[:, cut:].contiguous()
            dq_own, dk_copies, dv_copies = _flash_backward(
                grad[cut:], q[cut:], keys, values, out[cut:], part_lse, *parts, is_causal=False
            )
            dq[cut:] += dq_own
            dk[:cut] += dk_copies[p.copies].sum(0)
            dv[:cut] += dv_copies[p.copies].sum(0)
        return dq, dk, dv, None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, s: Segments) -> tuple[Tensor, Tensor]:
    """Output [T, H, K] and log-sum-exp [H, T] float32."""
    cut = s.num_body_tokens
    rows = (s.rows, s.rows, s.longest_row, s.longest_row)
    out, lse = _flash_forward(q, k, v, *rows, is_causal=True)
    if cut:
        groups = (s.groups, s.bodies, s.largest_group, s.longest_body)
        other, other_lse = _flash_forward(q[cut:], k[:cut], v[:cut], *groups, is_causal=False)
        _merge(out, lse, other, other_lse, cut)
    return out, lse


def _exact(q: Tensor, k: Tensor, v: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
    from pellucid.kernels.attention import KeySource, attend_rows
    from pellucid.kernels.attention_causal import attend_tokens
    from pellucid.kernels.token_trial import tokens_agree

    def source(start: Tensor, length: Tensor) -> KeySource:
        return KeySource(k, v, start * k.stride(0), length, k.stride(1), k.stride(0))

    assert k.stride() == v.stride(), "keys and values lie alike"
    own = source(keys.own_start, keys.own_length)
    body = source(keys.body_start, keys.body_length) if keys.longest_body > 0 else None
    num_kv = k.shape[1]
    if tokens_agree(q, num_kv):
        out, lse = attend_tokens(q, own, body, num_kv=num_kv)
    else:
        out, lse = attend_rows(
            q,
            own,
            body,
            keys.group,
            num_kv=num_kv,
            max_own=keys.longest_own,
            max_prompt=keys.longest_body,
            with_lse=True,
        )
    return out.view_as(q), lse.t().contiguous()


def _merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, cut: int) -> None:
    """Merges the softmax over other keys into that of the tokens from `cut` on, in place."""
    from pellucid.kernels.available import triton_ready

    if triton_ready(out.device):
        from pellucid.kernels.merge_softmax import merge_softmax

        merge_softmax(out, lse, other, other_lse, cut)
        return
    # A token whose body is empty has the log-sum-exp +inf in this kernel, of weight 0.
    other_lse = other_lse.masked_fill(other_lse == torch.inf, -torch.inf)
    total = torch.logaddexp(lse[:, cut:], other_lse)
    weight = (other_lse - total).exp().t().unsqueeze(2)
    out[cut:] = torch.lerp(out[cut:].float(), other.float(), weight).to(out.dtype)
    lse[:, cut:] = total


def _flash_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor,
    k_starts: Tensor,
    longest_q: int,
    longest_k: int,
    *,
    is_causal: bool,
) -> tuple[Tensor, Tensor]:
    """Output [queries, H, K] and log-sum-exp [H, queries] of each segment of queries over the
    segment of keys of the same number; +inf or -inf where that is empty."""
    # For single queries the kernel turns heads into queries, which empty segments would upset; the
    # lengths are upper bounds.
    lengths = (max(longest_q, 2), max(longest_k, 2))
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, q_starts, k_starts, *lengths, 0.0, is_causal, False
    )
    assert lse.shape == (q.shape[1], q.shape[0]), "this torch returns log-sum-exps as [H, T]"
    return out, lse


def _flash_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    q_starts: Tensor,
    k_starts: Tensor,
    longest_q: int,
    longest_k: int,
    *,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, in their shapes, for the softmax whose output and log-sum-exp are
    given, be it over more keys than these."""
    lengths = (max(longest_q, 2), max(longest_k, 2))
    # What would replay dropout, of which there is none.
    state = torch.empty(2, dtype=torch.uint64, device=q.device)
    unused = torch.empty(0, device=q.device)
    with _repeatable():
        dq, dk, dv = torch.ops.aten._flash_attention_backward(
            grad, q, k, v, out, lse, q_starts, k_starts, *lengths, 0.0, is_causal, state, unused
        )
    return dq, dk, dv


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Makes the kernel add up query gradients in a fixed order, so that a run can be repeated."""
    mode, fills = torch.get_deterministic_debug_mode(), deterministic.fill_uninitialized_memory
    # Not torch.use_deterministic_algorithms, which loads the compiler.
    torch.set_deterministic_debug_mode("error")
    deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        deterministic.fill_uninitialized_memory = fills
