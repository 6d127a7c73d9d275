"""The bill of a run's energy, computed again: joules by window and source, kWh, grams of CO2e.

    energy/windows.jsonl, the last line of every window → sums → / 3.6e6 → × PUE × grams per kWh

Bounds are sums of bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

JOULES_PER_KWH = 3.6e6
ANSWER_TOKENS = 400
SOURCES = ("nvml_counter", "rapl", "estimate")
"""Labels that a joule may have; two are of counters."""
STATES = ("running", "ended", "failed")
PARTS = ("value", "low", "high")


class EnergyPart(TypedDict):
    """What one component used, by one source."""

    component: str
    source: str
    joules: float
    low: float
    high: float


class EnergyWindow(TypedDict):
    """A line of energy/windows.jsonl; the last one of an id counts."""

    v: int
    id: str
    kind: str
    name: str
    state: str
    started: str
    elapsed_s: float
    core_s: float
    tokens: int
    answers: int
    joules: float
    parts: list[EnergyPart]
    notes: list[str]


class EnergyFactors(TypedDict):
    """energy/factors.json"""

    factor: dict[str, Any]
    """`grams_per_kwh`, `region`, `year`, `source`"""
    pue: list[float]
    """Lowest and highest."""


Amount = dict[str, float]
"""{"value", "low", "high"}"""


class Biller:
    """Joules to kWh and grams, by one factor."""

    def __init__(self, factors: EnergyFactors) -> None:
        low, high = factors["pue"]
        self._pue = {"value": (low + high) / 2, "low": low, "high": high}
        self._grams: float = factors["factor"]["grams_per_kwh"]

    def __call__(self, joules: Amount, share: float = 1.0) -> dict[str, Any]:
        """The bill of a share of an amount."""
        used = {name: joules[name] * share for name in PARTS}
        kwh = {name: used[name] / JOULES_PER_KWH for name in PARTS}
        grams = {name: kwh[name] * self._pue[name] * self._grams for name in PARTS}
        return {"joules": used, "kwh": kwh, "g_co2e": grams}


def total_of(windows: Iterable[EnergyWindow], source: str | None = None) -> Amount:
    """Joules of all parts, or of those of one source."""
    total = dict.fromkeys(PARTS, 0.0)
    for window in windows:
        for part in window["parts"]:
            if source in (None, part["source"]):
                total["value"] += part["joules"]
                total["low"] += part["low"]
                total["high"] += part["high"]
    return total


def energy_report(windows: Sequence[EnergyWindow], factors: EnergyFactors) -> dict[str, Any]:
    """What energy/report.json has to say, but for the cost of points and words for people."""
    bill = Biller(factors)
    unfinished = [w for w in windows if w["state"] != "ended"]
    kinds: dict[str, list[EnergyWindow]] = {}
    for window in windows:
        kinds.setdefault(window["kind"], []).append(window)
    stages = {w["name"] for w in kinds.get("stage", ())}
    return {
        "total": bill(total_of(windows)) | {"elapsed_s": sum(w["elapsed_s"] for w in windows)},
        "by_source": {source: total_of(windows, source) for source in _sources(windows)},
        "by_kind": {k: bill(total_of(own)) | {"windows": len(own)} for k, own in kinds.items()},
        "by_stage": {
            name: bill(total_of(w for w in kinds["stage"] if w["name"] == name)) for name in stages
        },
        "unfinished": bill(total_of(unfinished)) | {"windows": len(unfinished)},
        "windows": [
            {name: w[name] for name in ("id", "kind", "name", "state", "elapsed_s")}  # type: ignore[literal-required]
            | {"sources": _sources([w])}
            | bill(total_of([w]))
            for w in windows
        ],
        "per_answer": {
            w["name"]: bill(total_of([w]), ANSWER_TOKENS / w["tokens"]) | {"answers": w["answers"]}
            for w in windows
            if w["tokens"] and w["state"] == "ended"
        },
        "answer_tokens": ANSWER_TOKENS,
        "factor": factors["factor"],
        "pue": factors["pue"],
    }


def _sources(windows: Iterable[EnergyWindow]) -> list[str]:
    return sorted({part["source"] for window in windows for part in window["parts"]})


def difference(mine: Any, given: Any, where: str = "") -> str | None:
    """Where two values differ by more than rounding, in words, or None. Objects have equal keys."""
    if isinstance(mine, Mapping) and isinstance(given, Mapping):
        if odd := sorted(mine.keys() ^ given.keys()):
            return f"{where}.{odd[0]} stands in one of the two only".lstrip(".")
        found = (difference(mine[key], given[key], f"{where}.{key}") for key in sorted(mine))
        return next((f for f in found if f), None)
    if isinstance(mine, list) and isinstance(given, list) and len(mine) == len(given):
        pairs = enumerate(zip(mine, given, strict=True))
        found = (difference(a, b, f"{where}[{n}]") for n, (a, b) in pairs)
        return next((f for f in found if f), None)
    if _is_number(mine) and _is_number(given):
        is_same = abs(mine - given) <= 1e-9 + 1e-6 * max(abs(mine), abs(given))
    else:
        is_same = type(mine) is type(given) and mine == given
    said = f"{where.lstrip('.')} is {ascii(mine)[:40]}, the report says {ascii(given)[:40]}"
    return None if is_same else said


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 63)
