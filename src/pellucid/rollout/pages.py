"""Pages for own keys and values: a row takes the next one when it is full, and leaves all when it
ends.

A slot with room for the longest completion is mostly empty where limits are far above what is
written. With pages, rows share the memory by what they hold, so that many more are decoded at a
time. A waiting sample is seated only where it and all live rows would find room up to the length
that is expected. Where that was too hopeful and no page is left, the last rows give theirs up and
begin again later: draws hang on nothing but seed, sample and index, so that they are sampled again
to the same tokens from the same logits. The first row always goes on, so that all end some time.

`kernels/pages.py` does this on the device; `assign_plain` is its twin, bit for bit.

Shapes: S slots, B rows decoded, N samples, P pages, M pages of the longest completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pellucid.rollout.loop_state import LoopState


class PageSize(NamedTuple):
    """How many pages there are, and how they are counted; all 0: there are none."""

    total: int = 0
    """P, at least M: one row can always go on to its end."""
    per_row: int = 0
    """M."""
    positions: int = 0
    """Of a page."""


NO_PAGES = PageSize()


@dataclass(slots=True, eq=False, kw_only=True)
class Pages:
    """Who holds which page, at fixed addresses."""

    size: PageSize
    table: Tensor
    """[S, M] int32: the pages of each slot, in the order of their positions."""
    held: Tensor
    """[S] int32: how many they are."""
    free: Tensor
    """[P] int32, a stack: the first `num_free` belong to nobody."""
    page: Tensor
    """[S] int32: the page of the token that a row is fed in the coming step, -1: idle."""
    place: Tensor
    """[S] int32: where in the page."""
    queue: Tensor
    """[N] int32, a ring: the samples that wait, from `next_sample` up to `total`."""
    num_free: Tensor
    """[1] int32."""
    seats: Tensor
    """[1] int32: samples that may be seated beside the rows that go on."""
    expected: Tensor
    """[1] int32, 1 … M: pages that a sample is expected to need."""
    restarts: Tensor
    """[1] int32: rows that had to begin again."""

    @classmethod
    def create(cls, slots: int, samples: int, size: PageSize, device: torch.device) -> Pages:
        """Room for `slots` rows and `samples` samples; `reset` comes before its use."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        return cls(
            size=size,
            table=zeros(slots, size.per_row),
            held=zeros(slots),
            free=zeros(size.total),
            page=zeros(slots),
            place=zeros(slots),
            queue=zeros(samples),
            num_free=zeros(1),
            seats=zeros(1),
            expected=zeros(1),
            restarts=zeros(1),
        )

    def reset(self, expected: int) -> None:
        """All pages are free and all samples wait in their order; each is expected to need
        `expected` pages."""
        expected = min(max(expected, 1), self.size.per_row)
        for tensor in self.volatile:
            tensor.zero_()
        self.page.fill_(-1)
        torch.arange(self.size.total, out=self.free)
        torch.arange(len(self.queue), out=self.queue)
        self.num_free.fill_(self.size.total)
        self.expected.fill_(expected)
        self.seats.fill_(self.size.total // expected)

    @property
    def volatile(self) -> tuple[Tensor, ...]:
        """What a step changes."""
        rows = (self.table, self.held, self.free, self.page, self.place, self.queue)
        return (*rows, self.num_free, self.seats, self.restarts)


def assign_plain(state: LoopState, rows: int) -> None:
    """Gives the rows of `advance_plain` the pages of their coming step and takes back what they no
    longer need; the last rows begin again where pages run out. B = `rows`.
    """
    pages = state.pages
    assert pages is not None, "there are pages"
    # Read from a GPU and written to it at once, not row by row.
    slot, sample = state.slot[:rows].tolist(), state.sample[:rows].tolist()
    table, holds = pages.table.cpu(), pages.held.cpu()
    free = pages.free[: int(pages.num_free)].tolist()
    held = [int(holds[place]) for place in slot]
    needed = [-(-length // pages.size.positions) for length in state.own_length[:rows].tolist()]
    places = [(length - 1) % pages.size.positions for length in state.own_length[:rows].tolist()]
    num_live = sum(number >= 0 for number in sample)
    num_going = _num_going(num_live, held, needed, free=len(free))

    _restart(state, num_going, num_live)
    for row in range(rows):
        kept = min(needed[row], held[row]) if row < num_going else 0
        free.extend(table[slot[row], kept : held[row]].tolist()[::-1])
        held[row] = kept
    pages.free[: len(free)] = torch.tensor(free, dtype=torch.int32)
    for row in range(num_going):
        if needed[row] > held[row]:
            table[slot[row], held[row]] = free.pop()
            held[row] = needed[row]
    newest = [int(table[slot[row], needed[row] - 1]) for row in range(num_going)]
    holds[slot] = torch.tensor(held, dtype=torch.int32)
    pages.table.copy_(table)
    pages.held.copy_(holds)
    pages.num_free.fill_(len(free))
    idle = rows - num_going
    pages.page[:rows] = torch.tensor(newest + [-1] * idle, dtype=torch.int32)
    pages.place[:rows] = torch.tensor(places[:num_going] + [0] * idle, dtype=torch.int32)

    expected = int(pages.expected)
    promised = sum(max(expected - n, 0) for n in needed[:num_going])
    pages.seats.fill_(max(len(free) - promised, 0) // expected)


def _num_going(num_live: int, held: list[int], needed: list[int], *, free: int) -> int:
    """Of the live rows, which are the first, the most from the first on that find a page where they
    need one, when the others leave theirs. A row needs one page more than it holds at the most.
    """
    surplus = sum(max(has - need, 0) for has, need in zip(held, needed, strict=True))
    grows = [max(need - has, 0) for has, need in zip(held, needed, strict=True)]
    common = [min(need, has) for has, need in zip(held, needed, strict=True)]
    for count in range(num_live, 0, -1):
        if free + surplus + sum(common[count:num_live]) >= sum(grows[:count]):
            return count
    return 0


def _restart(state: LoopState, first: int, end: int) -> None:
    """Sends the rows [first, end), the last that are live, back to the end of the queue."""
    pages = state.pages
    assert pages is not None, "there are pages"
    if first == end:
        return
    last = torch.arange(end - first, device=state.sample.device) + state.views["total"]
    pages.queue[last % len(pages.queue)] = state.sample[first:end]
    state.views["total"].add_(end - first)
    state.views["live"].sub_(end - first)
    pages.restarts.add_(end - first)
    for name in state.ROWS:
        getattr(state, name)[first:end] = -1 if name in ("sample", "group") else 0
    state.views["max_own"].copy_(state.own_length[:first].max()[None])
