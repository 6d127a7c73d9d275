"""At which clock and power a repeat ran, and whether its power limit held the chip back.

Long products draw all the power that a chip may have: its clock falls, and with it what it can
reach. A figure without its clock says less than it seems to.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from statistics import median

from machine import first_device

FIELDS = "clocks.sm,power.draw.instant,clocks_event_reasons.sw_power_cap"
EVERY_MS = 100


class ChipWatch:
    """Samples while the block runs; nothing without nvidia-smi, or where it does not know a field.

    Example: with ChipWatch() as watch: ...; watch.between(begin, end), times of perf_counter, is
    {"sm_mhz": 1440.0, "watts": 698.2, "power_limited": 1.0}.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, float, float, bool]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ChipWatch:
        if shutil.which("nvidia-smi") is not None:
            command = ["nvidia-smi", "-i", first_device(), f"--query-gpu={FIELDS}"]
            command += ["--format=csv,noheader,nounits", f"--loop-ms={EVERY_MS}"]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
            )
            self._thread = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._thread.join()  # it reads to the end
            self._process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.take(time.perf_counter(), line)

    def take(self, at: float, line: str) -> None:
        """Keeps a line of nvidia-smi; one that is no sample is left out."""
        try:
            clock, power, limited = (field.strip() for field in line.split(","))
            self._samples.append((at, float(clock), float(power), limited == "Active"))
        except ValueError:
            return

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Median clock and power, and the share of samples that the power limit held back."""
        inside = [sample for sample in self._samples if begin <= sample[0] <= end]
        if not inside:
            return {}
        return {
            "sm_mhz": median(clock for _, clock, _, _ in inside),
            "watts": median(power for _, _, power, _ in inside),
            "power_limited": sum(limited for *_, limited in inside) / len(inside),
        }
