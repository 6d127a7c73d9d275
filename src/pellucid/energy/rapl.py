"""Intel's and AMD's energy counters of processor packages and memory, as Linux shows them.

    /sys/class/powercap/intel-rapl:0/{name, energy_uj, max_energy_range_uj}      a package
    /sys/class/powercap/intel-rapl:0:1/{…}                                       a part of it

Packages are counted, and the memory of servers (`dram`), which is not inside its package's counter.
Cores and graphics are: they are left out. A package's counter knows nothing of processes: what
others did on the machine meanwhile is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pellucid.energy.counters import CounterError, Source

POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:(\d+)(?::\d+)?")
ERROR_FRAC = 0.05
"""An allowance: Khan et al., RAPL in Action (2018), find the counters within a few per cent."""


@dataclass
class RaplCounter:
    """One zone of the powercap tree."""

    component: str
    zone: Path
    range_joules: float | None
    source: Source = Source.RAPL
    error_frac: float = ERROR_FRAC

    def read(self) -> float:
        """Joules. Raises CounterError where the kernel no longer lets us."""
        try:
            return int((self.zone / "energy_uj").read_text()) / 1e6
        except (OSError, ValueError) as error:
            raise CounterError(str(error)) from error


def rapl_counters(root: Path = POWERCAP) -> list[RaplCounter]:
    """The zones to be added up that this process may read; few systems let any user read them."""
    counters = []
    for zone in sorted(root.glob("intel-rapl:*")):
        found = _ZONE.fullmatch(zone.name)
        if found is None:
            continue
        try:
            name = (zone / "name").read_text().strip()
            span = int((zone / "max_energy_range_uj").read_text()) / 1e6
            component = {"package": "cpu", "dram": "dram"}.get(name.partition("-")[0])
            if component is None:
                continue
            counter = RaplCounter(f"{component}{found[1]}", zone, span)
            counter.read()
        except (OSError, ValueError, CounterError):
            continue  # not readable by this user: the estimate takes its place, and says so
        counters.append(counter)
    return counters
