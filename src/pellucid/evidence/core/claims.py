"""Claims are programs: typed functions from samples to a printed number with its interval.

    kind               arms   metric                            value
    pass_at_1          a      {"fn": "pass_at_1"}               share of graded samples correct
    pass_at_k          a      {"fn": "pass_at_k", "k": 8}       unbiased pass@k
    cons_at_k          a      {"fn": "cons_at_k", "k": 8}       majority vote of k samples
    rate               a      {"fn": "rate", "of", "among"}     share of samples, such as truncated
    ratio              a      {"fn": "ratio", "of", "among"}    one count per another, as tokens per
                                                                correct sample
    ratio              a, b   any of the above                  metric of a / metric of b
    paired_difference  a, b   any of the above                  metric of a - metric of b
    non_inferiority    a, b   … with "margin": 0.02             the same, tested against -margin

Unit `problem` counts every problem once, `sample` every sample once. Two arms are compared on the
items that both were asked. Samples whose instrument failed are left out of accuracies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pellucid.evidence.core.rules import RuleError, evaluate_rule
from pellucid.evidence.core.schema import Claim, Claims, Printed
from pellucid.evidence.core.statistics import (
    Interval,
    StatisticsError,
    Sums,
    holm,
    jackknife,
    majority_credit,
    pass_at_k,
    sign_flip_p,
    t_test_p,
)
from pellucid.evidence.core.tally import Evaluation, ItemTally

SHARE_KINDS = ("pass_at_1", "pass_at_k", "cons_at_k", "rate")
TWO_ARM_KINDS = ("paired_difference", "non_inferiority")
KINDS = (*SHARE_KINDS, "ratio", *TWO_ARM_KINDS)
METRICS = (*SHARE_KINDS, "ratio")
CAPABILITY = ("pass_at_1", "pass_at_k", "cons_at_k")
"""Metrics that say how able a model is: a claim of one needs its views."""
COUNTS = ("samples", "graded", "correct", "parsable", "truncated", "errors", "tokens")
"""What `rate` and `ratio` can count: fields of `ItemTally`."""
SHARES_OF = {
    "correct": ("samples", "graded", "parsable"),
    "parsable": ("samples", "graded"),
    "graded": ("samples",),
    "truncated": ("samples",),
    "errors": ("samples",),
}
"""A rate is of a part among its whole."""
MAX_K = 1 << 20


class ClaimError(ValueError):
    """A claim that cannot be computed: says why."""


class Result(NamedTuple):
    """A computed claim, unrounded."""

    value: float
    low: float
    high: float
    p: float | None
    n_items: int
    n_clusters: int
    n_samples: int
    """Of all arms."""


class Cell(NamedTuple):
    """What one item gives to a metric: it is summed as numerator and denominator."""

    num: float
    den: float
    samples: int


def compute_claim(
    claim: Claim,
    evaluations: Mapping[str, Evaluation],
    *,
    keep: Collection[str] | None = None,
) -> Result:
    """Run the claim over `evaluations` (folder -> evaluation), on the items in `keep` (None: all).

    Raises ClaimError.
    """
    _check_form(claim)
    arms = [_arm(claim, name, evaluations) for name in sorted(claim["arms"])]
    cells = [_cells(claim, arm, keep) for arm in arms]
    items = list(cells[0])
    for other in cells[1:]:
        items = [item for item in items if item in other]
    if not items:
        raise ClaimError("no item has what the metric needs")
    names = _clusters(claim, arms, items)
    sums, order = _cluster_sums(cells, items, names)
    try:
        estimate = _estimate(claim, sums)
        p = _p_value(claim, estimate, cells, items, [order[name] for name in names])
    except (StatisticsError, OverflowError) as error:
        raise ClaimError(str(error)) from None
    if not all(map(math.isfinite, estimate[:3])):
        raise ClaimError("an interval is without end: there are too few clusters")
    taken = sum([cell[item].samples for cell in cells for item in items])
    low, high = estimate.low, estimate.high
    return Result(estimate.value, low, high, p, len(items), estimate.n_clusters, taken)


def compute_claims(
    claims: Claims, evaluations: Mapping[str, Evaluation]
) -> tuple[dict[str, Result], dict[str, float], dict[str, str]]:
    """All claims: results and adjusted p values by id, and why each of the others has none."""
    results: dict[str, Result] = {}
    problems: dict[str, str] = {}
    for claim in claims["claims"]:
        try:
            results[claim["id"]] = compute_claim(claim, evaluations)
        except ClaimError as error:
            problems[claim["id"]] = str(error)
    adjusted: dict[str, float] = {}
    for family in claims["families"].values():
        members = [i for i in family["claims"] if i in results and results[i].p is not None]
        corrected = holm([_known(results[i].p) for i in members])
        adjusted |= dict(zip(members, corrected, strict=True))
    return results, adjusted, problems


def printed(result: Result, precision: int, *, p_adj: float | None = None) -> Printed:
    """The numbers as they are printed, with `precision` digits behind the point."""
    return {
        "value": fixed(result.value, precision),
        "low": fixed(result.low, precision),
        "high": fixed(result.high, precision),
        "p": None if result.p is None else fixed(result.p, precision),
        "p_adj": None if p_adj is None else fixed(p_adj, precision),
        "n_items": result.n_items,
        "n_clusters": result.n_clusters,
        "n_samples": result.n_samples,
    }


def fixed(value: float, precision: int) -> str:
    """Decimal with this many digits; zero has no sign."""
    text = f"{value:.{precision}f}"
    return text.lstrip("-") if float(text) == 0.0 else text


def is_printed_as(value: float, text: object, precision: int) -> bool:
    """Whether `text` is the value at this precision; a last digit on the edge may go either way."""
    if type(text) is not str or len(text) > 40 or text != _normal(text, precision):
        return False
    return abs(float(text) - value) <= (0.5 + 1e-6) * 10.0**-precision


def _normal(text: str, precision: int) -> str | None:
    try:
        return fixed(float(text), precision)
    except ValueError:
        return None


def rule_values(claim: Claim, result: Result, p_adj: float | None) -> dict[str, float | None]:
    """Names that the claim's rule may use."""
    return {
        "value": result.value,
        "low": result.low,
        "high": result.high,
        "p": result.p,
        "p_adj": p_adj,
        "n": float(result.n_items),
        "margin": claim["metric"].get("margin"),
    }


