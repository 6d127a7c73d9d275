"""When a program has had its time. Wall time alone would blame it for a busy machine."""

from __future__ import annotations

import time

LEAST_SHARE = 0.05
"""Of the wall time; what computes for less is asleep, or waits for its children."""
_SHORTEST_S = 0.05
"""Between two looks: CPU time is a little less than wall time even on an idle machine."""


class Deadline:
    """A program may compute for `timeout_s`, and take that long. One that has computed for less
    because others had the processors gets what is missing, within `patience` times as long; one
    that sleeps does not.
    """

    def __init__(self, start: float, timeout_s: float, patience: float) -> None:
        """`start`: monotonic seconds, as all times here."""
        self.at = start + timeout_s
        """When to look at the program next."""
        self._last = start + timeout_s * patience
        self._timeout_s = timeout_s
        self._seen = (start, 0.0)

    def extend(self, now: float, used_s: float) -> bool:
        """Whether a program that has computed for `used_s` has more time; moves `at`."""
        before, used_before = self._seen
        self._seen = (now, used_s)
        computes = used_s - used_before >= LEAST_SHARE * (now - before)
        if not computes or used_s >= self._timeout_s or now >= self._last:
            return False
        self.at = min(now + max(self._timeout_s - used_s, _SHORTEST_S), self._last)
        return True


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, all its threads; without its children. 0 where it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's name for another's CPU clock
    except OSError:
        return 0.0
