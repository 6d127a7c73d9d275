"""What a person or a plot sees of a run while it goes on: metrics.jsonl, console lines, progress.

metrics.jsonl is the truth; the console shows a short list of it. All of it goes to stderr, so that
stdout stays free for results. Silent: work shorter than two seconds, and everything under `--json`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from pellucid.errors import RunError
from pellucid.jsonl import JsonlWriter, read_jsonl

QUIET_S = 2.0
"""Shorter work shows no progress at all."""
PLAIN_INTERVAL_S = 5.0
"""Between two lines of one task where stderr is no terminal."""

CONSOLE_KEYS = (
    "rollout/reward_mean",
    "rollout/accuracy",
    "rollout/length_mean",
    "train/entropy",
    "train/kl",
    "train/grad_norm",
    "sft/loss",
    "sft/grad_norm",
    "sft/learning_rate",
    "timing/step_s",
)
"""The metrics a step's console line shows, where present."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsRecord:
    """One line of metrics.jsonl: {"step":3,"name":"rollout","values":{"reward_mean":0.41}}"""

    step: int
    """Training steps done when the values were measured; 0 is before the first."""
    name: str
    """`rollout`, `train`, `sft`, `eval/<suite>` or `timing`; only `timing` differs between equal
    runs.
    """
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Name -> value; None where it could not be measured (never 0 in its place)."""


class MetricsLog:
    """Writes metrics.jsonl of one stage and tells the console about each step."""

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self._writer = JsonlWriter(path)
        self._progress = progress
        self._shown: dict[str, float] = {}

    @property
    def cut_bytes(self) -> int:
        """Length of the torn line found and cut on opening; 0 where there was none."""
        return self._writer.cut_bytes

    def write(self, record: MetricsRecord) -> None:
        """Append one record. A value that is not finite is written as null: it was not measured."""
        values = {k: _finite(v) for k, v in record.values.items()}
        self._writer.append({"step": record.step, "name": record.name, "values": values})
        self._shown |= {f"{record.name}/{k}": v for k, v in values.items() if v is not None}

    def end_step(self, step: int, total: int) -> None:
        """Print the step's line: the allow-listed values written since the last one."""
        if self._progress is not None:
            self._progress.say(console_line(step, total, self._shown))
        self._shown = {}

    def truncate_after(self, step: int) -> None:
        """Drop what a resumed run will write again. RunError where steps up to `step` are lost."""
        last = self._writer.truncate_after(step)
        if last < step and step > 0:
            raise RunError(
                f"{self._writer.path} ends before step {step}, which its checkpoint knows of: "
                "someone shortened it; restore it, or start afresh with another --out"
            )

    def sync(self) -> None:
        """Make all records survive a power cut."""
        self._writer.sync()

    def close(self) -> None:
        """Sync and close."""
        self._writer.close()


def read_metrics(path: Path) -> Iterator[MetricsRecord]:
    """Records of a metrics.jsonl, in order."""
    for line in read_jsonl(path):
        yield MetricsRecord(step=line["step"], name=line["name"], values=line["values"])


def console_line(step: int, total: int, shown: Mapping[str, float]) -> str:
    """`step 3/60  reward_mean 0.412  accuracy 0.381 …`"""
    parts = [f"{key.split('/')[-1]} {shown[key]:.4g}" for key in CONSOLE_KEYS if key in shown]
    return "  ".join([f"step {step}/{total}", *parts])


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


class Tick:
    """Handle of one piece of work: call it with (done, total), as `ProgressFn` asks."""

    def __init__(self, owner: Progress, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.note = ""
        """Shown behind the numbers, e.g. the reward of the last step."""
        self.first: tuple[float, int] | None = None
        """Time and count of the first call: the rate counts from there, because a resumed run's
        first call brings all that was done before."""
        self._owner = owner
        self.started_s = owner.clock()
        self.last_line_s = self.started_s
        self.bar: TaskID | None = None
        self.is_shown = False

    def __call__(self, done: int, total: int | None = None) -> None:
        self.done = done
        self.total = total if total is not None else self.total
        if self.first is None:
            self.first = (self._owner.clock(), done)
        self._owner.refresh(self)

    def advance(self, count: int = 1) -> None:
        """Count `count` more as done."""
        self(self.done + count)

    def numbers(self) -> str:
        """`128/512 samples, 43.1/s, 0:08 left`"""
        rate = self._rate()
        text = f"{self.done}/{self.total} {self.unit}"
        if rate > 0:
            left = max(0, self.total - self.done) / rate
            speed = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
            text += f", {speed}, {_clock_text(left)} left"
        return f"{text}  {self.note}" if self.note else text

    def _rate(self) -> float:
        """Items per second; from the start while only one call has come."""
        now = self._owner.clock()
        since, before = self.first or (now, 0)
        if now == since or self.done == before:
            since, before = self.started_s, 0
        return (self.done - before) / (now - since) if now > since else 0.0


class Progress:
    """Progress of everything that takes longer than two seconds.

    Bars where `stream` is a terminal, a plain line every few seconds where it is not, nothing where
    `is_silent` (under `--json`, and in tests).
    """

    def __init__(
        self,
        *,
        is_silent: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self.is_silent = is_silent
        self.clock = clock
        self._console = Console(file=self._stream, highlight=False, soft_wrap=True)
        self._bars: RichProgress | None = None
        self._open = 0

    @contextmanager
    def task(self, label: str, total: int, unit: str = "items") -> Iterator[Tick]:
        """Follow one piece of work; tasks may nest. The yielded `Tick` is a `ProgressFn`."""
        tick = Tick(self, label, total, unit)
        self._open += 1
        try:
            yield tick
        finally:
            self._open -= 1
            self._end(tick)

    def say(self, line: str) -> None:
        """One line that stays, above the bars."""
        if not self.is_silent:
            console = self._bars.console if self._bars is not None else self._console
            console.print(line, markup=False)

    def refresh(self, tick: Tick) -> None:
        """Show where `tick` stands, if it is time to."""
        now = self.clock()
        if self.is_silent or now - tick.started_s < QUIET_S:
            return
        if self._console.is_terminal:
            self._refresh_bar(tick)
        elif not tick.is_shown or now - tick.last_line_s >= PLAIN_INTERVAL_S:
            tick.last_line_s = now
            self.say(f"{tick.label}: {tick.numbers()}")
        tick.is_shown = True

    def _refresh_bar(self, tick: Tick) -> None:
        if self._bars is None:
            self._bars = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[numbers]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        state = {"completed": tick.done, "total": tick.total, "numbers": tick.numbers()}
        if tick.bar is None:
            tick.bar = self._bars.add_task(tick.label, **state)
        self._bars.update(tick.bar, **state)

    def _end(self, tick: Tick) -> None:
        if self._bars is not None and tick.bar is not None:
            self._bars.remove_task(tick.bar)
        if self._bars is not None and self._open == 0:
            self._bars.stop()
            self._bars = None
        if tick.is_shown:
            took = _clock_text(self.clock() - tick.started_s)
            self.say(f"{tick.label}: {tick.done}/{tick.total} {tick.unit} in {took}")


def _clock_text(seconds: float) -> str:
    """`0:08`, `12:05`, `1:02:33`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
