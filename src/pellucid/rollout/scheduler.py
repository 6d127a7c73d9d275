"""Who sits where: the queue of samples, the slots they are decoded in, the places of their prompts.

Plain integers, no tensors.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

LANES = 16
"""Samples that share one copy of their prompt. More would save little and, when few of them are
left, waste work on empty lanes."""


class Seat(NamedTuple):
    """A sample by its place in the request list. Example: Seat(request=3, index=0)."""

    request: int
    index: int
    """Place among the samples of its request."""

    @property
    def lane(self) -> int:
        return self.index % LANES


class Arrival(NamedTuple):
    """A sample that was just given a slot."""

    slot: int
    seat: Seat
    place: int
    """Where its prompt's keys and values are kept."""
    is_first: bool
    """The place is new: the prompt has to be written there."""


class Scheduler:
    """Fills free slots from the queue and, once the queue is empty, shrinks the batch.

    Slots 0 … rows-1 are decoded at each step, whether occupied or not. Samples are queued in the
    order of the requests, so that samples of one prompt run at the same time and share its place.
    """

    def __init__(self, num_samples: Sequence[int], slots: int) -> None:
        """`num_samples[r]`: samples wanted of request r; `slots`: most samples decoded at once."""
        self._queue = [Seat(r, i) for r, count in enumerate(num_samples) for i in range(count)]
        self._queue.reverse()
        self.total = len(self._queue)
        self.rows = min(slots, self.total)
        self.seats: list[Seat | None] = [None] * self.rows
        self._free = list(range(self.rows))
        self.num_live = 0
        num_groups = sum(-(-count // LANES) for count in num_samples)
        self.max_places = min(num_groups, self.rows)
        """Places ever needed at once."""
        self._free_places = list(range(self.max_places))
        self._place: dict[tuple[int, int], int] = {}
        self._unfinished = {
            (r, group): min(LANES, count - group * LANES)
            for r, count in enumerate(num_samples)
            for group in range(-(-count // LANES))
        }
        self.places = 0
        """Places 0 … places-1 hold all prompts in use."""

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    @property
    def num_finished(self) -> int:
        return self.total - self.num_queued - self.num_live

    def admit(self) -> list[Arrival]:
        """Seats queued samples in the free slots, lowest slot first."""
        arrivals = []
        while self._free and self._queue:
            slot, seat = heapq.heappop(self._free), self._queue.pop()
            self.seats[slot] = seat
            group = (seat.request, seat.index // LANES)
            is_first = group not in self._place
            if is_first:
                self._place[group] = heapq.heappop(self._free_places)
                self.places = max(self.places, self._place[group] + 1)
            arrivals.append(Arrival(slot, seat, self._place[group], is_first))
        self.num_live += len(arrivals)
        return arrivals

    def finish(self, slot: int) -> Seat:
        """Frees a slot, and the place of the prompt with its last sample; returns who sat there."""
        seat = self.seats[slot]
        assert seat is not None, f"slot {slot} is not occupied"
        self.seats[slot] = None
        heapq.heappush(self._free, slot)
        self.num_live -= 1
        group = (seat.request, seat.index // LANES)
        self._unfinished[group] -= 1
        if self._unfinished[group] == 0:
            heapq.heappush(self._free_places, self._place.pop(group))
            self.places = max(self._place.values(), default=-1) + 1
        return seat

    def compact(self) -> list[tuple[int, int]]:
        """Shrinks the batch to the next round size if nothing is queued: moves (from, to) of
        seats."""
        rows = round_size(self.num_live)
        if self._queue or rows >= self.rows:
            return []
        empty = [slot for slot in range(rows) if self.seats[slot] is None]
        late = [slot for slot in range(rows, self.rows) if self.seats[slot] is not None]
        moves = list(zip(late, empty, strict=False))
        for source, target in moves:
            self.seats[target], self.seats[source] = self.seats[source], None
        self.rows = rows
        self._free = [slot for slot in range(rows) if self.seats[slot] is None]
        del self.seats[rows:]
        return moves


def round_size(number: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that is not below: few shapes, little waste."""
    power = 1
    while power < number:
        power *= 2
    smaller = power * 3 // 4
    return smaller if power >= 4 and number <= smaller else power
