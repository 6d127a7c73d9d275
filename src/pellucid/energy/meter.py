"""The meter of a run: windows of work with their joules, appended to a file as the run goes.

Every moment of the process belongs to one window: the innermost that is open, or `other`. A thread
reads the counters every half minute and appends what the open windows have used so far, so that
`kill -9` loses no more than that, and the energy of failed and interrupted work stays on the bill.

    {"id": "0003", "kind": "evaluation", "name": "before/chain", "state": "running", …}
    {"id": "0003", …, "state": "ended", "elapsed_s": 41.2, "joules": 2210.0, "parts": […]}

The last line of an id counts. Left out: what the joules mean (`account`).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pellucid.energy.counters import STILL_S, Counter, Progress
from pellucid.energy.estimate import (
    Part,
    Usage,
    board_watts,
    cpu_estimate,
    gpu_estimate,
    memory_estimate,
    usage_now,
)
from pellucid.energy.nvml import Gpu, load_nvml, nvml_counters
from pellucid.energy.rapl import rapl_counters
from pellucid.errors import RunError
from pellucid.jsonl import JsonlWriter, read_jsonl

PERIOD_S = 30.0
"""Between two readings: far less than a counter needs to wrap round, and nothing to a run."""
OTHER = "other"
"""Kind of the window for all that no window was opened for: loading, exporting, reports."""


class State(StrEnum):
    """How a window stands."""

    RUNNING = "running"
    """In the last line of a window: the process was killed."""
    ENDED = "ended"
    FAILED = "failed"
    """Left by an exception; its energy counts all the same."""


@dataclass(kw_only=True)
class Window:
    """A piece of work. Example: kind "evaluation", name "before/gsm8k"."""

    id: str
    kind: str
    name: str
    started: str
    elapsed_s: float = 0.0
    core_s: float = 0.0
    peak_gib: float = 0.0
    joules: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Component -> what its counter added."""
    notes: list[str] = field(default_factory=list)
    tokens: int = 0
    answers: int = 0

    def count(self, *, tokens: int, answers: int) -> None:
        """What the work brought forth: sampled tokens, and completions."""
        self.tokens += tokens
        self.answers += answers


class Meter:
    """Reads the counters and keeps the windows of one process."""

    def __init__(
        self,
        path: Path,
        counters: Sequence[Counter],
        *,
        gpu_watts: dict[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        usage: Callable[[], Usage] = usage_now,
    ) -> None:
        """`gpu_watts`: component -> power limit, of every GPU of the run, counter or not."""
        self._next = 1 + max((int(r["id"]) for r in _records(path)), default=0)
        self._writer = JsonlWriter(path)
        self._gpu_watts = gpu_watts or {}
        self._clock, self._usage = clock, usage
        self._lock = threading.RLock()
        self._counters = [Progress(c) for c in counters]
        self._now, self._used = clock(), usage()
        for progress in self._counters:
            progress.start(self._now)
        self._open = [self._new(OTHER, OTHER)]

    @contextmanager
    def window(self, kind: str, name: str) -> Iterator[Window]:
        """What the block uses belongs to this window, less what windows inside it take."""
        with self._lock:
            self._advance()
            window = self._new(kind, name)
            self._open.append(window)
            self._write(window, State.RUNNING)
        state = State.FAILED
        try:
            yield window
            state = State.ENDED
        finally:
            with self._lock:
                self._advance()
                self._open.remove(window)
                self._write(window, state)

    def tick(self) -> None:
        """Reads the counters and appends how the open windows stand."""
        with self._lock:
            self._advance()
            for window in self._open:
                self._write(window, State.RUNNING)

    def close(self) -> None:
        """Ends the window of all the rest."""
        with self._lock:
            self._advance()
            self._write(self._open[0], State.ENDED)
            self._writer.close()

    def _new(self, kind: str, name: str) -> Window:
        started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        window = Window(id=f"{self._next:04d}", kind=kind, name=name, started=started)
        self._next += 1
        return window

    def _advance(self) -> None:
        """Gives the innermost window what was used since the last call."""
        now, used, window = self._clock(), self._usage(), self._open[-1]
        window.elapsed_s += now - self._now
        window.core_s += used.core_seconds - self._used.core_seconds
        window.peak_gib = max(window.peak_gib, used.peak_gib)
        self._now, self._used = now, used
        for progress in self._counters:
            window.joules[progress.counter.component] += progress.advance(now)
            window.notes += progress.take_notes()

    def _write(self, window: Window, state: State) -> None:
        parts, notes = self._parts(window)
        self._writer.append(
            {
                "v": 1,
                "id": window.id,
                "kind": window.kind,
                "name": window.name,
                "state": str(state),
                "started": window.started,
                "elapsed_s": round(window.elapsed_s, 3),
                "core_s": round(window.core_s, 3),
                "tokens": window.tokens,
                "answers": window.answers,
                "joules": round(sum(part.joules for part in parts), 3),
                "parts": [_plain(part) for part in parts],
                "notes": notes,
            }
        )

    def _parts(self, window: Window) -> tuple[list[Part], list[str]]:
        """Components with their joules; a counter that stood still is not believed."""
        parts, notes = [], list(window.notes)
        for progress in self._counters:
            counter = progress.counter
            joules = window.joules[counter.component]
            if progress.is_lost or (joules == 0.0 and window.elapsed_s >= STILL_S):
                notes.append(
                    f"{counter.component}: {counter.source} gave {joules:.0f} J in "
                    f"{window.elapsed_s:.0f} s and is not believed; estimated"
                )
                continue
            error = counter.error_frac * joules
            parts.append(
                Part(counter.component, counter.source, joules, joules - error, joules + error)
            )
        return parts + self._estimates(window, {part.component for part in parts}), notes

    def _estimates(self, window: Window, counted: set[str]) -> list[Part]:
        """What no counter covers."""
        parts = [
            gpu_estimate(component, window.elapsed_s, watts)
            for component, watts in self._gpu_watts.items()
            if component not in counted
        ]
        if not any(component.startswith("cpu") for component in counted):
            parts.append(cpu_estimate(window.core_s))
        if not any(component.startswith("dram") for component in counted):
            parts.append(memory_estimate(window.elapsed_s, window.peak_gib))
        return parts


@contextmanager
def open_meter(
    path: Path, gpus: Sequence[Gpu] = (), *, period_s: float = PERIOD_S
) -> Iterator[Meter]:
    """A meter with all counters that can be read, and the thread that reads them."""
    nvml = load_nvml() if gpus else None
    on_gpu = nvml_counters(gpus, nvml)
    watts = {f"gpu{number}": board_watts(gpu.name) for number, gpu in enumerate(gpus)}
    for component, counter in on_gpu.items():
        watts[component] = counter.limit_w() or watts[component]
    meter = Meter(path, [*on_gpu.values(), *rapl_counters()], gpu_watts=watts)
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(period_s):
            try:
                meter.tick()
            except RunError:
                return  # the disk refuses: the next window says so where somebody hears it

    thread = threading.Thread(target=read, name="energy", daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        stop.set()
        thread.join()
        meter.close()


def _plain(part: Part) -> dict[str, Any]:
    rounded = {name: round(getattr(part, name), 3) for name in ("joules", "low", "high")}
    return {"component": part.component, "source": str(part.source)} | rounded


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from read_jsonl(path)
