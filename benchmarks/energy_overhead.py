"""What metering costs a run: a reading of the counters with its line, and an empty window.

python benchmarks/energy_overhead.py
"""

import tempfile
import time
from pathlib import Path

from pellucid.energy.meter import PERIOD_S, open_meter

READINGS = 500


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.jsonl"
        with open_meter(path) as meter, meter.window("stage", "zero"):
            started = time.process_time()
            for _ in range(READINGS):
                meter.tick()
            tick_s = (time.process_time() - started) / READINGS
            started = time.process_time()
            for number in range(READINGS):
                with meter.window("evaluation", str(number)):
                    pass
            window_s = (time.process_time() - started) / READINGS
    print(f"a reading: {tick_s * 1e3:.3f} ms of CPU, {tick_s / PERIOD_S:.2e} of a run's time")
    print(f"a window: {window_s * 1e3:.3f} ms of CPU")


if __name__ == "__main__":
    main()
