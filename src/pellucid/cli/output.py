"""How commands print: JSON where a machine reads, tables where a person does; to stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def show_help(context: typer.Context) -> None:
    """A group of commands called without one: its help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def print_json(value: Any) -> None:
    """One JSON document."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their longest cell; the last one may run on. None is shown as a dash."""
    cells = [[str(h) for h in headers], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        typer.echo("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    return "–" if value is None else str(value)


def percent(value: float) -> str:
    """`71.3 %`"""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points: `+3.4`."""
    return f"{100 * value:+.1f}"


def interval(ci95: Sequence[float]) -> str:
    """`69.1 to 73.4`, in percent."""
    low, high = ci95
    return f"{100 * low:.1f} to {100 * high:.1f}"