def is_capability(claim: Mapping[str, Any]) -> bool:
    """Whether a claim says how able a model is, whatever it calls itself."""
    return claim["metric"].get("fn") in CAPABILITY


def does_hold(claim: Claim, result: Result, p_adj: float | None) -> bool:
    """What the claim's rule says of its numbers. Raises ClaimError."""
    try:
        return evaluate_rule(claim["rule"], rule_values(claim, result, p_adj))
    except RuleError as error:
        raise ClaimError(str(error)) from None


# Form


def _check_form(claim: Claim) -> None:
    kind, metric, arms = claim["kind"], claim["metric"], sorted(claim["arms"])
    if kind not in KINDS:
        raise ClaimError(f"unknown kind {kind[:40]!r}")
    fn = metric.get("fn")
    if fn not in METRICS or (kind in (*SHARE_KINDS,) and fn != kind):
        raise ClaimError(f"{kind} with the metric {str(fn)[:40]!r}")
    is_two_armed = kind in TWO_ARM_KINDS or (kind == "ratio" and arms == ["a", "b"])
    if arms != (["a", "b"] if is_two_armed else ["a"]):
        raise ClaimError(f"{kind} with the arms {', '.join(arms)[:40]}")
    if kind == "ratio" and not is_two_armed and fn != "ratio":
        raise ClaimError("a ratio of one arm needs the metric ratio")
    if claim["test"] is not None and kind not in (*TWO_ARM_KINDS, "ratio"):
        raise ClaimError(f"{kind} has no null hypothesis to test")
    if claim["test"] == "sign_flip" and (kind != "paired_difference" or claim["unit"] != "problem"):
        raise ClaimError("a sign flip needs a paired difference by problem")
    if kind == "ratio" and claim["test"] is not None and not is_two_armed:
        raise ClaimError("a ratio of one arm has no null hypothesis to test")
    _check_metric(claim, metric)


def _check_metric(claim: Claim, metric: Mapping[str, Any]) -> None:
    fn, k = metric["fn"], metric.get("k", 1)
    if type(k) is not int or not 1 <= k <= MAX_K:
        raise ClaimError("k is no count")
    if fn in ("pass_at_k", "cons_at_k") and ("k" not in metric or claim["unit"] != "problem"):
        raise ClaimError(f"{fn} needs its k and the unit problem")
    of, among = metric.get("of"), metric.get("among")
    if fn == "rate" and among not in SHARES_OF.get(str(of), ()):
        raise ClaimError(f"no rate of {str(of)[:20]} among {str(among)[:20]}")
    if fn == "ratio" and not (of in COUNTS and among in COUNTS):
        raise ClaimError(f"no ratio of {str(of)[:20]} to {str(among)[:20]}")
    if fn == "ratio" and claim["unit"] != "sample":
        raise ClaimError("a ratio of counts needs the unit sample")
    margin = metric.get("margin")
    if (claim["kind"] == "non_inferiority") != (type(margin) in (int, float) and 0 < margin < 1e9):
        raise ClaimError("non_inferiority, and nothing else, needs a margin above 0")


def _arm(claim: Claim, name: str, evaluations: Mapping[str, Evaluation]) -> Evaluation:
    folder = claim["arms"][name]
    if folder not in evaluations:
        raise ClaimError(f"there is no evaluation {folder[:80]}")
    return evaluations[folder]


# Cells


def _cells(claim: Claim, arm: Evaluation, keep: Collection[str] | None) -> dict[str, Cell]:
    make = _MAKERS[claim["metric"]["fn"]]
    cells = {}
    for item, tally in arm.items.items():
        if keep is None or item in keep:
            cell = make(tally, claim)
            if cell is not None:
                cells[item] = cell
    return cells


