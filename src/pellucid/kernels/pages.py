"""Pages of own keys and values after a step's bookkeeping, in one launch: the twin is
`assign_plain` in `rollout/pages.py`, where the rule and every tensor are described.

Shapes: B rows, N samples, P pages, M pages of the longest completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from pellucid.kernels.launch import pdl, take_turn

if TYPE_CHECKING:
    from pellucid.rollout.loop_state import LoopState

POINTERS = 24
"""Arguments of the kernel before `rows`."""


def assign(state: LoopState, rows: int) -> None:
    """Gives rows the pages of their coming step, takes back what they no longer need, and lets the
    last begin again where pages run out. B = `rows`, behind which all are idle.
    """
    pages = state.pages
    assert pages is not None, "there are pages"
    block = triton.next_power_of_2(rows)
    _assign[(1,)](
        *(getattr(state, name) for name in state.ROWS),
        state.slot,
        pages.table,
        pages.held,
        pages.free,
        pages.page,
        pages.place,
        pages.queue,
        pages.num_free,
        pages.seats,
        pages.expected,
        pages.restarts,
        *(state.views[name] for name in ("total", "live", "max_own")),
        rows,
        len(pages.queue),
        pages.size.per_row,
        pages.size.positions,
        BLOCK=block,
        num_warps=min(16, max(1, block // 64)),
        **pdl(state.token.device),
    )


@triton.jit(
    do_not_specialize=["rows", "num_queued", "per_row", "positions"],
    do_not_specialize_on_alignment=range(POINTERS),
)
def _assign(
    sample, token, position, own, group, body, body_start, own_length, stop_state, uniform,
    slot, table, held, free, page, place, queue, num_free, seats, expected, restarts,
    total, live, max_own,
    rows, num_queued, per_row, positions,
    BLOCK: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    if PDL:
        take_turn()
    row = tl.arange(0, BLOCK)
    inside = row < rows
    who = tl.load(sample + row, mask=inside, other=-1)
    length = tl.load(own_length + row, mask=inside, other=0)
    seat = tl.load(slot + row, mask=inside, other=0)
    has = tl.load(held + seat, mask=inside, other=0)
    num_left, hoped = tl.load(num_free), tl.load(expected)
    num_live, num_total, num_again = tl.load(live), tl.load(total), tl.load(restarts)
    need = tl.cdiv(length, positions)
    is_live = who >= 0
    grows = tl.maximum(need - has, 0)
    common = tl.minimum(need, has)

    # A row goes on if there are pages for it and for those before, with what those behind leave.
    left_behind = tl.sum(common) - tl.cumsum(common)
    room = num_left + tl.sum(has - common) + left_behind
    is_going = is_live & (room >= tl.cumsum(grows))
    num_going = tl.sum(is_going.to(tl.int32))
    is_gone = is_live & (row >= num_going)

    kept = tl.where(is_going, common, 0)
    left = has - kept
    first = num_left + tl.cumsum(left) - left
    mine = table + seat.to(tl.int64) * per_row
    for j in range(tl.max(left)):
        is_leaving = j < left
        number = tl.load(mine + has - 1 - j, mask=is_leaving, other=0)
        tl.store(free + first + j, number, mask=is_leaving)
    num_left += tl.sum(left)
    tl.debug_barrier()  # what was left can be taken
    is_growing = is_going & (grows > 0)
    taken = is_growing.to(tl.int32)
    rank = tl.cumsum(taken) - taken
    fresh = tl.load(free + num_left - 1 - rank, mask=is_growing, other=0)
    newest = tl.load(mine + need - 1, mask=is_going & (grows == 0), other=0)
    newest = tl.where(is_growing, fresh, newest)
    tl.store(mine + has, fresh, mask=is_growing)
    tl.store(held + seat, tl.where(is_going, need, 0), mask=inside)
    tl.store(page + row, tl.where(is_going, newest, -1), mask=inside)
    tl.store(place + row, tl.where(is_going, (length - 1) % positions, 0), mask=inside)
    num_left -= tl.sum(taken)
    promised = tl.sum(tl.where(is_going, tl.maximum(hoped - need, 0), 0))
    tl.store(num_free, num_left)
    tl.store(seats, tl.maximum(num_left - promised, 0) // hoped)

    again = (row - num_going + num_total) % num_queued
    tl.store(queue + again, who, mask=is_gone)
    num_gone = tl.sum(is_gone.to(tl.int32))
    tl.store(total, num_total + num_gone)
    tl.store(live, num_live - num_gone)
    tl.store(restarts, num_again + num_gone)
    tl.store(max_own, tl.max(tl.where(is_going, length, 0)))
    none = tl.zeros_like(row)
    for field in tl.static_range(2):
        tl.store((sample, group)[field] + row, none - 1, mask=is_gone)
    fields = (token, position, own, body, body_start, own_length, stop_state, uniform)
    for field in tl.static_range(len(fields)):
        tl.store(fields[field] + row, none, mask=is_gone)
