"""Who sits where: the queue of samples and the slots they are decoded in. Plain integers, no tensors."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Seat(NamedTuple):
    """A sample by its place in the request list. Example: Seat(request=3, index=0)."""

    request: int
    index: int
    """Place among the samples of its request."""


class Scheduler:
    """Fills free slots from the queue and, once the queue is empty, shrinks the batch.

    Slots 0 … rows-1 are decoded at each step, whether occupied or not. Samples are queued in the order of
    the requests, so that samples of one prompt start side by side.
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

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    @property
    def num_finished(self) -> int:
        return self.total - self.num_queued - self.num_live

    def admit(self) -> list[tuple[int, Seat]]:
        """Seats queued samples in the free slots, lowest slot first, and returns the newcomers."""
        newcomers = []
        while self._free and self._queue:
            slot, seat = heapq.heappop(self._free), self._queue.pop()
            self.seats[slot] = seat
            newcomers.append((slot, seat))
        self.num_live += len(newcomers)
        return newcomers

    def finish(self, slot: int) -> Seat:
        """Frees a slot and returns who sat there."""
        seat = self.seats[slot]
        assert seat is not None, f"slot {slot} is not occupied"
        self.seats[slot] = None
        heapq.heappush(self._free, slot)
        self.num_live -= 1
        return seat

    def compact(self) -> list[tuple[int, int]]:
        """Shrinks the batch to the next round size if the queue is empty: moves (from, to) of seats."""
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


def round_size(num_live: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, … that holds so many rows: few shapes, little waste."""
    power = 1
    while power < num_live:
        power *= 2
    smaller = power * 3 // 4
    return smaller if power >= 4 and num_live <= smaller else power
