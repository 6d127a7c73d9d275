"""Events of a run with the seconds since its process began, and the wish to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from pellucid.energy.meter import Meter, Window
from pellucid.ledger import EventKind, Ledger
from pellucid.runlog import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Diary:
    """Writes the ledger; what was damaged is also said aloud."""

    ledger: Ledger
    progress: Progress
    started: float = field(default_factory=time.perf_counter)
    meter: Meter | None = None
    """Of the run's energy; None: not metered."""

    def note(self, kind: EventKind, /, **payload: Any) -> None:
        """An event and how long the process has been at work."""
        self.ledger.append(kind, **payload, elapsed_s=round(self.elapsed_s(), 3))
        if kind is EventKind.ARTEFACT_DAMAGED:
            self.progress.say(f"damaged, not used: {payload['artefact']}")

    def window(self, kind: str, name: str) -> AbstractContextManager[Window]:
        """What the block draws from the grid goes to this window of energy/windows.jsonl."""
        if self.meter is None:
            return nullcontext(Window(id="", kind=kind, name=name, started=""))
        return self.meter.window(kind, name)

    def elapsed_s(self) -> float:
        """Seconds of this process."""
        return time.perf_counter() - self.started

    def stage_seconds(self, address: str) -> float | None:
        """Seconds of work on a stage, of all processes; None: there was none."""
        total, began, last = 0.0, None, 0.0
        for event in self.ledger.events:
            if event.kind in (EventKind.RESUMED, EventKind.RUN_STARTED) and began is not None:
                total, began = total + last - began, None
            last = event.payload.get("elapsed_s", 0.0)
            if event.payload.get("address") != address:
                continue
            if event.kind is EventKind.STAGE_STARTED:
                total, began = total or 0.0, last
            elif event.kind is EventKind.STAGE_ENDED and began is not None:
                total, began = total + last - began, None
        return round(total, 3) or None

    def wall_s(self) -> float:
        """Seconds of work: this process, and of earlier ones what led to a checkpoint or result."""
        earlier, last = 0.0, 0.0
        for event in self.ledger.events:
            if event.kind is EventKind.RESUMED:
                earlier, last = earlier + last, 0.0
            last = event.payload.get("elapsed_s", last)
        return earlier + self.elapsed_s()


@contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Yields a function that turns true once SIGTERM arrived: the trainer then saves and stops."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)