def _pass_at_1(tally: ItemTally, claim: Claim) -> Cell | None:
    graded = tally.graded
    if not graded:
        return None
    if claim["unit"] == "sample":
        return Cell(tally.correct, graded, graded)
    return Cell(tally.correct / graded, 1.0, graded)


def _pass_at_k(tally: ItemTally, claim: Claim) -> Cell | None:
    k, graded = claim["metric"]["k"], tally.graded
    if graded < k:
        return None
    return Cell(pass_at_k(graded, tally.correct, k), 1.0, graded)


def _cons_at_k(tally: ItemTally, claim: Claim) -> Cell | None:
    """The first k graded samples vote; items with fewer samples do not take part."""
    k = claim["metric"]["k"]
    if tally.samples < k or not tally.graded:
        return None
    votes = tally.answers[:k]
    return Cell(majority_credit(votes), 1.0, len(votes))


def _counted(tally: ItemTally, claim: Claim) -> Cell | None:
    metric = claim["metric"]
    num, den = float(getattr(tally, metric["of"])), float(getattr(tally, metric["among"]))
    if claim["unit"] == "sample":
        return Cell(num, den, tally.samples)
    return Cell(num / den, 1.0, tally.samples) if den else None


_MAKERS: dict[str, Callable[[ItemTally, Claim], Cell | None]] = {
    "pass_at_1": _pass_at_1,
    "pass_at_k": _pass_at_k,
    "cons_at_k": _cons_at_k,
    "rate": _counted,
    "ratio": _counted,
}


# Estimates


def _clusters(claim: Claim, arms: Sequence[Evaluation], items: Sequence[str]) -> list[str]:
    if claim["cluster"] == "problem":
        return list(items)
    names = [arms[0].items[item].cluster for item in items]
    for arm in arms[1:]:
        for item, name in zip(items, names, strict=True):
            if arm.items[item].cluster != name:
                raise ClaimError(f"the arms place {item[:60]} in different families")
    return names


def _cluster_sums(
    cells: Sequence[Mapping[str, Cell]], items: Sequence[str], names: Sequence[str]
) -> tuple[list[Sums], dict[str, int]]:
    """Sums [num_a, den_a, num_b, den_b] by cluster in order of first appearance."""
    order: dict[str, int] = {}
    gathered: list[list[list[float]]] = []
    for item, name in zip(items, names, strict=True):
        index = order.setdefault(name, len(order))
        if index == len(gathered):
            gathered.append([])
        row: list[float] = []
        for cell in cells:
            row += cell[item][:2]
        gathered[index].append(row)
    return [_column_sums(rows) for rows in gathered], order


def _column_sums(rows: Sequence[Sequence[float]]) -> Sums:
    if len(rows) == 1:  # most families have one item
        return tuple(map(float, rows[0]))
    return tuple(map(math.fsum, zip(*rows, strict=True)))


def _estimate(claim: Claim, sums: Sequence[Sums]) -> Interval:
    kind, fn = claim["kind"], claim["metric"]["fn"]
    if kind in SHARE_KINDS:
        return jackknife(sums, lambda s: s[0] / s[1], is_share=True)
    if kind in TWO_ARM_KINDS:
        bounds = None if fn == "ratio" else (-1.0, 1.0)
        return jackknife(sums, lambda s: s[0] / s[1] - s[2] / s[3], bounds=bounds)
    if len(claim["arms"]) == 1:
        return jackknife(sums, lambda s: s[0] / s[1])
    return jackknife(sums, lambda s: (s[0] / s[1]) / (s[2] / s[3]))


def _p_value(
    claim: Claim,
    estimate: Interval,
    cells: Sequence[Mapping[str, Cell]],
    items: Sequence[str],
    cluster_of: Sequence[int],
) -> float | None:
    if claim["test"] is None:
        return None
    if claim["kind"] == "non_inferiority":
        return t_test_p(estimate, null=-float(claim["metric"]["margin"]), is_one_sided=True)
    if claim["test"] == "clustered_t":
        return t_test_p(estimate, null=1.0 if claim["kind"] == "ratio" else 0.0)
    gathered: list[list[float]] = [[] for _ in range(estimate.n_clusters)]
    for item, cluster in zip(items, cluster_of, strict=True):
        gathered[cluster].append(cells[0][item].num - cells[1][item].num)
    scale = _lattice(claim, cells, items)
    return sign_flip_p([math.fsum(x) for x in gathered], scale=scale, seed=claim["seed"])


def _lattice(claim: Claim, cells: Sequence[Mapping[str, Cell]], items: Sequence[str]) -> int | None:
    """The number whose inverse all differences are multiples of, where it is small."""
    if claim["metric"]["fn"] not in ("pass_at_1", "rate"):
        return 1 if claim["metric"]["fn"] == "cons_at_k" else None
    sizes = {cell[item].samples for cell in cells for item in items}
    return math.lcm(*sizes) if len(sizes) <= 64 else None


def _known(p: float | None) -> float:
    assert p is not None, "only claims with a p value are corrected"
    return p
