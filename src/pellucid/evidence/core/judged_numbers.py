"""What judgments say: shares with their missing values, agreement with people and with each other,
flips under probes, and the estimate that people's labels correct.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypedDict

from pellucid.evidence.core.agreement import CELLS, Estimate, Stratum, kappa, share_of, wilson
from pellucid.evidence.core.audit import SURE
from pellucid.evidence.core.audit_numbers import Numbers, PrintedEstimate
from pellucid.evidence.core.judged import PROBES, JudgedSuite, Row, Verdicts
from pellucid.evidence.core.ppi import Part, corrected
from pellucid.evidence.core.statistics import Interval, StatisticsError, jackknife

MISSING = 0.5
"""What a missing verdict counts as where labels take it out again: in the corrected estimate."""


class JudgedArm(TypedDict):
    """One judge on one evaluation."""

    samples: int
    missing: int
    accepted: PrintedEstimate | None
    """Share of the verdicts that are yes, with its interval over families of problems."""
    worst: str
    """Share of all samples, every missing verdict taken as no."""
    best: str
    corrected: PrintedEstimate | None
    """By people's labels (`ppi`)."""


class JudgedDifference(TypedDict):
    """One judge on two evaluations, the first less the second."""

    judged: PrintedEstimate | None
    corrected: PrintedEstimate | None


class Flips(TypedDict):
    """One probe."""

    asked: int
    """Samples with a verdict before and after."""
    to_yes: int
    to_no: int
    missing: int
    """Samples on which the verdict was lost."""
    share: PrintedEstimate | None
    """Of flipped verdicts."""


class JudgeResult(TypedDict):
    """One judge."""

    evaluations: dict[str, JudgedArm]
    differences: dict[str, JudgedDifference]
    """`A - B` of two evaluations."""
    labelled: int
    """Samples with both a verdict and a person's label."""
    agreement: PrintedEstimate | None
    """With people, weighted by the inverse probability of the draw."""
    kappa: PrintedEstimate | None
    flips: dict[str, Flips]


class Between(TypedDict):
    """Two judges, where both gave a verdict."""

    samples: int
    agreement: PrintedEstimate | None
    kappa: PrintedEstimate | None


class JudgedFile(TypedDict):
    """judges/SUITE/result.json; null where a number cannot be had."""

    v: int
    suite: str
    judges: dict[str, JudgeResult]
    between: dict[str, Between]


def judged_numbers(suite: JudgedSuite, labels: Mapping[str, str]) -> Numbers:
    """A `JudgedFile` before rounding. `labels`: leaf (hexadecimal) -> what people say."""
    truths = {bytes.fromhex(leaf): label == "correct" for leaf, label in labels.items()
              if label in SURE}  # fmt: skip
    return {
        "v": 1,
        "suite": suite.suite,
        "judges": {name: _Judge(suite, name, truths).numbers() for name in suite.judges},
        "between": {f"{a}, {b}": _between(suite, a, b) for a, b in combinations(suite.judges, 2)},
    }


