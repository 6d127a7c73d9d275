"""Does a finished demo hold what the README says of it? `python scripts/check_demo.py runs/demo`"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BEFORE = (0.10, 0.20)
AFTER_AT_LEAST = 0.70
PROBLEMS_AT_LEAST = 400


def faults(folder: Path) -> list[str]:
    """What is missing or too low, a line each."""
    result = json.loads((folder / "result.json").read_text())
    before, after = result["before"]["pass_at_1"], result["after"]["pass_at_1"]
    found = []
    if not BEFORE[0] <= before <= BEFORE[1]:
        found.append(f"before training pass@1 is {before:.3f}, not within {BEFORE}")
    if after < AFTER_AT_LEAST:
        found.append(f"after training pass@1 is {after:.3f}, under {AFTER_AT_LEAST}")
    if result["after"]["n"] < PROBLEMS_AT_LEAST:
        found.append(f"measured on {result['after']['n']} problems, under {PROBLEMS_AT_LEAST}")
    if "<html" not in (folder / "report.html").read_text():
        found.append("report.html is no page")
    return found + dossier_faults(folder / "dossier")


def dossier_faults(dossier: Path) -> list[str]:
    """What a referee with nothing but Python finds against the demo's dossier."""
    verifier = dossier / "verify.pyz"
    if not verifier.is_file():
        return [f"{dossier} is no dossier with a verifier in it"]
    command = [sys.executable, "-I", str(verifier), str(dossier), "--seed", "1234"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    return [f"its dossier does not hold: {(done.stdout + done.stderr).strip()[-2000:]}"]


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1]))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
    sys.exit(1 if problems else 0)
