"""docs/demo-curve.svg from a finished demo: `python scripts/readme_figure.py RUN TARGET`"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pellucid.artifacts import RunFolder
from pellucid.runlog import read_metrics

PANELS = (
    ("rollout/accuracy", "accuracy in training"),
    ("rollout/length_mean", "tokens per answer"),
    ("train/entropy", "entropy, nats"),
    ("train/kl", "KL to the base, nats"),
)


def draw(run: Path, target: Path) -> None:
    """Four small curves side by side."""
    curves: dict[str, list[float]] = defaultdict(list)
    for record in read_metrics(RunFolder(run).stages()[0].metrics):
        for name, value in record.values.items():
            if value is not None:
                curves[f"{record.name}/{name}"].append(value)
    figure = Figure(figsize=(11, 2.3), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        axes.plot(range(1, len(curves[name]) + 1), curves[name], color="#0072b2", linewidth=2)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e6e8")
        axes.tick_params(length=0, labelsize=9)
        axes.set_xlabel("step", fontsize=9)
    figure.savefig(target, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
