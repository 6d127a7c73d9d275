"""Log-probabilities of tokens straight from hidden states, a chunk of rows at a time.

On CUDA a chunk is one matrix product and one kernel that reads its float32 logits once, or, where
the bits are to be the sampler's, its product, which sums up logits as it makes them. The backward
pass turns logits into their gradient in one kernel and makes two more products. Logits are kept for
the backward pass while they fit a number of bytes; chunks beyond it are computed again, a fourth
product, with the same bits. Elsewhere torch does the same, and keeps a single chunk only. Logits,
log-softmax and the weight's gradient are float32 also where the weights are bfloat16.
Shapes: T tokens, D width, V vocabulary, C rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pellucid.kernels.available import triton_ready
from pellucid.kernels.products import add_product, float32_product

_CPU_CHUNK_BYTES = 256 << 20
CUDA_CHUNK_BYTES = 2_500_000_000
"""Size of one chunk's float32 logits: 4096 rows of 152k, enough for matrix products at full speed.
The backward pass adds half of it, for the chunk's bfloat16 gradient."""
CUDA_ROW_STEP = 64
CUDA_KEEP_BYTES = 16 << 30
CUDA_KEEP_SHARE = 0.25
"""Of the memory that is free when the forward pass starts."""


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    keep_bytes: int | None = None,
    weight_grad: Tensor | None = None,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of targets [T] and entropy, both [T] float32 in nats, under the softmax of
    hidden [T, D] @ weight [V, D]ᵀ / temperature.

    The log-probabilities carry gradients to hidden and weight, the entropy none. chunk: rows
    computed at once; by default as many as fit a fixed number of bytes. keep_bytes: logits that may
    stay in memory until the backward pass, see `default_keep_bytes`. weight_grad: float32 [V, D]
    to which the backward pass adds the weight's gradient, giving autograd none; a bfloat16
    gradient would be rounded and cost two more passes over memory. exact: report the bits that the
    sampler's kernel reports for the same hidden states. Never waits for the device.
    float64 tensors are computed and returned in float64.
    """
    assert hidden.dim() == 2, f"hidden is [T, D], not {tuple(hidden.shape)}"
    assert weight.dim() == 2, f"weight is [V, D], not {tuple(weight.shape)}"
    assert hidden.shape[1] == weight.shape[1], "hidden and weight have the same width"
    assert hidden.dtype == weight.dtype, f"hidden is {hidden.dtype}, weight {weight.dtype}"
    assert targets.shape == hidden.shape[:1], "targets are [T]"
    assert temperature > 0.0, "temperature is positive: greedy decoding has no log-probabilities"
    if weight_grad is not None:
        assert weight_grad.shape == weight.shape, "weight_grad has the shape of weight"
        assert weight_grad.dtype == _wide(weight.dtype), f"weight_grad is {weight_grad.dtype}"
    plan = _plan(hidden, weight, temperature, chunk, keep_bytes, weight_grad, exact)
    assert plan.is_fused or not exact, "exact log-probabilities need the kernels"
    logprobs, entropy = _LinearLogprobs.apply(hidden, weight, targets, plan)
    return logprobs, entropy


def float32_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """hidden [C, D] @ weight [V, D]ᵀ as [C, V] float32, not rounded to bfloat16 on the way.

    Meant for use without autograd. A sampler that uses it too reports the log-probabilities that
    the trainer computes: rounding logits of size 20 to bfloat16 alone moves log-probabilities by up
    to 0.06. float64 stays float64.
    """
    return float32_product(hidden, weight.t())


def default_chunk(vocab_size: int, device: torch.device) -> int:
    """Rows of a chunk whose float32 logits fill the number of bytes that suits the device."""
    size = CUDA_CHUNK_BYTES if device.type == "cuda" else _CPU_CHUNK_BYTES
    rows = max(size // (4 * vocab_size), 16)
    if device.type == "cuda" and rows > 1024:
        return rows // 1024 * 1024
    return rows


def default_keep_bytes(device: torch.device) -> int:
    """Bytes of logits to keep on a CUDA device: 16 GiB, or a quarter of what is free (torch's own
    cache included) where that is less. Elsewhere: one chunk.
    """
    if device.type != "cuda":
        return _CPU_CHUNK_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(CUDA_KEEP_BYTES, int(CUDA_KEEP_SHARE * (free + cached)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How one call goes about its rows."""

    temperature: float
    parts: tuple[slice, ...]
    rows: int
    """Of the largest part."""
    num_kept: int
    """The first so many parts keep their logits for the backward pass."""
    is_fused: bool
    is_exact: bool
    weight_grad: Tensor | None


