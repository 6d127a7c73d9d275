"""Figures of the report as SVG text. Colours stay apart for the colour-blind (Okabe & Ito 2008)."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pellucid.stats import Estimate

BEFORE, AFTER = "#5b6770", "#0072b2"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9")
INK, GRID = "#22282d", "#e3e6e8"
SMOOTH_FROM = 30
"""Curves with at least so many steps get a moving average; below, it would hide what happened."""

_STYLE = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's own font
    "svg.hashsalt": "pellucid",  # equal runs give equal pages
    "text.parse_math": False,  # labels come from files: a dollar sign is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa3a9",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve. Example: Line(label="reward", steps=[1, 2], values=[0.1, 0.3])."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    is_sparse: bool = False
    """True: a few measurements, drawn as points."""


def curve_svg(lines: Sequence[Line], *, percent: bool = False) -> str:
    """Values over training steps: thin as measured, thick as a moving average."""
    with _styled():
        figure, axes = _figure(3.7, 2.35)
        for colour, line in zip(SERIES, lines, strict=False):
            _draw_line(axes, line, colour)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.02)
        if percent:
            axes.set_ylim(bottom=0.0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if len(lines) > 1:
            figure.legend(
                loc="outside upper left", ncols=min(3, len(lines)), handlelength=1.0, fontsize=9
            )
        return _svg(figure)


def _draw_line(axes: Axes, line: Line, colour: str) -> None:
    if line.is_sparse:
        axes.plot(line.steps, line.values, "o-", color=colour, label=line.label, markersize=4)
        return
    if len(line.values) < SMOOTH_FROM:
        axes.plot(line.steps, line.values, color=colour, label=line.label)
        return
    axes.plot(line.steps, line.values, color=colour, alpha=0.28, linewidth=1.0)
    axes.plot(line.steps, moving_average(line.values), color=colour, label=line.label)


def moving_average(values: Sequence[float]) -> list[float]:
    """Centred mean over about a tenth of the run; the window shrinks at both ends."""
    half = max(1, len(values) // 20)
    return [float(np.mean(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


def intervals_svg(rows: Sequence[tuple[str, Estimate | None, Estimate | None]]) -> str:
    """pass@1 before and after for each suite: points with their 95 % intervals."""
    with _styled():
        figure, axes = _figure(5.8, 0.8 + 0.5 * len(rows))
        for y, (_, before, after) in enumerate(rows):
            for estimate, colour, shift in ((before, BEFORE, -0.13), (after, AFTER, 0.13)):
                if estimate is not None:
                    _draw_interval(axes, estimate, y + shift, colour)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0.0, 1.0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(axis="y", visible=False)
        axes.plot([], [], "o-", color=BEFORE, label="before")
        axes.plot([], [], "o-", color=AFTER, label="after")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.6)
        return _svg(figure)


def models_svg(rows: Sequence[tuple[str, Estimate]]) -> str:
    """pass@1 of several models, one below the other."""
    with _styled():
        figure, axes = _figure(5.8, 0.6 + 0.32 * len(rows))
        for y, (_, estimate) in enumerate(rows):
            _draw_interval(axes, estimate, y, AFTER if y else BEFORE)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0.0, 1.0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(axis="y", visible=False)
        return _svg(figure)


def _draw_interval(axes: Axes, estimate: Estimate, y: float, colour: str) -> None:
    axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2.4)
    axes.plot([estimate.value], [y], "o", color=colour, markersize=6)


def pass_at_k_svg(before: dict[int, Estimate], after: dict[int, Estimate] | None) -> str:
    """pass@k over the number of attempts, with 95 % bands."""
    with _styled():
        figure, axes = _figure(5.8, 2.9)
        for label, curve, colour in (("before", before, BEFORE), ("after", after or {}, AFTER)):
            if not curve:
                continue
            ks = sorted(curve)
            axes.fill_between(
                [math.log2(k) for k in ks],
                [curve[k].low for k in ks],
                [curve[k].high for k in ks],
                color=colour,
                alpha=0.16,
                linewidth=0,
            )
            values = [curve[k].value for k in ks]
            axes.plot([math.log2(k) for k in ks], values, "o-", color=colour, label=label)
        ks = sorted(before)
        axes.set_xticks([math.log2(k) for k in ks], [str(k) for k in ks])
        axes.set_xlabel("attempts k")
        axes.set_ylim(0.0, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.6)
        return _svg(figure)


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A label in a script that the measuring font lacks; the reader's browser has its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Inches; the page scales them. No pyplot: no global state, no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    """The <svg> element alone, without date and fixed size."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # once is enough; drawing would do it twice more
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # matplotlib numbers its groups anew in every figure; on one page these names would repeat.
    element = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    head, rest = element.split(">", 1)
    kept = [part for part in head.split() if not part.startswith(("width=", "height="))]
    return f'{" ".join(kept)} aria-hidden="true" focusable="false">{rest}'