class _Judge:
    """One judge's numbers."""

    def __init__(self, suite: JudgedSuite, name: str, truths: Mapping[bytes, bool]) -> None:
        self._suite, self._truths = suite, truths
        self._judgments = suite.judges[name]
        self._verdicts = self._judgments.verdicts
        self._rows: dict[str, list[Row]] = {folder: [] for folder in suite.sizes}
        for row in suite.rows:
            self._rows[row.evaluation].append(row)

    def numbers(self) -> Numbers:
        """A `JudgeResult` before rounding."""
        strata = [self._stratum(rows) for rows in self._strata(self._suite.rows)]
        folders = sorted(self._rows)
        return {
            "evaluations": {folder: self._arm(self._rows[folder]) for folder in folders},
            "differences": {
                f"{a} - {b}": self._difference(self._rows[a], self._rows[b])
                for a, b in combinations(folders, 2)
            },
            "labelled": sum(stratum.num_labelled for stratum in strata),
            "agreement": _shown(lambda: share_of(strata, (0, 3))),
            "kappa": _shown(lambda: kappa(strata)),
            "flips": {probe: self._flips(found) for probe, found in self._probes()},
        }

    def _strata(self, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        contested = [row for row in rows if self._suite.is_contested(row.leaf)]
        return contested, [row for row in rows if not self._suite.is_contested(row.leaf)]

    def _given(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if self._verdicts.get(row.leaf) is not None]

    def _stratum(self, rows: Sequence[Row]) -> Stratum:
        """Samples with a verdict, and the labels on them."""
        given = [row.leaf for row in self._given(rows)]
        both = [leaf for leaf in given if leaf in self._truths]
        pairs = [(self._verdicts[leaf], self._truths[leaf]) for leaf in both]
        a, b, c, d = (pairs.count(cell) for cell in CELLS)
        return Stratum(len(given), (a, b, c, d))

    def _arm(self, rows: Sequence[Row]) -> Numbers:
        given = self._given(rows)
        accepted, total = sum(bool(self._verdicts[row.leaf]) for row in given), len(rows)
        missing = total - len(given)
        return {
            "samples": total,
            "missing": missing,
            "accepted": _shown(lambda: _of(self._mean([given], lambda v: float(bool(v))))),
            "worst": accepted / total if total else 0.0,
            "best": (accepted + missing) / total if total else 1.0,
            "corrected": _shown(
                lambda: corrected(self._mean([rows], _as_number), [self._parts(rows)])
            ),
        }

    def _difference(self, a: Sequence[Row], b: Sequence[Row]) -> Numbers:
        bounds = (-1.0, 1.0)
        given = [self._given(rows) for rows in (a, b)]
        return {
            "judged": _shown(lambda: _of(self._mean(given, lambda v: float(bool(v))))),
            "corrected": _shown(
                lambda: corrected(
                    self._mean([a, b], _as_number), [self._parts(a), self._parts(b)], bounds=bounds
                )
            ),
        }

    def _mean(
        self, arms: Sequence[Sequence[Row]], value: Callable[[bool | None], float]
    ) -> Interval:
        """Mean over samples, or the difference of two, with the jackknife over families."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * (2 * len(arms)))
        for arm, rows in enumerate(arms):
            for row in rows:
                own = sums[row.cluster]
                own[2 * arm] += value(self._verdicts.get(row.leaf))
                own[2 * arm + 1] += 1.0
        rows_of = [tuple(own) for own in sums.values()]
        if len(arms) == 1:
            return jackknife(rows_of, lambda s: s[0] / s[1], is_share=True)
        return jackknife(rows_of, lambda s: s[0] / s[1] - s[2] / s[3], bounds=(-1.0, 1.0))

    def _parts(self, rows: Sequence[Row]) -> list[Part]:
        return [
            Part(
                len(stratum),
                [
                    float(self._truths[row.leaf]) - _as_number(self._verdicts.get(row.leaf))
                    for row in stratum
                    if row.leaf in self._truths
                ],
            )
            for stratum in self._strata(rows)
        ]

    def _probes(self) -> list[tuple[str, Verdicts]]:
        by_probe = self._judgments.by_probe
        return [(name, by_probe[name]) for name in PROBES if name in by_probe]

    def _flips(self, found: Verdicts) -> Numbers:
        before = {leaf: self._verdicts.get(leaf) for leaf in found}
        both = [(before[leaf], v) for leaf, v in found.items()
                if before[leaf] is not None and v is not None]  # fmt: skip
        to_yes, to_no = both.count((False, True)), both.count((True, False))
        lost = sum(v is None and before[leaf] is not None for leaf, v in found.items())
        return {
            "asked": len(both),
            "to_yes": to_yes,
            "to_no": to_no,
            "missing": lost,
            "share": _share(to_yes + to_no, len(both)),
        }


def _between(suite: JudgedSuite, a: str, b: str) -> Numbers:
    first, second = suite.judges[a].verdicts, suite.judges[b].verdicts
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
    for row in suite.rows:
        x, y = first.get(row.leaf), second.get(row.leaf)
        if x is not None and y is not None:
            sums[row.cluster][2 * (not x) + (not y)] += 1.0
    rows = [tuple(own) for own in sums.values()]
    return {
        "samples": int(sum(map(sum, rows))),
        "agreement": _shown(
            lambda: _of(jackknife(rows, lambda s: (s[0] + s[3]) / sum(s), is_share=True))
        ),
        "kappa": _shown(lambda: _of(jackknife(rows, _kappa_of, bounds=(-1.0, 1.0)))),
    }


def _kappa_of(cells: Sequence[float]) -> float:
    """Kappa of the four cells; ZeroDivisionError where only one verdict occurs."""
    total = sum(cells)
    first, second = (cells[0] + cells[1]) / total, (cells[0] + cells[2]) / total
    chance = first * second + (1 - first) * (1 - second)
    if chance >= 1.0 - 1e-12:
        raise ZeroDivisionError
    return ((cells[0] + cells[3]) / total - chance) / (1 - chance)


def _as_number(verdict: bool | None) -> float:
    return MISSING if verdict is None else float(verdict)


def _of(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)


def _share(hits: int, number: int) -> Numbers | None:
    if not number:
        return None
    low, high = wilson(hits, number)
    return Estimate(hits / number, low, high)._asdict()


def _shown(compute: Callable[[], Estimate]) -> dict[str, Any] | None:
    """None where it cannot be had."""
    try:
        return compute()._asdict()
    except StatisticsError:
        return None
