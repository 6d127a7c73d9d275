import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.rollout.scheduler import LANES, Arrival, Scheduler, Seat, round_size


def test_samples_are_seated_in_request_order_and_refilled_lowest_slot_first() -> None:
    scheduler = Scheduler([2, 0, 3], slots=3)
    assert scheduler.admit() == [
        Arrival(0, Seat(0, 0), place=0, is_first=True),
        Arrival(1, Seat(0, 1), place=0, is_first=False),
        Arrival(2, Seat(2, 0), place=1, is_first=True),
    ]
    assert scheduler.admit() == []
    assert scheduler.finish(2) == Seat(2, 0)
    assert scheduler.finish(0) == Seat(0, 0)
    assert scheduler.compact() == []
    assert scheduler.admit() == [
        Arrival(0, Seat(2, 1), place=1, is_first=False),
        Arrival(2, Seat(2, 2), place=1, is_first=False),
    ]
    assert (scheduler.num_finished, scheduler.num_live, scheduler.num_queued) == (2, 3, 0)


def test_a_place_is_freed_with_its_last_sample_and_holds_sixteen_at_most() -> None:
    scheduler = Scheduler([LANES + 1, 1], slots=LANES + 1)
    places = [(a.place, a.seat.lane, a.is_first) for a in scheduler.admit()]
    assert places == [(0, lane, lane == 0) for lane in range(LANES)] + [(1, 0, True)]
    assert (scheduler.places, scheduler.max_places) == (2, 3)
    scheduler.finish(LANES)
    assert scheduler.places == 1
    assert scheduler.admit() == [Arrival(LANES, Seat(1, 0), place=1, is_first=True)]
    for slot in range(LANES):
        scheduler.finish(slot)
    assert scheduler.places == 2
    scheduler.finish(LANES)
    assert scheduler.places == 0


def test_an_empty_queue_lets_the_batch_shrink_to_a_round_size() -> None:
    scheduler = Scheduler([9], slots=9)
    scheduler.admit()
    for slot in (0, 2, 3, 8):
        scheduler.finish(slot)
    assert scheduler.compact() == [(6, 0), (7, 2)]
    assert scheduler.rows == 6
    assert scheduler.seats == [Seat(0, 6), Seat(0, 1), Seat(0, 7), None, Seat(0, 4), Seat(0, 5)]
    assert scheduler.compact() == []


def test_a_free_slot_cannot_be_finished() -> None:
    scheduler = Scheduler([1], slots=4)
    with pytest.raises(AssertionError, match="slot 0"):
        scheduler.finish(0)


@given(
    st.lists(st.integers(0, 6), max_size=8), st.integers(1, 9), st.randoms(use_true_random=False)
)
def test_every_sample_is_seated_once_whatever_ends_first(counts, slots, random) -> None:
    scheduler = Scheduler(counts, slots)
    where: dict[int, Seat] = {}
    at: dict[tuple[int, int], int] = {}
    done = []
    while scheduler.num_queued or scheduler.num_live:
        for slot, seat, place, is_first in scheduler.admit():
            assert slot not in where
            where[slot] = seat
            group = (seat.request, seat.index // LANES)
            if is_first:
                assert place < scheduler.places <= scheduler.max_places
                assert all(
                    at[where_.request, where_.index // LANES] != place
                    for s, where_ in where.items()
                    if s != slot
                )
                at[group] = place
            assert at[group] == place
        assert len(where) == scheduler.num_live <= scheduler.rows <= slots
        for slot in random.sample(sorted(where), random.randint(1, len(where))):
            assert scheduler.finish(slot) == where[slot]
            done.append(where.pop(slot))
        for source, target in scheduler.compact():
            assert target not in where
            where[target] = where.pop(source)
        assert all(slot < scheduler.rows for slot in where)
    assert sorted(done) == [Seat(r, i) for r, n in enumerate(counts) for i in range(n)]
    assert scheduler.num_finished == scheduler.total == len(done)


@pytest.mark.parametrize(
    ("live", "size"), [(0, 1), (1, 1), (3, 3), (5, 6), (7, 8), (9, 12), (700, 768), (769, 1024)]
)
def test_round_sizes(live, size) -> None:
    assert round_size(live) == size
