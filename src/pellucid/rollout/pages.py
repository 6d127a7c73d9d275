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
    live = [row for row in range(rows) if int(state.sample[row]) >= 0]
    slot = state.slot[:rows].tolist()
    held = {row: int(pages.held[slot[row]]) for row in range(rows)}
    needed = {r: -(-int(state.own_length[r]) // pages.size.positions) for r in range(rows)}
    free = pages.free[: int(pages.num_free)].tolist()
    going = live[: _num_going(live, held, needed, free=len(free))]

    _restart(state, live[len(going) :])
    for row in range(rows):
        kept = min(needed[row], held[row]) if row in going else 0
        mine = pages.table[slot[row], : held[row]].tolist()
        free.extend(mine[kept:][::-1])
        pages.held[slot[row]] = held[row] = kept
    pages.free[: len(free)] = torch.tensor(free, dtype=torch.int32)
    for row in going:
        if needed[row] > held[row]:
            pages.table[slot[row], held[row]] = free.pop()
            pages.held[slot[row]] = needed[row]
    pages.num_free.fill_(len(free))

    expected = int(pages.expected)
    promised = sum(max(expected - needed[row], 0) for row in going)
    pages.seats.fill_(max(len(free) - promised, 0) // expected)
    for row in range(rows):
        last = int(state.own_length[row]) - 1
        is_going = row in going
        pages.page[row] = pages.table[slot[row], needed[row] - 1] if is_going else -1
        pages.place[row] = last % pages.size.positions if is_going else 0


def _num_going(live: list[int], held: dict[int, int], needed: dict[int, int], *, free: int) -> int:
    """Of the live rows, the most from the first on that find a page where they need one, when the
    others leave theirs. A row needs one page more than it holds at the most.
    """
    surplus = sum(max(n - needed[row], 0) for row, n in held.items())
    for count in range(len(live), 0, -1):
        wanted = sum(max(needed[row] - held[row], 0) for row in live[:count])
        left = sum(min(needed[row], held[row]) for row in live[count:])
        if free + surplus + left >= wanted:
            return count
    return 0


def _restart(state: LoopState, gone: list[int]) -> None:
    """Sends rows, the last that are live, back to the end of the queue."""
    pages = state.pages
    assert pages is not None, "there are pages"
    for row in gone:
        total = int(state.views["total"])
        pages.queue[total % len(pages.queue)] = state.sample[row]
        state.views["total"].fill_(total + 1)
        state.views["live"].sub_(1)
        pages.restarts.add_(1)
        for name in state.ROWS:
            getattr(state, name)[row] = -1 if name in ("sample", "group") else 0
    if gone:
        state.views["max_own"].copy_(state.own_length[: gone[0]].max()[None])
