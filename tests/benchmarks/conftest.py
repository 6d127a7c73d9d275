"""The benchmarks are scripts, not a package: their folders are put on the path."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks" / "gpu"), str(ROOT / "scripts")]
