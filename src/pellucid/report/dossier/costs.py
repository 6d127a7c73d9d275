"""The energy of a dossier as a short table: energy/report.json, every number linked to it.

    energy/report.json → groups of rows (energy, CO2e, ranges) and facts (sources, factor, PUE)

The file is as foreign as all others: what is not in its form is one line of RunError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict

from markupsafe import Markup

from pellucid.errors import RunError
from pellucid.evidence.core.energy import PARTS
from pellucid.evidence.core.shapes import shape_problem
from pellucid.report import words
from pellucid.report.dossier.cells import Cells
from pellucid.report.dossier.read import ENERGY_PATH

ROWS = 40
"""Of one group, and of the remarks; a note says that there are more."""
LARGEST = 1e15
"""Of any number here: joules of a power station's year."""
ENERGY_UNITS = ((1.0, "kWh"), (1e-3, "Wh"), (1e-6, "mWh"))
CO2_UNITS = ((1.0, "g"), (1e-3, "mg"), (1e-6, "µg"))
SOURCES = {
    "nvml_counter": "counter of the GPU",
    "rapl": "counter of the processor",
    "estimate": "estimated, not measured",
}


class _Amount(TypedDict):
    value: float
    low: float
    high: float


_Bill = dict[str, Any]
"""`kwh`, `g_co2e`, and more that is not shown."""


class _Factor(TypedDict):
    grams_per_kwh: float
    region: str
    year: int | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One bill; `energy` and `co2` are None where nothing was gained."""

    name: str
    energy: tuple[Markup, Markup] | None = None
    """The value and its range, both linked to the file."""
    co2: tuple[Markup, Markup] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostGroup:
    """Rows below one heading."""

    heading: Markup
    rows: Sequence[CostRow]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The section on energy."""

    groups: Sequence[CostGroup]
    facts: Sequence[tuple[str, Markup]]
    """(name, linked value)"""
    remarks: Sequence[str]
    """Limits, and notes of the meter."""
    has_more: bool
    """Whether there are remarks beyond ROWS."""


def read_costs(report: Any, cells: Cells) -> Costs | None:
    """energy/report.json for the page; None where there is none.

    Raises RunError, one line, where the file is not in its form.
    """
    if report is None:
        return None
    remarks = [*_part(report, "limits", list[str]), *_part(report, "notes", list[str])]
    return Costs(
        groups=[group for group in _groups(report, cells) if group.rows],
        facts=list(_facts(report, cells)),
        remarks=remarks[:ROWS],
        has_more=len(remarks) > ROWS,
    )


def _groups(report: Any, cells: Cells) -> Iterator[CostGroup]:
    whole = {"everything": _part(report, "total", _Bill)}
    unfinished = _part(report, "unfinished", _Bill)
    if unfinished.get("windows"):
        whole["of it failed or interrupted"] = unfinished
    yield _group(Markup("Total"), whole, cells)
    for key, heading in (("by_kind", "By kind of work"), ("by_stage", "By stage")):
        yield _group(Markup(heading), _part(report, key, dict[str, _Bill]), cells)
    tokens = cells.fact(ENERGY_PATH, words.count(_part(report, "answer_tokens", int)))
    answer = Markup("For an answer of {} tokens").format(tokens)
    yield _group(answer, _part(report, "per_answer", dict[str, _Bill]), cells)
    point = Markup("All of it, for each point gained")
    yield _group(point, _part(report, "per_point", dict[str, _Bill | None]), cells)


def _group(heading: Markup, bills: Mapping[str, _Bill | None], cells: Cells) -> CostGroup:
    """Rows in one unit each of energy and of CO2e, so that they can be compared."""
    shown = dict(list(bills.items())[:ROWS])
    some = {name: bill for name, bill in shown.items() if bill is not None}
    energy = _column({name: _part(bill, "kwh", _Amount) for name, bill in some.items()})
    co2 = _column({name: _part(bill, "g_co2e", _Amount) for name, bill in some.items()}, CO2_UNITS)

    def linked(texts: tuple[str, str]) -> tuple[Markup, Markup]:
        return cells.fact(ENERGY_PATH, texts[0]), cells.fact(ENERGY_PATH, texts[1])

    rows = [
        CostRow(name=name, energy=linked(energy[name]), co2=linked(co2[name]))
        if name in some
        else CostRow(name=name)
        for name in shown
    ]
    return CostGroup(heading=heading, rows=rows, has_more=len(bills) > ROWS)


def _column(
    amounts: Mapping[str, _Amount], units: Sequence[tuple[float, str]] = ENERGY_UNITS
) -> dict[str, tuple[str, str]]:
    """`0.0638 kWh` and `0.0597 to 0.0683`, in the largest unit in which none needs many zeros."""
    least = min((abs(a["value"]) for a in amounts.values() if a["value"]), default=1.0)
    scale, unit = next((u for u in units if least >= 1e-3 * u[0]), units[-1])
    column = {}
    for name, amount in amounts.items():
        value, low, high = (_digits(_in_range(amount[p]) / scale) for p in PARTS)  # type: ignore[literal-required]
        column[name] = f"{value}\u202f{unit}", f"{low} to {high}"
    return column


def _digits(value: float) -> str:
    """Three digits that matter, never with an exponent."""
    if not value:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{Decimal(f'{value:#.3g}'):f}"


def _in_range(value: float) -> float:
    if not abs(value) < LARGEST:
        raise RunError(f"{ENERGY_PATH} holds a number out of range: build the dossier again")
    return value


def _facts(report: Any, cells: Cells) -> Iterator[tuple[str, Markup]]:
    """Where the joules are from, and what makes grams of them."""
    sources = _part(report, "by_source", dict[str, _Amount])
    joules = sum(_in_range(amount["value"]) for amount in sources.values())
    for label, amount in sources.items():
        share = words.percent(amount["value"] / joules) if joules else "none"
        shown = cells.fact(ENERGY_PATH, f"{share}, {_digits(amount['value'])} J")
        yield f"{SOURCES.get(label, 'unknown source')} ({label})", shown
    factor = _part(report, "factor", _Factor)
    year = "no year" if factor["year"] is None else str(factor["year"])
    grams = f"{_in_range(factor['grams_per_kwh']):g} g CO2e per kWh"
    place = words.visible(factor["region"])
    yield "factor", cells.fact(ENERGY_PATH, f"{grams}, {place}, {year}")
    yield "source of the factor", cells.fact(ENERGY_PATH, words.visible(factor["source"]))
    pue = " to ".join(f"{_in_range(one):g}" for one in _part(report, "pue", list[float]))
    yield "PUE, what the building adds", cells.fact(ENERGY_PATH, pue)


def _part(value: Any, key: str, shape: Any) -> Any:
    """A key's value in its form. Raises RunError where it is missing, or is not in it."""
    if not isinstance(value, dict) or key not in value:
        problem: str | None = f"it lacks {key}"
    else:
        problem = shape_problem(value[key], shape, key)
    if problem is not None:
        raise RunError(f"{ENERGY_PATH} is not in its form ({problem}): build the dossier again")
    return value[key]
