"""Drafts for the rows of a decoding step: found, laid out to be decoded together, and checked.

The twins are in `rollout/drafts.py`, where the idea and every tensor are described. None of the
launches depends on what the device holds, so a graph can hold them.

Shapes: B rows, k drafts a row, L new tokens, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from pellucid.kernels.bookkeeping import advance
from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.philox import uniform53

if TYPE_CHECKING:
    from pellucid.rollout.drafts import DraftRows
    from pellucid.rollout.loop_state import LoopState

BLOCK = 512
"""Positions that a program compares at a time."""
LENGTH_UNIT, SOURCE_UNIT = tl.constexpr(2**48), tl.constexpr(2**32)
"""A match is a number that grows with its worth: its length, then SOURCES less the source's number,
then its place."""


def propose(state: LoopState, drafts: DraftRows, rows: int, num_drafts: int) -> None:
    """Fills `drafts` with `rows` times `num_drafts` + 1 rows for one step."""
    assert 0 < rows <= drafts.max_rows, "drafts have room for few rows"
    assert 0 < num_drafts <= drafts.max_drafts, "drafts have room for few tokens a row"
    samples = (state.sample, state.own, state.prompt, state.views["total"])
    outputs = (state.out_tokens, state.out_length)
    block_rows, device = triton.next_power_of_2(rows), state.token.device
    sources = drafts.found.shape[1]
    _search[(rows, sources)](
        drafts.found, *samples, *outputs, rows, state.capacity.new_tokens,
        SOURCES=sources, BLOCK_ROWS=block_rows, BLOCK=BLOCK, **pdl(device, is_early=False),
    )  # fmt: skip
    _lay_out[(rows,)](
        drafts.token, drafts.slot, drafts.position, drafts.own, drafts.own_length,
        drafts.group, drafts.body, drafts.body_start, drafts.uniform, drafts.found,
        state.token, state.slot, state.position, state.group, state.body, state.body_start,
        state.id_low, state.id_high, state.limit, state.seed,
        *samples, *outputs, rows, state.capacity.new_tokens,
        SOURCES=sources, BLOCK_ROWS=block_rows, WIDTH=num_drafts + 1,
        BLOCK_WIDTH=triton.next_power_of_2(num_drafts + 1), num_warps=1, **pdl(device),
    )  # fmt: skip


def accept(
    state: LoopState,
    drafts: DraftRows,
    tokens: torch.Tensor,
    logprobs: torch.Tensor,
    rows: int,
    num_drafts: int,
) -> None:
    """Files what a step drew for the rows of `propose`, as far as its drafts came true, and
    prepares the next step.

    `tokens` int64 and `logprobs` float32 are [B * (k + 1)].
    """
    wide = rows * (num_drafts + 1)
    assert tokens.dtype == torch.int64, "tokens are int64"
    assert logprobs.dtype == torch.float32, "log-probabilities are float32"
    assert tokens.shape == logprobs.shape == (wide,), "one draw for each row laid out"
    assert tokens.is_contiguous(), "tokens are read as one run"
    assert logprobs.is_contiguous(), "log-probabilities are read as one run"
    has_stops = state.next_state is not None
    _walk[(1,)](
        tokens, logprobs, drafts.token, drafts.own_length,
        state.sample, state.own, state.position, state.stop_state,
        state.out_tokens, state.out_logprobs,
        state.is_eos, state.next_state if has_stops else state.is_eos, state.views["accept"],
        drafts.last_token, drafts.last_logprob, drafts.counts, state.generated,
        rows, state.capacity.new_tokens, state.capacity.vocab,
        HAS_STOPS=has_stops, NUM_DRAFTS=num_drafts, BLOCK=triton.next_power_of_2(rows),
        num_warps=1, **pdl(tokens.device),
    )  # fmt: skip
    advance(state, drafts.last_token[:rows], drafts.last_logprob[:rows], rows)


@triton.jit
def _source(number, me, prompt, total):
    """The sample that is source `number` of the sample `me`, -1 where there is none."""
    distance = (number + 1) // 2
    other = tl.where(number % 2 == 1, me - distance, me + distance)
    is_inside = (me >= 0) & (other >= 0) & (other < tl.load(total))
    mine = tl.load(prompt + me, mask=is_inside, other=0)
    return tl.where(tl.load(prompt + other, mask=is_inside, other=-1) == mine, other, -1)


@triton.jit
def _num_known(at, sample, own, out_length, rows, BLOCK_ROWS: tl.constexpr):
    """How many tokens of a sample there are."""
    row = tl.arange(0, BLOCK_ROWS)
    is_row = tl.load(sample + row, mask=row < rows, other=-1) == at
    # A sample that is not in a row waits, with length 0, or has ended.
    num_live = tl.max(tl.where(is_row, tl.load(own + row, mask=row < rows, other=0), -1))
    return tl.where(num_live >= 0, num_live, tl.load(out_length + at))


@triton.jit(do_not_specialize=["rows", "new_tokens"])
def _search(
    found, sample, own, prompt, total, out_tokens, out_length, rows, new_tokens,
    SOURCES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (B, SOURCES): the last place in a source that follows what a row ends with, 0: none."""
    if PDL:
        take_turn()
    row, number = tl.program_id(0), tl.program_id(1)
    me, count = tl.load(sample + row), tl.load(own + row)
    key = tl.cast(0, tl.int64)
    at = _source(number, me, prompt, total)
    if (at >= 0) & (count >= 2):
        known = _num_known(at, sample, own, out_length, rows, BLOCK_ROWS)
        mine = out_tokens + me.to(tl.int64) * new_tokens + count
        theirs = out_tokens + at.to(tl.int64) * new_tokens
        last, second = tl.load(mine - 1), tl.load(mine - 2)
        third = tl.load(mine - tl.minimum(count, 3))
        best_two = tl.zeros([BLOCK], tl.int32)
        best_three = tl.zeros([BLOCK], tl.int32)
        for begin in range(0, known, BLOCK):
            place = begin + tl.arange(0, BLOCK)
            is_two = (place >= 2) & (place < known)
            is_two &= tl.load(theirs + place - 1, mask=is_two, other=0) == last
            is_two &= tl.load(theirs + place - 2, mask=is_two, other=0) == second
            # As a bound: Triton 3.9's interpreter makes an integer of a mask that meets a scalar.
            is_three = is_two & (place >= tl.where(count >= 3, 3, known))
            is_three &= tl.load(theirs + place - 3, mask=is_three, other=0) == third
            best_two = tl.where(is_two, place, best_two)
            best_three = tl.where(is_three, place, best_three)
        two, three = tl.max(best_two).to(tl.int64), tl.max(best_three).to(tl.int64)
        rank = tl.cast(number, tl.int64) * -SOURCE_UNIT + SOURCES * SOURCE_UNIT
        key = tl.where(two > 0, two + rank + 2 * LENGTH_UNIT, key)
        key = tl.where(three > 0, three + rank + 3 * LENGTH_UNIT, key)
    tl.store(found + row * SOURCES + number, key)


