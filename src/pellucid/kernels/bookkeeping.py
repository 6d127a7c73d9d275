"""A decoding step's bookkeeping in one launch: the twin is `advance_plain` in
`rollout/loop_state.py`, where every tensor is described.

One program holds all rows, so that prefix sums need no atomics and the result does not depend on
timing. All of a row's state is read before anything is written, since rows move.

Shapes: B rows, L new tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.pages import assign
from pellucid.kernels.philox import uniform53

if TYPE_CHECKING:
    from pellucid.rollout.loop_state import LoopState

MAX_ROWS = 4096
EOS, STOP_STRING, LENGTH, NOT_FINITE = (tl.constexpr(code) for code in (1, 2, 3, 4))
"""Codes in `out_reason`: StopReason in its order, then a log-probability that is not finite."""
NO_SAMPLE = tl.constexpr(2**31 - 1)


def advance(state: LoopState, tokens: torch.Tensor, logprobs: torch.Tensor, rows: int) -> None:
    """Files `tokens` [B] int64 with `logprobs` [B] float32 and prepares the next step's rows.

    With pages, `assign` follows. B = `rows`, at most 4096; rows behind them must be idle. May be
    captured in a graph: what changes between steps is on the device.
    """
    assert 0 < rows <= min(MAX_ROWS, state.capacity.slots), "one program holds all rows"
    assert tokens.dtype == torch.int64, "tokens are int64"
    assert logprobs.dtype == torch.float32, "log-probabilities are float32"
    assert tokens.is_contiguous(), "tokens are read as one run"
    assert logprobs.is_contiguous(), "log-probabilities are read as one run"
    block = triton.next_power_of_2(rows)
    has_stops, pages = state.next_state is not None, state.pages
    _advance[(1,)](
        tokens,
        logprobs,
        state.sample,
        state.slot,
        state.token,
        state.position,
        state.own,
        state.group,
        state.body,
        state.body_start,
        state.own_length,
        state.stop_state,
        state.uniform,
        state.prompt,
        state.id_low,
        state.id_high,
        state.limit,
        state.out_tokens,
        state.out_logprobs,
        state.out_length,
        state.out_reason,
        state.prompt_body_start,
        state.prompt_body,
        state.last_token,
        state.is_eos,
        state.next_state if has_stops else state.is_eos,
        state.seed,
        state.generated,
        *(state.views[name] for name in SCALARS),
        state.scalars if pages is None else pages.queue,
        state.scalars if pages is None else pages.seats,
        rows,
        state.capacity.new_tokens,
        state.capacity.vocab,
        state.capacity.samples,
        HAS_STOPS=has_stops,
        HAS_PAGES=pages is not None,
        BLOCK=block,
        num_warps=min(16, max(1, block // 64)),
        **pdl(tokens.device),
    )
    if pages is not None:
        assign(state, rows)


SCALARS = ("next_sample", "total", "live", "max_own", "finished", "bad", "steps", "accept")
"""Scalars of the state in the order of the kernel's arguments."""


POINTERS = 38
"""Arguments of the kernel before `rows`."""


