"""What labels of a human audit say: of the graders, and so of the claims that rest on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, TypedDict

from pellucid.evidence.core.agreement import Estimate, kappa, part_of, share_of
from pellucid.evidence.core.audit import GraderOpinions, Watcher, common_labels
from pellucid.evidence.core.claims import ClaimError, compute_claim, fixed, is_printed_as
from pellucid.evidence.core.schema import Claim
from pellucid.evidence.core.statistics import StatisticsError
from pellucid.evidence.core.tally import Evaluation

PRECISION = 4
Numbers = dict[str, Any]
BOTH_RIGHT, FALSE_POSITIVE, FALSE_NEGATIVE, BOTH_WRONG = range(4)
"""Indices into `agreement.CELLS`: the grader's verdict, then the label."""
BOUNDED_KINDS = ("pass_at_1", "paired_difference", "non_inferiority")


class PrintedEstimate(TypedDict):
    """As decimals with `PRECISION` digits."""

    value: str
    low: str
    high: str


class Bound(TypedDict):
    """Within what a claim's value lies for all that the labels can tell: its own interval, widened
    by the most errors that the grader may have made."""

    low: str
    high: str


class ResultFile(TypedDict):
    """audits/NAME/result.json; null where a number cannot be had."""

    v: int
    draw: str
    """SHA-256 of draw.json."""
    labellers: list[str]
    labelled: int
    """Samples with a label that is not `unsure`, on which all labellers agree."""
    unsure: int
    agreement: PrintedEstimate | None
    """Share of the population on which grader and label agree."""
    kappa: PrintedEstimate | None
    false_positives: PrintedEstimate | None
    """Share of the population that the grader accepts and a person does not."""
    false_negatives: PrintedEstimate | None
    false_positive_rate: PrintedEstimate | None
    """The same among what a person calls wrong."""
    false_negative_rate: PrintedEstimate | None
    """Share that the grader refuses among what a person calls correct."""
    between_labellers: dict[str, PrintedEstimate | None]
    """`A, B` -> their kappa."""
    asked_twice: int
    """Samples on which two graders spoke."""
    second_failed: int
    disagreement: PrintedEstimate | None
    """Share of them on which the graders differ."""
    bounds: dict[str, Bound]
    """Claim -> what the labels leave of it."""


def audit_numbers(
    watcher: Watcher,
    draw_sha256: str,
    sheets: Mapping[str, Mapping[str, str]],
    claims: Sequence[Claim],
    evaluations: Mapping[str, Evaluation],
) -> Numbers:
    """A `ResultFile` before rounding: floats where it has decimals (`printed_numbers`). `sheets`:
    labeller -> leaf -> label; `evaluations`: those that were audited.
    """
    labels = common_labels(list(sheets.values()))
    strata = watcher.strata(labels)
    unsure = sum(label == "unsure" for label in labels.values())
    positives = _maybe(lambda: share_of(strata, (FALSE_POSITIVE,)))
    negatives = _maybe(lambda: share_of(strata, (FALSE_NEGATIVE,)))
    right = _maybe(lambda: share_of(strata, (BOTH_RIGHT,)))
    wrong = _maybe(lambda: share_of(strata, (BOTH_WRONG,)))
    opinions = watcher.opinions
    second = opinions if isinstance(opinions, GraderOpinions) else GraderOpinions(None)
    disagreement = second.disagreement()
    return {
        "v": 1,
        "draw": draw_sha256,
        "labellers": sorted(sheets),
        "labelled": len(labels) - unsure,
        "unsure": unsure,
        "agreement": _shown(_maybe(lambda: share_of(strata, (BOTH_RIGHT, BOTH_WRONG)))),
        "kappa": _shown(_maybe(lambda: kappa(strata))),
        "false_positives": _shown(positives),
        "false_negatives": _shown(negatives),
        "false_positive_rate": _shown(_rate(positives, wrong)),
        "false_negative_rate": _shown(_rate(negatives, right)),
        "between_labellers": {
            f"{a}, {b}": _between(watcher, sheets[a], sheets[b])
            for a, b in combinations(sorted(sheets), 2)
        },
        "asked_twice": second.num_asked,
        "second_failed": second.num_failed,
        "disagreement": _shown(Estimate(*disagreement) if disagreement else None),
        "bounds": claim_bounds(watcher, labels, claims, evaluations),
    }