@triton.jit(do_not_specialize=["rows", "new_tokens"])
def _lay_out(
    to_token, to_slot, to_position, to_own, to_own_length,
    to_group, to_body, to_body_start, to_uniform, found,
    token, slot, position, group, body, body_start, id_low, id_high, limit, seed,
    sample, own, prompt, total, out_tokens, out_length, rows, new_tokens,
    SOURCES: tl.constexpr, BLOCK_ROWS: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (B): a row's newest token and the drafts after it, as rows of one step."""
    if PDL:
        take_turn()
    row = tl.program_id(0)
    me, count = tl.load(sample + row), tl.load(own + row)
    is_live = me >= 0
    key = tl.max(tl.load(found + row * SOURCES + tl.arange(0, SOURCES)))
    is_found = is_live & (key > 0)
    rank = (key % LENGTH_UNIT // SOURCE_UNIT).to(tl.int32)
    number = tl.where(is_found, rank * -1 + SOURCES, 0)
    first = (key % SOURCE_UNIT).to(tl.int32)
    at = tl.where(is_found, _source(number, me, prompt, total), 0)
    known = _num_known(at, sample, own, out_length, rows, BLOCK_ROWS)

    step = tl.arange(0, BLOCK_WIDTH)
    # A row's own tokens end where its drafts begin: from there on they repeat.
    period = tl.where(number == 0, tl.maximum(known - first, 1), WIDTH)
    place = first + tl.maximum(step - 1, 0) % period
    is_draft = (step > 0) & (place < tl.where(is_found, known, 0))
    draft = tl.load(out_tokens + at.to(tl.int64) * new_tokens + place, mask=is_draft, other=0)
    # An idle row has the limit 0.
    is_real = (step == 0) | is_draft
    is_real &= count + step < tl.load(limit + me, mask=is_live, other=0)

    here = row * WIDTH + step
    inside = step < WIDTH
    zero = tl.zeros_like(step)
    low = zero + tl.load(id_low + me, mask=is_live, other=0)
    high = zero + tl.load(id_high + me, mask=is_live, other=0)
    draw = uniform53(tl.load(seed), tl.load(seed + 1), low, high, count + step)
    newest = tl.where(step == 0, tl.load(token + row), draft.to(tl.int64))
    tl.store(to_token + here, tl.where(is_real, newest, 0), mask=inside)
    # Without a slot a row leaves the cache alone.
    tl.store(to_slot + here, tl.where(is_real, tl.load(slot + row), -1), mask=inside)
    tl.store(to_position + here, tl.where(is_real, tl.load(position + row) + step, 0), mask=inside)
    tl.store(to_own + here, tl.where(is_real, count + step, 0), mask=inside)
    tl.store(to_own_length + here, tl.where(is_real, count + step + 1, 0), mask=inside)
    tl.store(to_group + here, tl.where(is_real, tl.load(group + row), -1), mask=inside)
    tl.store(to_body + here, tl.where(is_real, tl.load(body + row), 0), mask=inside)
    tl.store(to_body_start + here, tl.where(is_real, tl.load(body_start + row), 0), mask=inside)
    tl.store(to_uniform + here, tl.where(is_real, draw, 0.0), mask=inside)


@triton.jit(do_not_specialize=["rows", "new_tokens", "vocab"])
def _walk(
    tokens, logprobs, draft, draft_length,
    sample, own, position, stop_state, out_tokens, out_logprobs,
    is_eos, next_state, accept, last_token, last_logprob, counts, generated,
    rows, new_tokens, vocab,
    HAS_STOPS: tl.constexpr, NUM_DRAFTS: tl.constexpr, BLOCK: tl.constexpr,
    PDL: tl.constexpr = False,
):  # fmt: skip
    """One program: files the tokens that drafts foresaw and moves rows past them. What was drawn
    after the last of them is left to `advance`, and so is all that ends a row."""
    if PDL:
        take_turn()
    row = tl.arange(0, BLOCK)
    inside = row < rows
    me = tl.load(sample + row, mask=inside, other=-1)
    count = tl.load(own + row, mask=inside, other=0)
    is_live = me >= 0
    state = tl.zeros_like(count)
    if HAS_STOPS:
        state = tl.load(stop_state + row, mask=is_live, other=0)
    line = me.to(tl.int64) * new_tokens + count
    first = row * (NUM_DRAFTS + 1)
    is_going = is_live
    extra = tl.zeros_like(count)
    for j in tl.static_range(NUM_DRAFTS):
        here = first + j
        drawn = tl.load(tokens + here, mask=is_going, other=0)
        logprob = tl.load(logprobs + here, mask=is_going, other=0.0)
        # A draft that is there lies below the limit.
        is_going &= tl.load(draft_length + here + 1, mask=is_going, other=0) > 0
        is_going &= tl.load(draft + here + 1, mask=is_going, other=-1) == drawn
        is_going &= tl.load(is_eos + drawn, mask=is_going, other=1) == 0
        is_going &= tl.abs(logprob) < float("inf")  # false for NaN too
        if HAS_STOPS:
            where = state.to(tl.int64) * vocab + drawn
            after = tl.load(next_state + where, mask=is_going, other=0).to(tl.int32)
            is_going &= after != tl.load(accept)
            state = tl.where(is_going, after, state)
        tl.store(out_tokens + line + j, drawn.to(tl.int32), mask=is_going)
        tl.store(out_logprobs + line + j, logprob, mask=is_going)
        extra += is_going.to(tl.int32)

    tl.store(own + row, count + extra, mask=is_live)
    tl.store(position + row, tl.load(position + row, mask=is_live, other=0) + extra, mask=is_live)
    if HAS_STOPS:
        tl.store(stop_state + row, state, mask=is_live)
    drawn = tl.load(tokens + first + extra, mask=inside, other=0)
    tl.store(last_token + row, drawn, mask=inside)
    logprob = tl.load(logprobs + first + extra, mask=inside, other=0.0)
    tl.store(last_logprob + row, logprob, mask=inside)

    num_live, num_extra = tl.sum(is_live.to(tl.int32)), tl.sum(extra)
    tl.store(counts, tl.load(counts) + (num_live > 0).to(tl.int32))
    tl.store(counts + 1, tl.load(counts + 1) + num_live)
    tl.store(counts + 2, tl.load(counts + 2) + num_extra)
    tl.store(generated, tl.load(generated) + num_extra)
