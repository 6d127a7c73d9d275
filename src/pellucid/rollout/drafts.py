"""Several tokens of a row in one step: drafts from what it and its siblings wrote before.

With few rows left a step takes as long as reading the weights, however many tokens it holds. So a
row's newest token is fed together with k guesses of those after it, each as a row of its own: the
next own index and position, the same slot and prompt, the draw of its index. All keys of a step are
written before attention reads them, and a row sees as many as its `own_length` says, so causality
needs nothing new. What the first of them draws is the next token. If that is the token that the
second was fed, what the second draws is the one after, and so on. As draws hang on nothing but
seed, sample and index, the tokens are those of decoding one at a time from the same logits,
whatever was guessed. (Speculative decoding, arXiv 2211.17192, which without such draws needs
rejection sampling; drafts by looking up n-grams: arXiv 2304.04487.)

`kernels/drafts.py` does this on the device; the twins here say what it does, bit for bit.

Shapes: B rows, k drafts a row, W = B * (k + 1) rows of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.rollout.loop_state import LoopState, advance_plain
from pellucid.rollout.philox_torch import uniforms_of

DRAFT_ROWS = 32
"""Rows from which a step is bound by its products, so that drafts would cost what they bring."""
MAX_DRAFTS = 7
SOURCES = 32
"""Samples searched at most, a power of two: the row's own, then the one before, the one after, the
second before, … They hold all of a group of 16."""
WINDOW = 32
"""Drafted steps that decide whether more are worth it."""
LEAST_ACCEPTED = 0.15
"""Tokens that drafts must bring for a live row and step: what a wider step takes longer."""
REST = 15
"""Calls without drafts after they were not worth it."""


class DraftCounts(NamedTuple):
    """What drafts brought so far."""

    steps: int = 0
    """Steps with drafts that had a live row."""
    row_steps: int = 0
    """Their live rows, summed."""
    accepted: int = 0
    """Tokens beyond one a row and step."""

    @property
    def per_row_step(self) -> float:
        """Accepted drafts for each live row of a step, 0 where there was none."""
        return self.accepted / self.row_steps if self.row_steps else 0.0

    def since(self, other: DraftCounts) -> DraftCounts:
        return DraftCounts(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def plus(self, other: DraftCounts) -> DraftCounts:
        return DraftCounts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(slots=True, eq=False, kw_only=True)
class DraftRows:
    """The rows of a step with drafts, at fixed addresses; fields are those of `LoopState`.

    Row b's newest token lies at b * (k + 1), its drafts behind it. A place without one is idle:
    length 0, and slot -1, so that it writes nothing to the cache.

    Example: drafts = DraftRows.create(device); propose(state, drafts, rows, 3); then feed
    drafts.token[: 4 * rows], draw, and accept(state, drafts, tokens, logprobs, rows, 3).
    """

    max_rows: int
    max_drafts: int
    token: Tensor
    """[W] int64."""
    slot: Tensor
    """[W] int32, -1: idle."""
    position: Tensor
    """[W] int64."""
    own: Tensor
    """[W] int32."""
    own_length: Tensor
    """[W] int32, 0: idle."""
    group: Tensor
    """[W] int32."""
    body: Tensor
    """[W] int32."""
    body_start: Tensor
    """[W] int64."""
    uniform: Tensor
    """[W] float64."""
    found: Tensor
    """[B, SOURCES] int64: matches, between the two kernels of a proposal."""
    last_token: Tensor
    """[B] int64: the last valid draw of each row, and its log-probability."""
    last_logprob: Tensor
    """[B] float32."""
    counts: Tensor
    """[3] int32, see DraftCounts."""

    @classmethod
    def create(
        cls,
        device: torch.device,
        *,
        max_rows: int = DRAFT_ROWS,
        max_drafts: int = MAX_DRAFTS,
        sources: int = SOURCES,
    ) -> DraftRows:
        """Room for up to `max_rows` rows with `max_drafts` drafts each, all idle."""
        wide = max_rows * (max_drafts + 1)

        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            max_rows=max_rows,
            max_drafts=max_drafts,
            token=zeros(torch.int64, wide),
            slot=zeros(torch.int32, wide),
            position=zeros(torch.int64, wide),
            own=zeros(torch.int32, wide),
            own_length=zeros(torch.int32, wide),
            group=zeros(torch.int32, wide),
            body=zeros(torch.int32, wide),
            body_start=zeros(torch.int64, wide),
            uniform=zeros(torch.float64, wide),
            found=zeros(torch.int64, max_rows, sources),
            last_token=zeros(torch.int64, max_rows),
            last_logprob=zeros(torch.float32, max_rows),
            counts=zeros(torch.int32, len(DraftCounts._fields)),
        )

    def read(self) -> DraftCounts:
        """The counts; waits for the device."""
        return DraftCounts(*self.counts.tolist())


class DraftPolicy:
    """Whether drafting is worth it, from what it brought; it outlives the calls of an engine.

    Example: policy = DraftPolicy(3); policy.begin(); and while policy.is_on: draft, then observe.
    """

    def __init__(self, drafts: int) -> None:
        """`drafts`: tokens drafted a row and step, at most MAX_DRAFTS; 0: never."""
        assert 0 <= drafts <= MAX_DRAFTS, f"drafts are 0 … {MAX_DRAFTS}"
        self.drafts = drafts
        self.is_on = False
        """Whether the running call drafts."""
        self.counts = DraftCounts()
        """Of all calls so far."""
        self._before = self._window = self.counts
        self._rest = 0

    def begin(self) -> None:
        """A call begins."""
        self._before = self.counts
        self.is_on = self.drafts > 0 and self._rest == 0
        self._rest = max(self._rest - 1, 0)

    def observe(self, counts: DraftCounts) -> None:
        """`counts`: since the call began."""
        self.counts = self._before.plus(counts)
        window = self.counts.since(self._window)
        if window.steps < WINDOW:
            return
        self._window = self.counts
        if window.per_row_step < LEAST_ACCEPTED:
            self.is_on = False
            self._rest = REST


def propose_plain(state: LoopState, drafts: DraftRows, rows: int, num_drafts: int) -> None:
    """Fills `drafts` with `rows` times `num_drafts` + 1 rows for one step.

    Drafts follow the last place that ends as the row does, in three tokens or else in two: in the
    row's own tokens if there is one, else in the nearest sibling. The row's own repeat at their
    end; a sibling's run out there.
    """
    width = num_drafts + 1
    sample = state.sample[:rows].tolist()
    own = state.own[:rows].tolist()
    for row in range(rows):
        here = slice(row * width, (row + 1) * width)
        _clear(drafts, here)
        if sample[row] < 0:
            continue
        room = int(state.limit[sample[row]]) - own[row]
        sources = _sources(state, row, drafts.found.shape[1])
        guesses = _guesses(sources, num_drafts)[: room - 1]
        real = slice(here.start, here.start + 1 + len(guesses))
        step = torch.arange(1 + len(guesses), device=state.token.device)
        drafts.token[real.start] = state.token[row]
        drafts.token[real.start + 1 : real.stop] = torch.tensor(guesses, dtype=torch.int64)
        for name in ("slot", "group", "body", "body_start"):
            getattr(drafts, name)[real] = getattr(state, name)[row]
        drafts.position[real] = state.position[row] + step
        drafts.own[real] = own[row] + step
        drafts.own_length[real] = own[row] + step + 1
        words = (state.id_low[sample[row]], state.id_high[sample[row]])
        low, high = (word.expand(len(step)) for word in words)
        drafts.uniform[real] = uniforms_of(state.seed, low, high, own[row] + step)


def accept_plain(
    state: LoopState,
    drafts: DraftRows,
    tokens: Tensor,
    logprobs: Tensor,
    rows: int,
    num_drafts: int,
) -> None:
    """Files the draws `tokens` and `logprobs` [W] as far as drafts came true, and prepares the
    next step.

    A draft is true that equals the draw before it, where that does not end the row. The draw after
    the last true draft is the step's last, and `advance_plain` does the rest.
    """
    width = num_drafts + 1
    first = torch.arange(rows, device=tokens.device) * width
    is_live = state.sample[:rows] >= 0
    sample = state.sample[:rows].clamp(min=0).long()
    own, stop_state = state.own[:rows], state.stop_state[:rows]
    is_going, extra = is_live, torch.zeros_like(own)
    for j in range(num_drafts):
        drawn, logprob = tokens[first + j], logprobs[first + j]
        is_drafted = (drafts.own_length[first + j + 1] > 0) & (drafts.token[first + j + 1] == drawn)
        is_going = is_going & is_drafted & logprob.isfinite() & (state.is_eos[drawn] == 0)
        if state.next_state is not None:
            after = state.next_state[stop_state.long(), drawn].int()
            is_going = is_going & (after != state.views["accept"])
            stop_state = torch.where(is_going, after, stop_state)
        place = sample[is_going], own[is_going].long() + j
        state.out_tokens[place] = drawn[is_going].int()
        state.out_logprobs[place] = logprob[is_going]
        extra = extra + is_going
    state.own[:rows] += extra
    state.position[:rows] += extra
    state.stop_state[:rows] = stop_state
    num_live = is_live.sum()
    drafts.counts += torch.stack([num_live > 0, num_live, extra.sum()]).int()
    state.generated.add_(extra.sum())
    drafts.last_token[:rows] = tokens[first + extra]
    drafts.last_logprob[:rows] = logprobs[first + extra]
    advance_plain(state, drafts.last_token[:rows], drafts.last_logprob[:rows], rows)


def _clear(drafts: DraftRows, here: slice) -> None:
    for name in ("token", "position", "own", "own_length", "body", "body_start", "uniform"):
        getattr(drafts, name)[here] = 0
    drafts.slot[here] = -1
    drafts.group[here] = -1


def _sources(state: LoopState, row: int, most: int) -> list[list[int]]:
    """The tokens of the row's sample, then of its siblings, the nearest first."""
    live = dict(zip(state.sample.tolist(), state.own.tolist(), strict=True))
    me, sources = int(state.sample[row]), []
    for number in range(most):
        other = me + (number + 1) // 2 * (-1 if number % 2 else 1)
        is_inside = 0 <= other < int(state.views["total"])
        if is_inside and state.prompt[other] == state.prompt[me]:
            length = live.get(other, int(state.out_length[other]))
            sources.append(state.out_tokens[other, :length].tolist())
    return sources


def _guesses(sources: list[list[int]], most: int) -> list[int]:
    mine = sources[0]
    for length in (3, 2):
        if len(mine) < length:
            continue
        for tokens in sources:
            for end in range(len(tokens) - 1, length - 1, -1):
                if tokens[end - length : end] == mine[-length:]:
                    tail = tokens[end:]
                    return (tail * most if tokens is mine else tail)[:most]
    return []
