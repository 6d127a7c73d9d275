"""curve.svg from the stored metrics of both runs: `python recipes/r1-zero-gsm8k-0.5b/curve.py`

Training accuracy (temperature 1, mean of 8 steps) against the time spent in steps.
"""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

HERE = Path(__file__).parent
RUNS = (
    ("result-first-engine", "first engine, 64 steps of 5.5 s", "#9aa3a9"),
    ("result", "engine on the device, 160 steps of 2.6 s", "#0072b2"),
)
WINDOW = 8


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds and accuracies, a point every WINDOW steps."""
    values: dict[str, dict[int, float]] = {"accuracy": {}, "step_s": {}}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, column in values.items():
            if name in record["values"] and record["name"] in ("rollout", "timing"):
                column[record["step"]] = record["values"][name]
    steps = sorted(values["accuracy"])
    elapsed = list(accumulate(values["step_s"][s] for s in steps))
    accuracy = [values["accuracy"][s] for s in steps]
    ends = range(WINDOW, len(steps) + 1, WINDOW)
    return [elapsed[e - 1] for e in ends], [sum(accuracy[e - WINDOW : e]) / WINDOW for e in ends]


def main() -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for folder, label, color in RUNS:
        seconds, accuracy = curve(HERE / folder)
        axes.plot(seconds, accuracy, color=color, linewidth=2, label=label)
    axes.set_title("GSM8K, accuracy in training (8 steps together)", fontsize=10, loc="left")
    axes.set_xlabel("seconds of training on one H200", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e6e8")
    axes.tick_params(length=0, labelsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(HERE / "curve.svg", format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
