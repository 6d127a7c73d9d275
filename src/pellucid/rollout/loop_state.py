"""What the decoding loop knows, on the device that decodes: rows, samples, prompts, counts.

A step feeds one token a row and gets one back; `advance_plain` files it, ends what has ended, moves
the survivors to the front and seats waiting samples behind them. The host need not look on.
`kernels/bookkeeping.py` does the same in one launch; this is its twin, bit for bit.

Rows are in the order of their samples, but for those that began again (`rollout.pages`), so the
samples of a prompt stand side by side. What a row wrote to the cache stays in its slot: a row that
moves takes its slot along.

Shapes: S slots, B rows decoded, N samples, P prompts, L new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.records import StopReason
from pellucid.rollout.loop_buffers import Capacity, Counts, Work, buffers, fill, needs
from pellucid.rollout.pages import NO_PAGES, Pages, PageSize, assign_plain
from pellucid.rollout.philox_torch import uniforms_of

REASONS = dict(enumerate(StopReason, start=1))
"""Code in `out_reason` -> why the sample ended; the codes are also in kernels/bookkeeping.py."""
NOT_FINITE = 4
"""Code of a sample that ended because its log-probability was NaN or infinite."""
EOS, STOP_STRING, LENGTH = REASONS


@dataclass(slots=True, eq=False, kw_only=True)
class LoopState:
    """Tensors of fixed address, so that captured graphs go on reading them after `reset`.

    Example: state = LoopState.create(64, work, vocab_size=V, eos_ids=(2,), seed=0, device=device);
    state.start(64); then per step advance(state, tokens, logprobs, rows) until read().live == 0.
    """

    capacity: Capacity

    sample: Tensor
    """[S] int32, -1: idle. Like all rows: the token to be fed in the coming step."""
    slot: Tensor
    """[S] int32, a permutation of the slots."""
    token: Tensor
    """[S] int64, 0: idle."""
    position: Tensor
    """[S] int64, absolute, 0: idle."""
    own: Tensor
    """[S] int32, own index of the token: how many were generated before it; 0: idle."""
    group: Tensor
    """[S] int32, prompt, -1: idle."""
    body: Tensor
    """[S] int32, tokens of the prompt's body, 0: idle."""
    body_start: Tensor
    """[S] int64, where the body begins, 0: idle."""
    own_length: Tensor
    """[S] int32, own tokens that attention sees in the coming step: own + 1; 0: idle."""
    stop_state: Tensor
    """[S] int32, state of the stop table after the tokens generated so far, 0: idle."""
    uniform: Tensor
    """[S] float64, the draw for the token that the coming step samples, 0: idle."""

    prompt: Tensor
    """[N] int32."""
    id_low: Tensor
    """[N] int32, bits of the low word of the sample id."""
    id_high: Tensor
    """[N] int32."""
    limit: Tensor
    """[N] int32."""
    out_tokens: Tensor
    """[N, L] int32."""
    out_logprobs: Tensor
    """[N, L] float32."""
    out_length: Tensor
    """[N] int32, 0: has not ended."""
    out_reason: Tensor
    """[N] int8: a key of REASONS or NOT_FINITE, 0: has not ended."""

    prompt_body_start: Tensor
    """[P] int64."""
    prompt_body: Tensor
    """[P] int32."""
    last_token: Tensor
    """[P] int64."""

    is_eos: Tensor
    """[V] uint8."""
    next_state: Tensor | None
    """[states, V] int16, see `rollout/stop_table.py`."""
    seed: Tensor
    """[2] int32, bits of the low and the high word."""
    scalars: Tensor
    """[8] int32, see Counts; `views` names its elements."""
    generated: Tensor
    """[1] int64, tokens generated."""
    views: dict[str, Tensor]
    """Scalars by name, [1] each."""
    pages: Pages | None
    """None: a row's slot is one piece of memory."""

    ROWS: ClassVar = (
        "sample", "token", "position", "own", "group", "body", "body_start", "own_length",
        "stop_state", "uniform",
    )  # fmt: skip
    """What a row is: all that moves with it but its slot."""

    @classmethod
    def create(
        cls,
        slots: int,
        work: Work,
        *,
        vocab_size: int,
        eos_ids: Iterable[int],
        seed: int,
        device: torch.device,
        next_state: NDArray[np.int16] | None = None,
        pages: PageSize = NO_PAGES,
        expected_pages: int = 1,
    ) -> LoopState:
        """Buffers just large enough for `work` and `slots`, reset for it.

        `next_state` [states, V]: table of stop strings, None where there are none.
        """
        capacity = needs(slots, work, vocab_size, next_state)._replace(pages=pages)
        state = cls.sized(capacity, device)
        state.reset(
            work,
            eos_ids=eos_ids,
            seed=seed,
            next_state=next_state,
            expected_pages=expected_pages,
        )
        return state

    @classmethod
    def sized(cls, capacity: Capacity, device: torch.device) -> LoopState:
        """Buffers of these sizes, to be reset before they are used."""
        return cls(**buffers(capacity, device))

    def fits(
        self,
        slots: int,
        work: Work,
        *,
        vocab_size: int,
        next_state: NDArray[np.int16] | None = None,
    ) -> bool:
        """Whether `reset` may take this work: no buffer would have to grow."""
        return self.capacity.holds(needs(slots, work, vocab_size, next_state))

    def reset(
        self,
        work: Work,
        *,
        eos_ids: Iterable[int],
        seed: int,
        next_state: NDArray[np.int16] | None = None,
        expected_pages: int = 1,
    ) -> None:
        """Forgets the last call: no row is live, all samples of `work` wait. `seed` < 2^64;
        `expected_pages`: see `Pages.reset`."""
        assert self.fits(
            self.capacity.slots, work, vocab_size=self.capacity.vocab, next_state=next_state
        ), "ask fits() first"
        for tensor in self.volatile:
            tensor.zero_()
        self.sample.fill_(-1)
        self.group.fill_(-1)
        torch.arange(self.capacity.slots, out=self.slot)
        for results in (self.out_tokens, self.out_logprobs, self.out_length, self.out_reason):
            results.zero_()
        ids = np.asarray(work.sample_ids).astype(np.uint64)
        fill(self.prompt, work.prompts)
        fill(self.id_low, (ids & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32))
        fill(self.id_high, (ids >> np.uint64(32)).astype(np.uint32).view(np.int32))
        fill(self.limit, work.limits)
        fill(self.prompt_body_start, work.body_starts)
        fill(self.prompt_body, work.bodies)
        fill(self.last_token, work.last_tokens)
        self._set_stops(eos_ids, next_state)
        words = np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32)
        fill(self.seed, words.view(np.int32))
        accept = -1 if next_state is None else len(next_state) - 1
        counts = Counts(0, len(ids), 0, 0, 0, 0, 0, accept)
        fill(self.scalars, np.array(counts))
        if self.pages is not None:
            self.pages.reset(expected_pages)

    @property
    def volatile(self) -> tuple[Tensor, ...]:
        """What a step changes and does not write again from what it reads: rows and counts."""
        rows = tuple(getattr(self, name) for name in self.ROWS)
        pages = () if self.pages is None else self.pages.volatile
        return (*rows, self.slot, self.scalars, self.generated, *pages)

    def start(self, rows: int) -> None:
        """Seats the first samples in the first `rows` rows."""
        nothing = self.token.new_zeros(rows)
        advance_plain(self, nothing, nothing.float(), rows)

    def read(self) -> Counts:
        """The scalars; waits for the device."""
        return Counts(*self.scalars.tolist())

    def _set_stops(self, eos_ids: Iterable[int], next_state: NDArray[np.int16] | None) -> None:
        is_eos = np.zeros(self.capacity.vocab, dtype=np.uint8)
        is_eos[[i for i in eos_ids if i < len(is_eos)]] = 1
        fill(self.is_eos, is_eos)
        if next_state is not None:
            assert self.next_state is not None, "a table fits only where there is room for one"
            fill(self.next_state, next_state)
        elif self.next_state is not None:
            self.next_state[0] = 0


