"""The trainer's output head beside its matrix products: two kernels over rows of float32 logits.

`read_rows` reads a row once and gives the target's log-probability, the entropy, and the row's
normaliser; `write_gradient` turns logits and normaliser into the gradient of the logits, one read
and one write. Both are bound by memory: 4 bytes a logit, and 4 + 2 with a bfloat16 gradient.
One program reads a row from end to end and merges its lanes in fixed order, so results repeat.

Shapes: C rows, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = 1.4426950408889634
_READ_BLOCK = 2048
_WRITE_BLOCK = 4096
_WARPS = 8
"""Eight logits a thread and four programs a processor keep enough bytes in flight."""
_UNSEEN = tl.constexpr(-1e30)
"""Below every logit, yet finite: infinity minus infinity would spoil lanes past the row's end."""


def read_rows(
    logits: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    logprobs: Tensor,
    entropy: Tensor,
    peak: Tensor,
    log2_sum: Tensor,
) -> None:
    """Fills logprobs, entropy (nats), peak and log2_sum, all [C] float32, from float32 logits
    [C, V] and targets [C].

    A row's normaliser is the pair of its largest logit and log2 Σ exp((logit - peak) / T): kept
    apart, probabilities stay exact however large the logits. A target outside the vocabulary or a
    logit that is not finite gives a log-probability that is not finite.
    """
    _check(logits, targets)
    for name, out in (("logprobs", logprobs), ("entropy", entropy), ("peak", peak)):
        assert out.dtype == torch.float32, f"{name} is float32, not {out.dtype}"
    if logits.shape[0] == 0:
        return
    _read_kernel[(logits.shape[0],)](
        logits,
        targets,
        logprobs,
        entropy,
        peak,
        log2_sum,
        logits.shape[1],
        1.0 / temperature,
        _LOG2_E / temperature,
        BLOCK=_READ_BLOCK,
        num_warps=_WARPS,
    )


def write_gradient(
    logits: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    peak: Tensor,
    log2_sum: Tensor,
    grad: Tensor,
    out: Tensor,
) -> None:
    """Fills out [C, V], of any floating type, with grad [C] * d logprob / d logit =
    grad * (1 at the target - probability) / T.

    peak and log2_sum are `read_rows`' normaliser of the same logits at the same temperature.
    """
    _check(logits, targets)
    assert out.shape == logits.shape, f"out is {tuple(out.shape)}, logits {tuple(logits.shape)}"
    assert out.is_contiguous(), "out is written as one row after another"
    assert grad.is_contiguous(), "grad is [C], one number after another"
    if logits.shape[0] == 0:
        return
    blocks = triton.cdiv(logits.shape[1], _WRITE_BLOCK)
    _gradient_kernel[(logits.shape[0] * blocks,)](
        logits,
        targets,
        peak,
        log2_sum,
        grad,
        out,
        logits.shape[1],
        blocks,
        1.0 / temperature,
        _LOG2_E / temperature,
        BLOCK=_WRITE_BLOCK,
        num_warps=_WARPS,
    )


def _check(logits: Tensor, targets: Tensor) -> None:
    assert logits.dtype == torch.float32, f"logits are float32, not {logits.dtype}"
    assert logits.is_contiguous(), "logits lie as one row after another"
    assert targets.shape == logits.shape[:1], "targets are [C]"
    assert targets.is_contiguous(), "targets are [C], one id after another"


@triton.jit
def _read_kernel(
    logits,
    targets,
    logprobs,
    entropy,
    peaks,
    log2_sums,
    vocab,
    inverse_temperature,
    scale,
    BLOCK: tl.constexpr,
):
    """One row: peak m, s = Σ e and w = Σ e (logit - m) with e = exp((logit - m) / T), per lane,
    then merged. scale = log2(e) / T.
    """
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * vocab
    lanes = tl.arange(0, BLOCK)
    m = tl.full((BLOCK,), _UNSEEN, tl.float32)
    s = tl.zeros((BLOCK,), tl.float32)
    w = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, vocab, BLOCK):
        at = first + lanes
        x = tl.load(start + at, mask=at < vocab, other=_UNSEEN)
        gap = x - m
        # Either the old sum or the new term has weight 1, so one exponential serves both.
        e = tl.exp2(-tl.abs(gap) * scale)
        is_peak = gap > 0
        w = tl.where(is_peak, (w - gap * s) * e, w + gap * e)
        s = tl.where(is_peak, s * e + 1.0, s + e)
        m = tl.where(is_peak, x, m)
    peak = tl.max(m, 0)
    share = tl.exp2((m - peak) * scale)
    total = tl.sum(s * share, 0)
    spread = tl.sum((w + s * (m - peak)) * share, 0)
    target = tl.load(targets + row)
    is_known = (target >= 0) & (target < vocab)
    chosen = tl.load(start + target, mask=is_known, other=float("nan"))
    log_sum = tl.log(total)
    tl.store(logprobs + row, (chosen - peak) * inverse_temperature - log_sum)
    tl.store(entropy + row, log_sum - spread / total * inverse_temperature)
    tl.store(peaks + row, peak)
    tl.store(log2_sums + row, tl.log2(total))


@triton.jit
def _gradient_kernel(
    logits,
    targets,
    peaks,
    log2_sums,
    grads,
    out,
    vocab,
    blocks,
    inverse_temperature,
    scale,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = program // blocks
    at = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    offset = row.to(tl.int64) * vocab
    x = tl.load(logits + offset + at, mask=at < vocab, other=_UNSEEN)
    # [C] loads: the same few bytes for all programs of a row, served by the cache.
    probability = tl.exp2((x - tl.load(peaks + row)) * scale - tl.load(log2_sums + row))
    hit = at == tl.load(targets + row)
    coefficient = tl.load(grads + row) * inverse_temperature
    gradient = tl.where(hit, 1.0 - probability, -probability) * coefficient
    tl.store(out + offset + at, gradient.to(out.dtype.element_ty), mask=at < vocab)
