"""Pages under the bookkeeping: the kernel against its twin, and what both must never break."""

import inspect

import numpy as np
import pytest
import torch
from loop_cases import assert_same, new_state, random_work

from pellucid.rollout.loop_state import LENGTH, STOP_STRING, LoopState, advance_plain
from pellucid.rollout.pages import PageSize

triton = pytest.importorskip("triton")
from pellucid.kernels import bookkeeping, pages  # noqa: E402  (after the check for triton)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LONGEST = 11
POSITIONS = 2
PER_ROW = -(-LONGEST // POSITIONS)


def states(seed, *, slots, num_prompts, total, expected, count=2, has_stops=False):
    work = random_work(np.random.default_rng(seed), num_prompts, longest=LONGEST)
    size = PageSize(total, PER_ROW, POSITIONS)
    made = [
        new_state(
            work, slots, has_stops=has_stops, device=DEVICE, pages=size, expected_pages=expected
        )
        for _ in range(count)
    ]
    for state in made:
        state.start(slots)
    return work, made


def token_of(sample, index):
    """Hangs on sample and index alone, as the engine's draws do; none ends a sample by itself."""
    return 1 + (sample * 31 + index * (7 - (sample % 3 == 0) * 1)) % 5


def draws(state: LoopState, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = token_of(state.sample[:rows].long(), state.own[:rows].long())
    return tokens, -(state.own[:rows].float() + 1) / 100


def assert_each_page_has_one_place(state: LoopState) -> None:
    book = state.pages
    free = book.free[: int(book.num_free)].tolist()
    held = [book.table[s, : int(n)].tolist() for s, n in enumerate(book.held.tolist())]
    assert sorted([*free, *(page for mine in held for page in mine)]) == list(range(len(book.free)))
    for row, (slot, length) in enumerate(
        zip(state.slot.tolist(), state.own_length.tolist(), strict=True)
    ):
        assert len(held[slot]) == -(-length // POSITIONS)
        last = length - 1
        expected = (held[slot][last // POSITIONS], last % POSITIONS) if length else (-1, 0)
        assert (int(book.page[row]), int(book.place[row])) == expected


CASES = [
    # slots, prompts, pages, expected
    (1, 1, PER_ROW, 1),
    (7, 4, PER_ROW, 1),
    (7, 5, 2 * PER_ROW, PER_ROW),
    (20, 12, 30, 2),
]


@pytest.mark.parametrize(("slots", "num_prompts", "total", "expected"), CASES)
def test_the_kernel_and_its_twin_agree_and_every_sample_ends_with_its_tokens(
    slots, num_prompts, total, expected
):
    work, (kernel, plain) = states(
        slots, slots=slots, num_prompts=num_prompts, total=total, expected=expected
    )
    for _ in range(40 * LONGEST):
        assert_same(kernel, plain)
        assert_each_page_has_one_place(kernel)
        if not kernel.read().live:
            break
        tokens, logprobs = draws(kernel, slots)
        bookkeeping.advance(kernel, tokens, logprobs, slots)
        advance_plain(plain, tokens, logprobs, slots)
    counts = kernel.read()
    assert counts.finished == len(work.limits)
    assert counts.next_sample == counts.total == counts.finished + int(kernel.pages.restarts)
    assert kernel.out_length.tolist() == work.limits.tolist()
    assert set(kernel.out_reason.tolist()) == {LENGTH}
    for sample, limit in enumerate(work.limits):
        wanted = [token_of(sample, index) for index in range(limit)]
        assert kernel.out_tokens[sample, :limit].tolist() == wanted
    assert int(kernel.pages.num_free) == total


def test_a_row_that_begins_again_looks_for_stop_strings_from_its_start():
    """A string ends where 4 follows 3, which is what every third sample writes."""
    work, (kernel, plain) = states(
        2, slots=7, num_prompts=5, total=PER_ROW + 1, expected=1, has_stops=True
    )
    while kernel.read().live:
        tokens, logprobs = draws(kernel, 7)
        bookkeeping.advance(kernel, tokens, logprobs, 7)
        advance_plain(plain, tokens, logprobs, 7)
        assert_same(kernel, plain)
    ends = []
    for sample, limit in enumerate(work.limits):
        written = [token_of(sample, index) for index in range(limit)]
        stops = [n for n in range(1, limit) if written[n - 1 : n + 1] == [3, 4]]
        ends.append(stops[0] + 1 if stops else limit)
    assert kernel.out_length.tolist() == ends
    assert int(kernel.pages.restarts) > 0
    assert STOP_STRING in kernel.out_reason.tolist()


def test_hope_makes_rows_begin_again_and_caution_never_does():
    counts = {}
    for expected in (1, PER_ROW):
        _, (state,) = states(5, slots=12, num_prompts=8, total=14, expected=expected, count=1)
        steps = 0
        while state.read().live:
            bookkeeping.advance(state, *draws(state, 12), 12)
            steps += 1
        counts[expected] = int(state.pages.restarts), steps
    assert counts[1][0] > 0 == counts[PER_ROW][0]
    assert counts[1][1] < counts[PER_ROW][1], "more rows at a time are worth some lost work"


def test_the_last_rows_give_way_to_the_first():
    _, (state,) = states(5, slots=12, num_prompts=8, total=14, expected=1, count=1)
    gone = 0
    while state.read().live:
        before = state.sample.tolist()
        bookkeeping.advance(state, *draws(state, 12), 12)
        counts = state.read()
        waiting = {
            int(state.pages.queue[n % len(state.pages.queue)])
            for n in range(counts.next_sample, counts.total)
        }
        returned = waiting & set(before)
        live = [s for s in state.sample.tolist() if s >= 0]
        if returned:
            gone += len(returned)
            kept = [before.index(s) for s in live if s in before]
            assert max(kept, default=-1) < min(before.index(s) for s in returned)
    assert gone


def test_fewer_rows_than_slots_are_served_when_those_behind_are_idle():
    _, (kernel, plain) = states(3, slots=16, num_prompts=6, total=40, expected=4)
    rows = 16
    while kernel.read().live:
        counts = kernel.read()
        if counts.next_sample == counts.total:
            rows = counts.live
        tokens, logprobs = draws(kernel, rows)
        bookkeeping.advance(kernel, tokens, logprobs, rows)
        advance_plain(plain, tokens, logprobs, rows)
        assert_same(kernel, plain)
    assert rows < 16


def test_a_second_call_begins_with_all_pages():
    work, (state,) = states(8, slots=8, num_prompts=6, total=12, expected=1, count=1)
    for _ in range(5):
        bookkeeping.advance(state, *draws(state, 8), 8)
    state.reset(work, eos_ids=(), seed=0, expected_pages=2)
    assert int(state.pages.num_free) == 12
    assert int(state.pages.seats) == 6
    assert state.pages.held.sum() == 0


def test_only_pointers_come_before_the_number_of_rows():
    names = list(inspect.signature(pages._assign.fn).parameters)
    assert names[pages.POINTERS] == "rows"
