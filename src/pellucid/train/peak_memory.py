"""How much of a GPU a step took, for metrics.jsonl: what the plan said is held against it."""

from __future__ import annotations

import torch

GIB = 2**30


class PeakMemory:
    """Looks at a CUDA device when a rollout and when an update have ended; elsewhere at nothing.

    Example: peak.look(); …; peak.look(); peak.take() == {"used_gib": 52.1, …}

    torch keeps what it once took, so what is missing on the device at the end of a phase is the
    most that the phase took: torch's blocks, used or not, keys and values that lie outside of it,
    the context and the graphs; and what other processes hold.
    """

    def __init__(self, device: torch.device, planned: int | None) -> None:
        """`planned`: bytes at the planned peak; None: there was no plan."""
        self.device, self.planned = device, planned
        self._used = 0
        self.most = 0
        """Bytes missing at any look."""

    def look(self) -> None:
        """A phase has ended, and has not given anything back yet."""
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            self._used = max(self._used, total - free)
            self.most = max(self.most, self._used)

    def take(self) -> dict[str, float]:
        """GiB since the last call: missing on the device, in use by torch, and planned."""
        if self.device.type != "cuda":
            return {}
        in_use = torch.cuda.max_memory_allocated(self.device)
        found = {"used_gib": self._used / GIB, "allocated_gib": in_use / GIB}
        self.forget()
        return found if self.planned is None else found | {"planned_gib": self.planned / GIB}

    def forget(self) -> None:
        """What is taken next begins here: something else used the device in between."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._used = 0

    def summary(self) -> str:
        """One line of the most that was missing; empty where nothing was looked at."""
        if not self.most:
            return ""
        planned = "" if self.planned is None else f", planned {self.planned / GIB:.1f}"
        return f"memory: {self.most / GIB:.1f} GiB of the device taken at most{planned}"