# Pointers known to be aligned would make Triton give each thread neighbouring rows, and convert
# between layouts through shared memory some thirty times.
@triton.jit(
    do_not_specialize=["rows", "new_tokens", "vocab", "samples"],
    do_not_specialize_on_alignment=range(POINTERS),
)
def _advance(
    tokens,
    logprobs,
    sample,
    slot,
    token,
    position,
    own,
    group,
    body,
    body_start,
    own_length,
    stop_state,
    uniform,
    prompt,
    id_low,
    id_high,
    limit,
    out_tokens,
    out_logprobs,
    out_length,
    out_reason,
    prompt_body_start,
    prompt_body,
    last_token,
    is_eos,
    next_state,
    seed,
    generated,
    next_sample,
    total,
    live,
    max_own,
    finished,
    bad,
    steps,
    accept,
    queue,
    seats,
    rows,
    new_tokens,
    vocab,
    samples,
    HAS_STOPS: tl.constexpr,
    HAS_PAGES: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr = False,
):
    if PDL:
        take_turn()
    row = tl.arange(0, BLOCK)
    inside = row < rows
    old_sample = tl.load(sample + row, mask=inside, other=-1)
    old_slot = tl.load(slot + row, mask=inside, other=0)
    old_own = tl.load(own + row, mask=inside, other=0)
    old_position = tl.load(position + row, mask=inside, other=0)
    old_group = tl.load(group + row, mask=inside, other=0)
    old_body = tl.load(body + row, mask=inside, other=0)
    old_start = tl.load(body_start + row, mask=inside, other=0)
    new_token = tl.load(tokens + row, mask=inside, other=0)
    logprob = tl.load(logprobs + row, mask=inside, other=0.0)
    seed_low, seed_high = tl.load(seed), tl.load(seed + 1)
    waiting, num_samples = tl.load(next_sample), tl.load(total)
    old_finished, old_bad, old_steps = tl.load(finished), tl.load(bad), tl.load(steps)
    old_generated = tl.load(generated)

    is_live = old_sample >= 0
    length = old_own + 1
    low, high = (
        tl.load(id_low + old_sample, mask=is_live, other=0),
        tl.load(id_high + old_sample, mask=is_live, other=0),
    )
    reason, state = _ending(
        is_live,
        new_token,
        logprob,
        length >= tl.load(limit + old_sample, mask=is_live, other=0),
        tl.load(is_eos + new_token, mask=is_live, other=0) != 0,
        stop_state + row,
        next_state,
        accept,
        vocab,
        HAS_STOPS,
    )

    # Where rows go: survivors to the front, the others behind them, both in order.
    kept = (is_live & (reason == 0)).to(tl.int32)
    before = tl.cumsum(kept) - kept
    num_kept = tl.sum(kept)
    num_live = tl.sum(is_live.to(tl.int32))
    target = tl.where(kept != 0, before, num_kept + row - before)
    num_new = tl.minimum(
        _num_seats(rows - num_kept, num_kept, seats, HAS_PAGES), num_samples - waiting
    )
    longest = tl.max(tl.where(kept != 0, length + 1, tl.where(row < num_new, 1, 0)))
    is_bad = is_live & (reason == NOT_FINITE)
    first_bad = tl.min(tl.where(is_bad, old_sample + 1, NO_SAMPLE))
    draw = uniform53(seed_low, seed_high, low, high, length)

    # Waiting samples take the rows behind the survivors; what is left is idle.
    is_free = inside & (row >= num_kept)
    is_new = is_free & (row < num_kept + num_new)
    comer = _comers(waiting + row - num_kept, is_new, queue, samples, HAS_PAGES)
    comer_prompt = tl.load(prompt + comer, mask=is_new, other=-1)
    comer_body = tl.load(prompt_body + comer_prompt, mask=is_new, other=0)
    comer_low = tl.load(id_low + comer, mask=is_new, other=0)
    comer_high = tl.load(id_high + comer, mask=is_new, other=0)
    zero = tl.zeros_like(old_own)
    comer_draw = uniform53(seed_low, seed_high, comer_low, comer_high, zero)
    newcomer = (
        comer,
        tl.load(last_token + comer_prompt, mask=is_new, other=0),
        comer_body.to(tl.int64),
        zero,
        comer_prompt,
        comer_body,
        tl.load(prompt_body_start + comer_prompt, mask=is_new, other=0),
        is_new.to(tl.int32),
        zero,
        tl.where(is_new, comer_draw, 0.0),
    )
    survivor = (
        old_sample,
        new_token,
        old_position + 1,
        length,
        old_group,
        old_body,
        old_start,
        length + 1,
        state,
        draw,
    )

    tl.debug_barrier()  # nothing is written before every row has been read
    place = old_sample.to(tl.int64) * new_tokens + old_own
    tl.store(out_tokens + place, new_token.to(tl.int32), mask=is_live)
    tl.store(out_logprobs + place, logprob, mask=is_live)
    has_ended = is_live & (reason != 0)
    tl.store(out_length + old_sample, length, mask=has_ended)
    tl.store(out_reason + old_sample, reason.to(tl.int8), mask=has_ended)

    tl.store(slot + target, old_slot, mask=inside)
    fields = (
        sample,
        token,
        position,
        own,
        group,
        body,
        body_start,
        own_length,
        stop_state,
        uniform,
    )
    _store(fields, target, survivor, kept != 0)
    _store(fields, row, newcomer, is_free)

    tl.store(next_sample, waiting + num_new)
    tl.store(live, num_kept + num_new)
    tl.store(max_own, longest)
    tl.store(finished, old_finished + num_live - num_kept)
    tl.store(bad, tl.where((old_bad == 0) & (first_bad != NO_SAMPLE), first_bad, old_bad))
    tl.store(steps, old_steps + (num_live > 0).to(tl.int32))
    tl.store(generated, old_generated + num_live)


@triton.jit
def _num_seats(num_free, num_kept, seats, HAS_PAGES: tl.constexpr):
    """Samples that may be seated in so many free rows."""
    if HAS_PAGES:
        # Where nobody is left, one is seated whatever the expectation says.
        return tl.minimum(num_free, tl.maximum(tl.load(seats), (num_kept == 0).to(tl.int32)))
    return num_free


@triton.jit
def _comers(number, is_new, queue, samples, HAS_PAGES: tl.constexpr):
    """The samples with these numbers in the queue, which without pages is their order."""
    if HAS_PAGES:
        return tl.load(queue + number % samples, mask=is_new, other=-1)
    return tl.where(is_new, number, -1)


@triton.jit
def _ending(
    is_live,
    new_token,
    logprob,
    is_full,
    is_end,
    stop_state,
    next_state,
    accept,
    vocab,
    HAS_STOPS: tl.constexpr,
):
    """Why rows end, 0: they go on; and their stop states after the new token."""
    reason = tl.where(is_full, LENGTH, 0)
    state = tl.zeros_like(reason)
    if HAS_STOPS:
        state = tl.load(stop_state, mask=is_live, other=0)
        where = state.to(tl.int64) * vocab + new_token
        state = tl.load(next_state + where, mask=is_live, other=0).to(tl.int32)
        reason = tl.where(state == tl.load(accept), STOP_STRING, reason)
    reason = tl.where(is_end, EOS, reason)
    is_finite = tl.abs(logprob) < float("inf")  # false for NaN too
    return tl.where(is_finite, reason, NOT_FINITE), state


@triton.jit
def _store(fields, at, values, mask):
    """Writes one value to each field of the rows `at`."""
    for i in tl.static_range(len(fields)):
        tl.store(fields[i] + at, values[i], mask=mask)