def advance_plain(state: LoopState, tokens: Tensor, logprobs: Tensor, rows: int) -> None:
    """Files `tokens` [B] int64 with `logprobs` [B] float32 of a step and prepares the next one.

    B = `rows`; rows behind them must be idle. A row ends with an end token, a stop string, its
    sample's limit or a log-probability that is not finite. Survivors keep their order and move to
    the front, waiting samples follow, and the slots set free go, in order, to the rows behind the
    survivors. With pages, no more samples are seated than these hold, and `assign_plain` follows.
    """
    sample, own = state.sample[:rows], state.own[:rows]
    is_live = sample >= 0
    tokens = tokens.where(is_live, 0)
    known = sample.clamp(min=0).long()
    stop_state = _next_stop_state(state, tokens, rows)
    reason = _reasons(state, tokens, logprobs, stop_state, own + 1 >= state.limit[known])
    is_kept = is_live & (reason == 0)
    _file(state, tokens, logprobs, reason, is_live)

    _count(state, logprobs, is_live, is_kept)
    # Where each row goes: survivors to the front, the others behind them, both in order.
    before = is_kept.long().cumsum(0) - is_kept.long()
    row = torch.arange(rows, device=sample.device)
    num_kept = is_kept.sum()
    source = torch.empty_like(row)
    source[torch.where(is_kept, before, num_kept + row - before)] = row
    waiting = state.views["next_sample"] + row - num_kept
    is_new = (row >= num_kept) & (waiting < state.views["total"])
    comer = waiting
    if state.pages is not None:
        queue = state.pages.queue
        # Where nobody is left, one is seated whatever the expectation says.
        is_new &= row < num_kept + torch.maximum(state.pages.seats, (num_kept == 0).int())
        comer = queue[waiting.clamp(min=0) % len(queue)]
    _seat(
        state,
        is_old=row < num_kept,
        source=source,
        stop_state=stop_state,
        tokens=tokens,
        arrival=torch.where(is_new, comer, -1),
    )
    num_new = is_new.sum()
    state.views["next_sample"].add_(num_new)
    state.views["live"].copy_((num_kept + num_new)[None])
    state.views["max_own"].copy_(state.own_length[:rows].max()[None])
    if state.pages is not None:
        assign_plain(state, rows)


