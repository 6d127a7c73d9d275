import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.rollout.scheduler import Scheduler, Seat, round_size


def test_samples_are_seated_in_request_order_and_refilled_lowest_slot_first() -> None:
    scheduler = Scheduler([2, 0, 3], slots=3)
    assert scheduler.admit() == [(0, Seat(0, 0)), (1, Seat(0, 1)), (2, Seat(2, 0))]
    assert scheduler.admit() == []
    assert scheduler.finish(2) == Seat(2, 0)
    assert scheduler.finish(0) == Seat(0, 0)
    assert scheduler.compact() == []
    assert scheduler.admit() == [(0, Seat(2, 1)), (2, Seat(2, 2))]
    assert (scheduler.num_finished, scheduler.num_live, scheduler.num_queued) == (2, 3, 0)


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
    done = []
    while scheduler.num_queued or scheduler.num_live:
        for slot, seat in scheduler.admit():
            assert slot not in where
            where[slot] = seat
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
