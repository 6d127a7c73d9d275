"""The run's joules: possible, labelled, over the whole run, and added up rightly in the report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pellucid.evidence.core.archive import ArchiveError, read_whole
from pellucid.evidence.core.canonical import JsonError, parse_json
from pellucid.evidence.core.case import Case
from pellucid.evidence.core.check_files import is_time
from pellucid.evidence.core.energy import (
    SOURCES,
    STATES,
    Biller,
    EnergyFactors,
    EnergyWindow,
    difference,
    energy_report,
    total_of,
)
from pellucid.evidence.core.shapes import shape_problem

WINDOWS = "energy/windows.jsonl"
FACTORS = "energy/factors.json"
REPORT = "energy/report.json"
ENVIRONMENT = "env/environment.json"

BOARD_W = {
    "B200": 1000.0,
    "H200": 700.0,
    "H100 PCIe": 350.0,
    "H100": 700.0,
    "A100": 400.0,
    "L40S": 350.0,
    "RTX 4090": 450.0,
    "V100": 300.0,
    "T4": 70.0,
}
"""Board power limits of the makers' data sheets, the most specific name first."""
MOST_W = 1500.0
"""No package, board or memory draws more."""
CORE_W = 15.0
"""Highest estimate for one busy core."""
SLACK = 1.1
"""A limit is held on average, and counters are wrong by a few per cent."""
SLACK_S = 1.0
"""A counter may give the energy of the second before."""
STILL_S = 1.0
"""A window that lasted so long used something."""
ROUNDING_J = 0.002
UNSEEN_S = 60.0
"""That a process may run without its meter: at its ends, and before it was killed."""
UNSEEN_SHARE = 0.05
STARTS = ("run_started", "resumed")
"""Events with which a process begins."""
OUTSIDE = ("preregistered", "review_started", "points_imported", "point_answered", "point_rerun",
           "point_closed")  # fmt: skip
"""Events that are written while no run is at work."""
MAX_GRAMS = 2000.0
MAX_NUMBER = 1e15


def check_energy(case: Case) -> None:
    """energy/windows.jsonl by itself, against the ledger, and against energy/report.json."""
    if WINDOWS not in case.archive.sizes:
        if REPORT in case.archive.sizes:
            case.find("file-missing", WINDOWS, "a report of energy without what was measured")
        return
    windows = list(_windows(case).values())
    board_w = _board_watts(case)
    for window in windows:
        for problem in _problems(window, board_w):
            where = f"{WINDOWS} window {window['id'][:20]}"
            case.find("energy-implausible", where, problem, ())
    _check_cover(case, windows)
    if REPORT in case.archive.sizes:
        _check_report(case, windows)


def _windows(case: Case) -> dict[str, EnergyWindow]:
    """Id -> its last line. A line without end was being written when the process was killed."""
    try:
        data = read_whole(case.archive, WINDOWS)
    except ArchiveError as error:
        case.find("archive-refused", WINDOWS, str(error), ())
        return {}
    last: dict[str, EnergyWindow] = {}
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        try:
            line: Any = parse_json(raw)
            problem = shape_problem(line, EnergyWindow)
        except JsonError as error:
            problem = str(error)
        if problem is None and any(abs(n) > MAX_NUMBER for n in _numbers(line)):
            problem = "a number out of range"
        if problem is not None:
            case.find("file-malformed", f"{WINDOWS} line {number}", problem, ())
            continue
        last[line["id"]] = line
    return last


def _numbers(window: EnergyWindow) -> Iterator[float]:
    yield from (window["elapsed_s"], window["core_s"], window["joules"], window["tokens"])
    for part in window["parts"]:
        yield from (part["joules"], part["low"], part["high"])


# One window


def _problems(window: EnergyWindow, board_w: float) -> Iterator[str]:
    """What cannot be in one window."""
    elapsed, core_s = window["elapsed_s"], window["core_s"]
    if elapsed < 0 or core_s < 0 or window["tokens"] < 0 or window["answers"] < 0:
        yield "less than no time, tokens or answers"
        return
    if window["state"] not in STATES:
        yield f"its state is {ascii(window['state'])[:20]}"
    for part in window["parts"]:
        name, joules = part["component"][:20], part["joules"]
        if part["source"] not in SOURCES:
            label = ascii(part["source"])[:30]
            yield f"{joules:.0f} J of {name} have the source {label}, which is none"
        if not 0 <= part["low"] <= joules <= part["high"]:
            yield f"{name}: {joules:.0f} J are not within {part['low']:.0f} … {part['high']:.0f}"
        limit = _most_joules(part["component"], part["source"], elapsed, core_s, board_w)
        if joules > limit:
            yield f"{name}: {joules:.0f} J in {elapsed:.0f} s; {limit:.0f} J are the most"
    named = sum(part["joules"] for part in window["parts"])
    if abs(window["joules"] - named) > ROUNDING_J * (1 + len(window["parts"])):
        yield f"{window['joules']:.0f} J, of which {named:.0f} J have a source"
    if elapsed >= STILL_S and window["joules"] <= 0:
        yield f"nothing was used in {elapsed:.0f} s"


