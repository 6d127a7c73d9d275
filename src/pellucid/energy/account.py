"""The bill of a run: joules by window and source, kilowatt-hours, CO2e, and what they bought.

    energy/windows.jsonl → the last line of every window → sums → × PUE × factor → report

Bounds are sums of bounds: nothing is assumed to cancel out. Windows that failed or were interrupted
are on the bill like all others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import atomic_write_json
from pellucid.energy.factors import Factor
from pellucid.energy.meter import State
from pellucid.errors import ConfigError, RunError
from pellucid.jsonl import read_jsonl

JOULES_PER_KWH = 3.6e6
PUE = (1.1, 1.6)
"""What a data centre draws per watt of its computers: the best of large ones, and the average of
surveys (Uptime Institute 2023: 1.58)."""
ANSWER_TOKENS = 400
"""Length of the answer that Mistral's life cycle analysis (2025) states its figures for."""


class Amount(NamedTuple):
    """A quantity with its bounds."""

    value: float
    low: float
    high: float

    def __add__(self, other: object) -> Amount:
        assert isinstance(other, Amount), "amounts add to amounts"
        return Amount(self.value + other.value, self.low + other.low, self.high + other.high)

    def times(self, value: float, low: float | None = None, high: float | None = None) -> Amount:
        """Scaled, the bounds by factors of their own."""
        lower, upper = value if low is None else low, value if high is None else high
        return Amount(self.value * value, self.low * lower, self.high * upper)


ZERO = Amount(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTotal:
    """A window as its last line has it."""

    id: str
    kind: str
    name: str
    state: State
    """`running`: the process was killed in it."""
    elapsed_s: float
    tokens: int
    answers: int
    joules: Amount
    by_source: Mapping[str, Amount]
    notes: Sequence[str]


def read_windows(path: Path) -> list[WindowTotal]:
    """All windows of a run, of all its processes. Raises RunError for a damaged file."""
    if not path.is_file():
        raise RunError(f"{path} is missing: this run was not metered")
    last: dict[str, dict[str, Any]] = {}
    for line in read_jsonl(path):
        last[line.get("id", "")] = line
    try:
        return [_window(line) for line in last.values()]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} holds a damaged window ({error}): restore it") from error


def _window(line: Mapping[str, Any]) -> WindowTotal:
    by_source: dict[str, Amount] = defaultdict(lambda: ZERO)
    for part in line["parts"]:
        by_source[part["source"]] += Amount(part["joules"], part["low"], part["high"])
    return WindowTotal(
        id=line["id"],
        kind=line["kind"],
        name=line["name"],
        state=State(line["state"]),
        elapsed_s=line["elapsed_s"],
        tokens=line["tokens"],
        answers=line["answers"],
        joules=_sum(by_source.values()),
        by_source=dict(by_source),
        notes=line["notes"],
    )


def account(
    windows: Sequence[WindowTotal],
    factor: Factor,
    *,
    pue: tuple[float, float] = PUE,
    points: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The bill as plain values. `points`: suite -> percentage points gained by the run.

    Raises ConfigError for a PUE below 1 or upside down.
    """
    if not 1.0 <= pue[0] <= pue[1]:
        raise ConfigError(f"a PUE range of {pue[0]} … {pue[1]} is impossible: both at least 1")
    total = _sum(w.joules for w in windows)
    unfinished = [w for w in windows if w.state is not State.ENDED]
    by_kind = {kind: [w for w in windows if w.kind == kind] for kind in {w.kind for w in windows}}

    def bill(joules: Amount) -> dict[str, Any]:
        kwh = joules.times(1 / JOULES_PER_KWH)
        centre = kwh.times(sum(pue) / 2, *pue)
        return {
            "joules": joules._asdict(),
            "kwh": kwh._asdict(),
            "g_co2e": centre.times(factor.grams_per_kwh)._asdict(),
        }

    return {
        "v": 1,
        "total": bill(total) | {"elapsed_s": sum(w.elapsed_s for w in windows)},
        "by_source": {
            source: _sum(w.by_source.get(source, ZERO) for w in windows)._asdict()
            for source in sorted({s for w in windows for s in w.by_source})
        },
        "by_kind": {
            kind: bill(_sum(w.joules for w in by_kind[kind])) | {"windows": len(by_kind[kind])}
            for kind in sorted(by_kind)
        },
        "by_stage": {
            name: bill(_sum(w.joules for w in by_kind["stage"] if w.name == name))
            for name in dict.fromkeys(w.name for w in by_kind.get("stage", ()))
        },
        "unfinished": bill(_sum(w.joules for w in unfinished)) | {"windows": len(unfinished)},
        "windows": [
            {"id": w.id, "kind": w.kind, "name": w.name, "state": str(w.state)}
            | {"elapsed_s": w.elapsed_s, "sources": sorted(w.by_source)}
            | bill(w.joules)
            for w in windows
        ],
        "per_point": {
            suite: bill(total.times(1 / gained)) if gained > 0 else None
            for suite, gained in (points or {}).items()
        },
        "per_answer": {
            w.name: bill(w.joules.times(ANSWER_TOKENS / w.tokens)) | {"answers": w.answers}
            for w in windows
            if w.tokens and w.state is State.ENDED
        },
        "answer_tokens": ANSWER_TOKENS,
        "factor": factor.to_dict(),
        "pue": list(pue),
        "notes": [f"{w.id} {w.name}: {note}" for w in windows for note in w.notes],
        "limits": [
            "joules are those of the computing parts; fans, disks, network and the losses of the "
            "power supply are in the PUE's range only",
            "RAPL counts all that ran on the machine; production of the hardware is not counted",
            "energy per answer is that of batched sampling as it was done here",
        ],
    }


def write_account(folder: Path, report: Mapping[str, Any]) -> None:
    """`report.json` and `factors.json` beside `windows.jsonl`."""
    atomic_write_json(folder / "report.json", dict(report))
    atomic_write_json(folder / "factors.json", {"factor": report["factor"], "pue": report["pue"]})


def lines(report: Mapping[str, Any]) -> list[str]:
    """The bill for a terminal."""
    total, factor = report["total"], report["factor"]
    sources = ", ".join(
        f"{amount['value'] / max(total['joules']['value'], 1e-9):.0%} {source}"
        for source, amount in report["by_source"].items()
    )
    when = f" ({factor['year']})" if factor["year"] else ""
    result = [
        f"energy {_range(total['kwh'], 'kWh')}, of it {sources}",
        f"CO2e {_range(total['g_co2e'], 'g')}: {factor['grams_per_kwh']:g} g/kWh, "
        f"{factor['region']}{when}, PUE {report['pue'][0]} … {report['pue'][1]}",
    ]
    if report["unfinished"]["windows"]:
        share = _range(report["unfinished"]["kwh"], "kWh")
        result.append(f"of it {report['unfinished']['windows']} failed or interrupted: {share}")
    for suite, bill in report["per_point"].items():
        cost = "nothing gained" if bill is None else _range(bill["g_co2e"], "g CO2e")
        result.append(f"per point gained on {suite}: {cost}")
    for name, bill in report["per_answer"].items():
        cost = _range(bill["g_co2e"], "g CO2e")
        result.append(f"per answer of {report['answer_tokens']} tokens, {name}: {cost}")
    return result


def _range(amount: Mapping[str, float], unit: str) -> str:
    return f"{amount['value']:.3g} {unit} [{amount['low']:.3g}, {amount['high']:.3g}]"


def _sum(amounts: Iterable[Amount]) -> Amount:
    return sum(amounts, ZERO)
