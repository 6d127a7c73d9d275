"""Which counts the host looks at while the device decodes; a step here is its bookkeeping alone."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from host_looks import LOOK, RECORD, WAIT, waits, watch_looks
from rollout_tiny import LetterTokenizer, tiny_spec

from pellucid.records import Request, SamplingParams
from pellucid.rollout import resident
from pellucid.rollout.drafts import DraftRows
from pellucid.rollout.loop_state import LoopState, advance_plain
from pellucid.rollout.pages import NO_PAGES, PageSize
from pellucid.rollout.waves import Wave

NEW, ROWS = 90, 8
FOLLOW = "follow"
SPEC = tiny_spec()
ALL_LONG = (NEW,) * 24
EARLY = tuple(3 + 7 * k % 50 for k in range(24))
MIXED = tuple(NEW if k % 5 == 0 else 3 + 11 * k % 60 for k in range(24))
PAGES = PageSize(total=12, per_row=3, positions=30)


class Event:
    """Written down in the order of the host."""

    def __init__(self, trace):
        self.trace = trace

    def record(self):
        self.trace.append((RECORD, self))

    def synchronize(self):
        self.trace.append((WAIT, self))


def decoded(monkeypatch, limits, pages=NO_PAGES, slots=ROWS):
    """(trace, counts after each chunk, the first those before it) of one wave over `slots` rows."""
    trace, counts = [], []
    params = SamplingParams(max_new_tokens=NEW)
    ids = tuple(range(len(limits)))
    wave = Wave([Request(prompt_ids=(3, 1), sample_ids=ids, limits=limits)])
    state = LoopState.create(
        slots,
        wave.work(SPEC, params),
        vocab_size=SPEC.vocab_size,
        eos_ids=(),
        seed=0,
        device=torch.device("cpu"),
        pages=pages,
    )

    def run(shape, steps):
        counts.extend([] if counts else [state.read()])
        assert state.read().live <= shape.rows, "rows behind those decoded are idle"
        for _ in range(steps):
            rows = torch.ones(shape.rows, dtype=torch.int64)
            advance_plain(state, rows, -rows.float(), shape.rows)
            assert state.read().max_own <= shape.own + 1
        counts.append(state.read())

    class Snapshots(resident._Snapshots):
        def __init__(self, *watched):
            super().__init__(*watched)
            self.events = [Event(trace), Event(trace)]

    monkeypatch.setattr(resident, "_Snapshots", Snapshots)
    watch_looks(monkeypatch, trace)
    step = SimpleNamespace(state=state, drafts=DraftRows.create(torch.device("cpu")), run=run)
    model = SimpleNamespace(spec=SPEC)
    rollout = resident.ResidentRollout(
        model, LetterTokenizer(), params, step, seed=0, next_state=None
    )
    harvest = SimpleNamespace(ended=None, follow=lambda tokens: trace.append((FOLLOW, tokens)))
    rollout._decode(wave, lambda finished: None, harvest)
    assert state.out_length.tolist() == list(limits)
    return trace, counts


@pytest.mark.parametrize("limits", [ALL_LONG, EARLY, MIXED])
def test_with_slots_the_host_waits_for_the_chunk_in_flight_only_where_none_is_left_to_start(
    monkeypatch, limits
) -> None:
    trace, counts = decoded(monkeypatch, limits)
    found = waits(trace)
    assert len(found) > 5
    for is_newest, is_done, is_waiting in found:
        assert is_newest == is_done
        assert not (is_newest and is_waiting)
    assert [is_newest for is_newest, *_ in found].count(True) <= (limits != EARLY) * 3
    if limits == ALL_LONG:
        assert [is_newest for is_newest, *_ in found] == [False] * (len(found) - 1) + [True]
        assert counts[-1].live == 0


@pytest.mark.parametrize("limits", [EARLY, MIXED])
def test_with_pages_the_host_looks_at_each_chunks_end_while_samples_wait(
    monkeypatch, limits
) -> None:
    trace, _ = decoded(monkeypatch, limits, PAGES)
    found = waits(trace)
    for is_newest, is_done, is_waiting in found:
        assert is_newest == (is_done or is_waiting)
    assert {is_newest for is_newest, *_ in found} == {False, True}


@pytest.mark.parametrize("limits", [ALL_LONG, EARLY, MIXED])
def test_a_look_is_at_counts_of_the_chunk_before(monkeypatch, limits) -> None:
    trace, counts = decoded(monkeypatch, limits)
    looks = [(seen, steps) for what, *of in trace if what == LOOK for seen, steps in [of]]
    started = 0
    for number, (seen, steps) in enumerate(looks):
        is_new = number > 0 and looks[number - 1][1] == 0
        assert seen == counts[started if is_new else max(started - 1, 0)]
        started += steps > 0
    assert started == len(counts) - 1


@pytest.mark.parametrize("limits", [ALL_LONG, EARLY, MIXED])
def test_tokens_are_followed_as_far_as_the_counts_looked_at_go(monkeypatch, limits) -> None:
    monkeypatch.setattr(resident, "TAIL_ROWS", 4)
    monkeypatch.setattr(resident, "CHUNK", 8)
    trace, counts = decoded(monkeypatch, limits, slots=24)
    followed = [
        (tokens, seen)
        for (what, tokens, *_), (_, seen, *_) in pairwise(
            e for e in trace if e[0] in (FOLLOW, LOOK)
        )
        if what == FOLLOW
    ]
    assert len(followed) > 3
    for tokens, seen in followed:
        assert seen.live > 4
        assert tokens == seen.max_own - counts[0].max_own
    assert followed[-1][0] > 20


@pytest.mark.parametrize(
    ("pages", "slots"), [(NO_PAGES, 23), (PAGES, 8), (PAGES, 24), (PAGES._replace(total=30), 24)]
)
def test_samples_that_wait_or_begin_again_are_not_followed(monkeypatch, pages, slots) -> None:
    monkeypatch.setattr(resident, "TAIL_ROWS", 0)
    trace, _ = decoded(monkeypatch, MIXED, pages, slots=slots)
    assert FOLLOW not in [what for what, *_ in trace]


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_never_fewer_than_are_live_however_many_begin_again(monkeypatch, seed) -> None:
    """Many that end early and some that do not, in few pages: rows fall and rise."""
    monkeypatch.setattr("pellucid.rollout.waves.LEAST_ROWS", 1)
    monkeypatch.setattr(resident, "CHUNK", 4)
    monkeypatch.setattr(resident, "TAIL_CHUNK", 2)
    rng = np.random.default_rng(seed)
    limits = tuple(int(n) for n in rng.choice([4, 9, 31, 40, 65, NEW], 40))
    pages = PageSize(total=int(rng.integers(20, 60)), per_row=9, positions=10)
    _, counts = decoded(monkeypatch, limits, pages, slots=40)
    assert (counts[-1].finished, counts[-1].live) == (40, 0)
    assert max(c.live for c in counts[1:]) > min(c.live for c in counts[1:-1])