def _between(watcher: Watcher, a: Mapping[str, str], b: Mapping[str, str]) -> Numbers | None:
    return _shown(_maybe(lambda: kappa(watcher.strata_between(a, b))))


def claim_bounds(
    watcher: Watcher,
    labels: Mapping[str, str],
    claims: Iterable[Claim],
    evaluations: Mapping[str, Evaluation],
) -> Numbers:
    """What the labels leave of claims of pass@1 whose arms were all audited.

    The upper ends of both error shares are taken, a label that says unsure as an error, and all
    errors of the audited evaluations as if they lay in the arm, and in the problems, where they
    change the claim most. Empty where the labels give no share.
    """
    strata = watcher.strata(watcher.with_unsure_as_errors(labels))
    try:
        accepted = share_of(strata, (FALSE_POSITIVE,)).high
        refused = share_of(strata, (FALSE_NEGATIVE,)).high
    except StatisticsError:
        return {}
    bounds: Numbers = {}
    for claim in claims:
        folders = list(claim["arms"].values())
        if claim["kind"] not in BOUNDED_KINDS or claim["metric"].get("fn") != "pass_at_1":
            continue
        if any(not watcher.sizes.get(folder) or folder not in evaluations for folder in folders):
            continue
        total = sum(watcher.sizes.values())
        scale = {
            name: total * _heaviest(evaluations[folder], claim["unit"])
            for name, folder in claim["arms"].items()
        }
        down, up = min(1.0, accepted * scale["a"]), min(1.0, refused * scale["a"])
        least = 0.0
        if "b" in scale:
            least = -1.0
            down += min(1.0, refused * scale["b"])
            up += min(1.0, accepted * scale["b"])
        try:
            result = compute_claim(claim, evaluations)
        except ClaimError:
            continue  # named where claims are computed
        bounds[claim["id"]] = {
            "low": max(least, result.low - down),
            "high": min(1.0, result.high + up),
        }
    return bounds


def _heaviest(evaluation: Evaluation, unit: str) -> float:
    """Largest part of pass@1 that one sample decides."""
    graded = [tally.graded for tally in evaluation.items.values() if tally.graded]
    if not graded:
        return 1.0
    return 1.0 / sum(graded) if unit == "sample" else 1.0 / (len(graded) * min(graded))


def _rate(part: Estimate | None, rest: Estimate | None) -> Estimate | None:
    return None if part is None or rest is None else _maybe(lambda: part_of(part, rest))


def _maybe(compute: Callable[[], Estimate]) -> Estimate | None:
    try:
        return compute()
    except StatisticsError:
        return None


def _shown(estimate: Estimate | None) -> Numbers | None:
    return None if estimate is None else dict(estimate._asdict())


# Printing


def printed_numbers(numbers: Any) -> Any:
    """The numbers as they stand in result.json."""
    if isinstance(numbers, dict):
        return {name: printed_numbers(value) for name, value in numbers.items()}
    return fixed(numbers, PRECISION) if isinstance(numbers, float) else numbers


def differing(given: Any, numbers: Any, where: str = "") -> str | None:
    """Name of the first number of a result.json that is not the printed one; None: all are."""
    if isinstance(numbers, dict):
        if not isinstance(given, dict) or given.keys() != numbers.keys():
            return where or "its names"
        found = (differing(given[n], v, f"{where} {n}".strip()) for n, v in numbers.items())
        return next((name for name in found if name is not None), None)
    if isinstance(numbers, float):
        return None if is_printed_as(numbers, given, PRECISION) else where
    return None if given == numbers and type(given) is type(numbers) else where