def _most_joules(
    component: str, source: str, elapsed: float, core_s: float, board_w: float
) -> float:
    if source == "estimate" and component == "cpu":
        return CORE_W * core_s + 1.0
    watts = SLACK * board_w if component.startswith("gpu") else MOST_W
    return watts * (elapsed + SLACK_S)


def _board_watts(case: Case) -> float:
    """The limit of the boards that the environment names; the largest of several."""
    if ENVIRONMENT not in case.archive.sizes:
        return MOST_W
    environment = case.load(ENVIRONMENT, dict[str, Any])
    names = list(_devices(environment, is_device=False))
    known = [next((w for key, w in BOARD_W.items() if key in name), None) for name in names]
    found = [watts for watts in known if watts is not None]
    return max(found, default=MOST_W)


def _devices(value: Any, *, is_device: bool) -> Iterator[str]:
    """Texts at or below a key `device`."""
    if type(value) is str and is_device:
        yield value
    elif type(value) is dict:
        for key, entry in value.items():
            yield from _devices(entry, is_device=is_device or key == "device")


# All windows


def _check_cover(case: Case, windows: list[EnergyWindow]) -> None:
    """Every moment of a run belongs to one window, so they last as long as its processes did."""
    ran = _run_seconds(case)
    metered = sum(window["elapsed_s"] for window in windows)
    if metered < ran * (1 - UNSEEN_SHARE):
        text = f"{metered:.0f} s are metered, by the ledger the run took at least {ran:.0f} s"
        case.find("energy-implausible", WINDOWS, text, ())


def _run_seconds(case: Case) -> float:
    """From the start of each process to its last event."""
    total, start, end = 0.0, None, None
    for event in case.events:
        if event["kind"] in OUTSIDE or not is_time(event["time"]):
            continue
        try:
            now = datetime.strptime(event["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:  # the 31st of February
            continue
        if start is None or event["kind"] in STARTS:
            total += _span(start, end)
            start = now
        end = now
    return total + _span(start, end)


def _span(start: datetime | None, end: datetime | None) -> float:
    if start is None or end is None:
        return 0.0
    return max(0.0, (end - start).total_seconds() - UNSEEN_S)


# The report


_DECIMAL = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?", re.ASCII)


def _check_report(case: Case, windows: list[EnergyWindow]) -> None:
    report = case.load(REPORT, dict[str, Any])
    factors = case.load(FACTORS, EnergyFactors)
    if report is None or factors is None:
        return
    grams, pue = factors["factor"].get("grams_per_kwh"), factors["pue"]
    if type(grams) not in (int, float) or not 0 <= grams <= MAX_GRAMS:
        text = f"{ascii(grams)[:20]} g of CO2e per kWh is no factor"
        case.find("energy-implausible", FACTORS, text, ())
        return
    if len(pue) != 2 or not 1 <= pue[0] <= pue[1] <= 10:
        case.find("energy-implausible", FACTORS, f"{ascii(pue)[:40]} is no range of PUE", ())
        return
    mine = energy_report(windows, factors)
    if "by_stage" not in report:
        del mine["by_stage"]
    given = {name: report[name] for name in mine if name in report}
    if problem := difference(mine, given):
        case.find("energy-mismatch", REPORT, problem, ())
    _check_points(case, windows, Biller(factors), report.get("per_point", {}))


def _check_points(case: Case, windows: list[EnergyWindow], bill: Biller, points: Any) -> None:
    """A point's cost is that of the whole run, by a gain that a claim reports."""
    total = total_of(windows)
    for suite, given in points.items() if type(points) is dict else ():
        gains = [
            100 * float(claim["reported"]["value"])
            for claim in case.claim_list()
            if claim["kind"] == "paired_difference"
            and claim["metric"].get("fn") == "pass_at_1"
            and claim["arms"].get("a", "").startswith(f"evals/{suite}/")
            and _DECIMAL.fullmatch(claim["reported"]["value"])
        ]
        costs = [bill(total, 1 / gain) if gain > 0 else None for gain in gains]
        if all(difference(cost, given) for cost in costs):
            text = f"a point on {suite[:60]} does not cost what the claims' gains give"
            case.find("energy-mismatch", REPORT, text, ())
