"""language.svg: language and accuracy during reasoning RL, with the language reward and without.

python recipes/r1-tiny/language.py                  # draws result/language.json
python recipes/r1-tiny/language.py ON OFF           # reads two metrics.jsonl first
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

HERE = Path(__file__).parent
STORED = HERE / "result" / "language.json"
ARMS = (("on", "language reward", "#0072b2"), ("off", "without it", "#d55e00"))
PANELS = (
    ("reward/language", "words of the thinking in the question's language"),
    ("reward/accuracy", "accuracy in training"),
)


def read(metrics: Path) -> dict[str, list[float]]:
    """The value of each step, by name of the panel."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [row["values"] for row in rows if row["name"] == "rollout"]
    return {name: [round(step[name], 4) for step in steps] for name, _ in PANELS}


def draw(curves: dict[str, dict[str, list[float]]]) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, (name, title) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for arm, label, color in ARMS:
            values = curves[arm][name]
            axes.plot(range(1, len(values) + 1), values, color=color, linewidth=2, label=label)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step of reasoning RL", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e6e8")
        axes.tick_params(length=0, labelsize=9)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(HERE / "language.svg", format="svg", metadata={"Date": None})


def main() -> None:
    if len(sys.argv) == 3:
        curves = {arm: read(Path(path)) for (arm, *_), path in zip(ARMS, sys.argv[1:], strict=True)}
        STORED.parent.mkdir(exist_ok=True)
        STORED.write_text(json.dumps(curves, indent=1) + "\n")
    draw(json.loads(STORED.read_text()))


if __name__ == "__main__":
    main()