def _plan(
    hidden: Tensor,
    weight: Tensor,
    temperature: float,
    chunk: int | None,
    keep_bytes: int | None,
    weight_grad: Tensor | None,
    exact: bool,
) -> _Plan:
    is_fused = hidden.dtype != torch.float64 and triton_ready(hidden.device)
    total, vocab = hidden.shape[0], weight.shape[0]
    rows = chunk or default_chunk(vocab, weight.device)
    if is_fused and total:
        # Equal parts: a short last one would run its matrix products at a fraction of the speed.
        even = -(-total // -(-total // rows))
        rows = min(rows, -(-even // CUDA_ROW_STEP) * CUDA_ROW_STEP)
    parts = tuple(slice(start, start + rows) for start in range(0, total, rows))
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if not learns:
        num_kept = 0
    elif keep_bytes is not None or is_fused:
        limit = default_keep_bytes(hidden.device) if keep_bytes is None else keep_bytes
        num_kept = min(limit // (_wide(hidden.dtype).itemsize * vocab * rows), len(parts))
    else:
        # A single chunk is small enough to hold.
        num_kept = 1 if len(parts) == 1 else 0
    return _Plan(
        temperature=temperature,
        parts=parts,
        rows=rows,
        num_kept=num_kept,
        is_fused=is_fused,
        is_exact=exact,
        weight_grad=weight_grad,
    )


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(targets.shape, dtype=_wide(hidden.dtype), device=hidden.device)
        entropy = torch.empty_like(logprobs)
        read = _read_exact if plan.is_exact else _read_fused if plan.is_fused else _read_plain
        state = read(hidden, weight, targets, plan, logprobs, entropy)
        ctx.save_for_backward(hidden, weight, targets, *state)
        ctx.plan = plan
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets, *state = ctx.saved_tensors
        plan: _Plan = ctx.plan
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        total = plan.weight_grad
        if total is None and needs_weight:
            total = torch.zeros(weight.shape, dtype=_wide(weight.dtype), device=weight.device)
        gradients = _gradients_fused if plan.is_fused else _gradients_plain
        every = gradients(hidden, weight, targets, plan, state, grad_logprobs)
        for part, grad in zip(plan.parts, every, strict=True):
            # These products take the weights' type, as those of the layers beneath do.
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[part])
            if total is not None:
                add_product(total, grad.t(), hidden[part])
        if total is None or total is plan.weight_grad:
            return grad_hidden, None, None, None
        return grad_hidden, total.to(weight.dtype), None, None


def _read_plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, plan: _Plan, logprobs: Tensor, entropy: Tensor
) -> list[Tensor]:
    """Fills logprobs and entropy [T]; returns the log-probabilities [C, V] of the kept parts."""
    kept = []
    for number, part in enumerate(plan.parts):
        logits = _tempered_logits(hidden[part], weight, plan.temperature)
        every = logits.log_softmax(dim=1)
        logprobs[part] = every.gather(1, targets[part].unsqueeze(1)).squeeze(1)
        entropy[part] = -torch.exp(every, out=logits).mul_(every).sum(dim=1)
        if number < plan.num_kept:
            kept.append(every)
    return kept


def _gradients_plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, plan: _Plan, kept: list[Tensor], grad: Tensor
) -> Iterator[Tensor]:
    """Gradient of the logits of each part, [C, V] in the weights' type."""
    # d logprob / d logit = (1 at the target - probability) / temperature.
    scale = (grad / plan.temperature).unsqueeze(1)
    for number, part in enumerate(plan.parts):
        if number < plan.num_kept:
            probabilities = kept[number].exp()
        else:
            probabilities = _tempered_logits(hidden[part], weight, plan.temperature).softmax(1)
        out = probabilities.mul_(-scale[part])
        target = targets[part].unsqueeze(1)
        out.scatter_(1, target, out.gather(1, target) + scale[part])
        yield out.to(weight.dtype)


def _read_fused(
    hidden: Tensor, weight: Tensor, targets: Tensor, plan: _Plan, logprobs: Tensor, entropy: Tensor
) -> list[Tensor]:
    """Fills logprobs and entropy [T]; returns the rows' normaliser, two [T], and the logits
    [rows, V] of the kept parts.
    """
    from pellucid.kernels.logsumexp import read_rows

    peak, log2_sum = torch.empty_like(logprobs), torch.empty_like(logprobs)
    kept = [_logits_buffer(hidden, weight, plan) for _ in range(plan.num_kept)]
    shared = _logits_buffer(hidden, weight, plan) if plan.num_kept < len(plan.parts) else None
    for number, part in enumerate(plan.parts):
        buffer = kept[number] if number < plan.num_kept else shared
        read_rows(
            _logits_into(buffer, hidden[part], weight),
            targets[part],
            plan.temperature,
            logprobs=logprobs[part],
            entropy=entropy[part],
            peak=peak[part],
            log2_sum=log2_sum[part],
        )
    return [peak, log2_sum, *kept]


def _read_exact(
    hidden: Tensor, weight: Tensor, targets: Tensor, plan: _Plan, logprobs: Tensor, entropy: Tensor
) -> list[Tensor]:
    """As `_read_fused`, by the sampler's kernels, which write the logits of kept parts only."""
    from pellucid.kernels.head_sample import score

    hidden = hidden.contiguous()
    peak, log2_sum = torch.empty_like(logprobs), torch.empty_like(logprobs)
    kept = [_logits_buffer(hidden, weight, plan) for _ in range(plan.num_kept)]
    for number, part in enumerate(plan.parts):
        rows = hidden[part]
        logits = kept[number][: len(rows)] if number < plan.num_kept else None
        scores = score(rows, weight, targets[part], plan.temperature, logits=logits)
        for out, of_part in zip((logprobs, entropy, peak, log2_sum), scores, strict=True):
            out[part] = of_part
    return [peak, log2_sum, *kept]


def _gradients_fused(
    hidden: Tensor, weight: Tensor, targets: Tensor, plan: _Plan, state: list[Tensor], grad: Tensor
) -> Iterator[Tensor]:
    """As `_gradients_plain`, but every part is written over the one before it."""
    from pellucid.kernels.logsumexp import write_gradient

    peak, log2_sum, *kept = state
    grad = grad.contiguous()
    out = torch.empty(plan.rows, weight.shape[0], dtype=weight.dtype, device=weight.device)
    shared = _logits_buffer(hidden, weight, plan) if plan.num_kept < len(plan.parts) else None
    for number, part in enumerate(plan.parts):
        rows = hidden[part].shape[0]
        if number < plan.num_kept:
            logits = kept[number][:rows]
        else:
            logits = _logits_into(shared, hidden[part], weight, is_exact=plan.is_exact)
        write_gradient(
            logits,
            targets[part],
            plan.temperature,
            peak=peak[part],
            log2_sum=log2_sum[part],
            grad=grad[part],
            out=out[:rows],
        )
        yield out[:rows]


def _logits_buffer(hidden: Tensor, weight: Tensor, plan: _Plan) -> Tensor:
    # All of one size, so that the allocator hands out the same blocks pack after pack.
    return torch.empty(plan.rows, weight.shape[0], dtype=torch.float32, device=hidden.device)


def _logits_into(
    buffer: Tensor | None, hidden: Tensor, weight: Tensor, *, is_exact: bool = False
) -> Tensor:
    assert buffer is not None, "a part is either kept or has the shared buffer"
    out = buffer[: hidden.shape[0]]
    if not is_exact:
        return float32_product(hidden, weight.t(), out=out)
    from pellucid.kernels.head_stats import Stats, head_stats

    stats = Stats.empty(len(out), len(weight), out.device, has_moment=False)
    head_stats(hidden.contiguous(), weight, 1.0, stats, logits=out)
    return out


def _tempered_logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = float32_logits(hidden, weight)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What sums of this type are kept in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)
