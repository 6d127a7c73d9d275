"""Cumulative energy counters of the hardware, and what may be wrong with their readings.

A counter wraps round at its end, starts again when a driver is reloaded, or stands still where a
device does not support it. None of these may become a small or a zero bill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from pellucid.errors import PellucidError

MOST_WATTS = 1500.0
"""No package or board draws more: bounds how soon a counter can wrap round unseen."""
STILL_S = 1.0
"""A counter that has not moved for so long is broken: idle hardware draws power too, and counters
are refreshed every tenth of a second."""


class Source(StrEnum):
    """Where a joule comes from; every one of them has a label."""

    NVML = "nvml_counter"
    RAPL = "rapl"
    ESTIMATE = "estimate"


class CounterError(PellucidError):
    """A counter that could be read before cannot be read now."""


class Counter(Protocol):
    """One hardware counter."""

    component: str
    """`gpu0`, `cpu0`, `dram0`."""
    source: Source
    error_frac: float
    """Declared accuracy: the true value is within ± this share."""
    range_joules: float | None
    """Where it wraps round; None: never in practice."""

    def read(self) -> float:
        """Joules since some fixed moment. Raises CounterError."""
        ...


@dataclass
class Progress:
    """What a counter has added since it was last asked, wraps and resets put right."""

    counter: Counter
    notes: list[str] = field(default_factory=list)
    """What was wrong with its readings since `take_notes`."""
    is_lost: bool = False
    """It can no longer be read."""
    _last: float = 0.0
    _asked_s: float = 0.0

    def start(self, now_s: float) -> None:
        """Begins to count. Raises CounterError."""
        self._last, self._asked_s = self.counter.read(), now_s

    def advance(self, now_s: float) -> float:
        """Joules since the last call; 0 where the counter is lost, which a note says."""
        if self.is_lost:
            return 0.0
        try:
            value = self.counter.read()
        except CounterError as error:
            self.is_lost = True
            self.notes.append(f"{self.counter.component}: lost ({error})")
            return 0.0
        delta, elapsed = value - self._last, now_s - self._asked_s
        self._last, self._asked_s = value, now_s
        span = self.counter.range_joules
        if span is not None and elapsed * MOST_WATTS > span:
            self.notes.append(
                f"{self.counter.component}: not read for {elapsed:.0f} s, may have wrapped unseen"
            )
        if delta >= 0:
            return delta
        if span is not None:
            return delta + span
        self.notes.append(f"{self.counter.component}: reset; what it counted before that is lost")
        return value

    def take_notes(self) -> list[str]:
        """The notes, once."""
        notes, self.notes = self.notes, []
        return notes