def _next_stop_state(state: LoopState, tokens: Tensor, rows: int) -> Tensor:
    stop_state = state.stop_state[:rows]
    if state.next_state is None:
        return stop_state.clone()
    return state.next_state[stop_state.long(), tokens].int()


def _reasons(
    state: LoopState, tokens: Tensor, logprobs: Tensor, stop_state: Tensor, is_full: Tensor
) -> Tensor:
    """[B] int8: why each row ends, 0: it goes on."""
    reason = torch.where(is_full, LENGTH, 0)
    reason = torch.where(stop_state == state.views["accept"], STOP_STRING, reason)
    reason = torch.where(state.is_eos[tokens] != 0, EOS, reason)
    return torch.where(logprobs.isfinite(), reason, NOT_FINITE).to(torch.int8)


def _file(
    state: LoopState, tokens: Tensor, logprobs: Tensor, reason: Tensor, is_live: Tensor
) -> None:
    rows = len(tokens)
    sample, own = state.sample[:rows][is_live].long(), state.own[:rows][is_live]
    state.out_tokens[sample, own.long()] = tokens[is_live].int()
    state.out_logprobs[sample, own.long()] = logprobs[is_live]
    state.out_reason[sample] = reason[is_live]
    state.out_length[sample] = torch.where(reason[is_live] != 0, own + 1, 0)


def _count(state: LoopState, logprobs: Tensor, is_live: Tensor, is_kept: Tensor) -> None:
    num_live = is_live.sum()
    state.views["finished"].add_(num_live - is_kept.sum())
    state.views["steps"].add_(num_live > 0)
    state.generated.add_(num_live)
    is_bad = is_live & ~logprobs.isfinite()
    none = 2**31 - 1
    first = torch.where(is_bad, state.sample[: len(is_bad)] + 1, none).min()
    bad = state.views["bad"]
    bad.copy_(torch.where((bad == 0) & (first < none), first, bad))


def _seat(
    state: LoopState,
    *,
    is_old: Tensor,
    source: Tensor,
    stop_state: Tensor,
    tokens: Tensor,
    arrival: Tensor,
) -> None:
    """Writes all rows: survivors from `source` [B], new samples `arrival` [B], -1: none, idle."""
    rows = len(source)
    is_new = arrival >= 0
    comer = arrival.clamp(min=0)
    prompt = state.prompt[comer].long()
    state.slot[:rows] = state.slot[source]

    def put(target: Tensor, old: Tensor, new: Tensor | int, idle: int = 0) -> None:
        target[:rows] = torch.where(is_old, old[source], torch.where(is_new, new, idle))

    put(state.sample, state.sample, arrival, -1)
    put(state.token, tokens, state.last_token[prompt])
    put(state.position, state.position + 1, state.prompt_body[prompt])
    put(state.own, state.own + 1, 0)
    put(state.group, state.group, prompt, -1)
    put(state.body, state.body, state.prompt_body[prompt])
    put(state.body_start, state.body_start, state.prompt_body_start[prompt])
    put(state.stop_state, stop_state, 0)
    is_live = is_old | is_new
    state.own_length[:rows] = torch.where(is_live, state.own[:rows] + 1, 0)
    sample = state.sample[:rows].clamp(min=0).long()
    drawn = uniforms_of(state.seed, state.id_low[sample], state.id_high[sample], state.own[:rows])
    state.uniform[:rows] = torch.where(is_live, drawn, 0.0)
