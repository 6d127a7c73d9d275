"""How well rewards tell the better response: accuracy with intervals, and what length alone tells.

A reward model that only reads length looks good wherever the better answer tends to be the longer
one. So the same rewards are looked at by ratio of lengths, in a mean that gives both directions the
same weight (a pure reader of length scores 50 % there), and beside the rule "the longer wins".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.stats import Estimate, bootstrap_mean, paired_difference

Array = NDArray[np.float64]

_BUCKETS = (
    ("chosen at most half as long", 0.0, 0.5),
    ("chosen shorter", 0.5, 0.8),
    ("about as long", 0.8, 1.25),
    ("chosen longer", 1.25, 2.0),
    ("chosen twice as long or more", 2.0, math.inf),
)
"""Name, and bounds of the ratio chosen / rejected: from, below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPair:
    """A held-out pair with the rewards of its two responses.

    Example: ScoredPair(chosen=1.2, rejected=0.3, chosen_length=40, rejected_length=55,
    cluster="p1")
    """

    chosen: float
    rejected: float
    chosen_length: int
    """Tokens of what the reward model was shown of the response."""
    rejected_length: int
    cluster: str
    """Pairs of one prompt share it."""
    subset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredResponse:
    """A held-out labelled response with its reward, the log-odds of the positive label."""

    reward: float
    label: bool
    length: int
    cluster: str
    subset: str = ""


def pair_report(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """Accuracy of the rewards, a tie counting one half, with 95 % intervals that draw prompts.

    `length_only` is the rule "the longer wins" on the same pairs, `gain_over_length` the paired
    difference; `prefers_longer` is how often the rewards agree with the longer one, whoever was
    chosen: near 1 they read length. Raises ValueError on no pairs.
    """
    right = _right([p.chosen for p in pairs], [p.rejected for p in pairs])
    longer = _right([p.chosen_length for p in pairs], [p.rejected_length for p in pairs])
    clusters = [p.cluster for p in pairs]
    gain = paired_difference(longer, right, clusters)
    uneven = longer != 0.5
    agrees = np.where(longer[uneven] == 1.0, right[uneven], 1.0 - right[uneven])
    kept = [c for c, is_uneven in zip(clusters, uneven, strict=True) if is_uneven]
    return {
        "accuracy": _estimate(right, clusters),
        "length_only": _estimate(longer, clusters),
        "gain_over_length": {"value": gain.value, "ci95": gain.ci95, "p": gain.p},
        "length_balanced": _balanced(right, longer),
        "prefers_longer": _estimate(agrees, kept) if len(agrees) else None,
        "by_length": _by_length(pairs, right, longer),
        "by_subset": _by_subset(pairs, right),
        "pairs": len(pairs),
        "prompts": len(set(clusters)),
    }


def label_report(responses: Sequence[ScoredResponse]) -> dict[str, Any]:
    """Accuracy of "positive where the reward is above 0", of either class, and the chance that a
    positive response has the higher reward (AUC), beside what the commoner label and the length
    alone would score. Raises ValueError on no responses.
    """
    clusters = [r.cluster for r in responses]
    labels = np.array([r.label for r in responses])
    rewards = np.array([r.reward for r in responses])
    right = np.where(rewards == 0.0, 0.5, (rewards > 0.0) == labels)
    by_length = auc(np.array([float(r.length) for r in responses]), labels)
    report: dict[str, Any] = {
        "accuracy": _estimate(right, clusters),
        "majority_only": float(max(labels.mean(), 1.0 - labels.mean())),
        "auc": auc(rewards, labels),
        "length_only_auc": None if by_length is None else max(by_length, 1.0 - by_length),
        "by_subset": _by_subset(responses, right),
        "responses": len(responses),
        "prompts": len(set(clusters)),
    }
    for name, wanted in (("positive", True), ("negative", False)):
        some = labels == wanted
        kept = [c for c, is_in in zip(clusters, some, strict=True) if is_in]
        report[name] = _estimate(right[some], kept) if kept else None
    return report


def auc(values: Array, labels: NDArray[np.bool_]) -> float | None:
    """Chance that a positive's value exceeds a negative's, a tie counting one half; None where one
    of the two is missing (Mann and Whitney 1947).
    """
    positive, negative = values[labels], np.sort(values[~labels])
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(negative, positive, side="left")
    ties = np.searchsorted(negative, positive, side="right") - below
    return float((below + 0.5 * ties).sum() / (len(positive) * len(negative)))


def _right(chosen: Sequence[float], rejected: Sequence[float]) -> Array:
    """1 where the first is greater, 0.5 where they are equal, else 0 [N]."""
    return 0.5 + 0.5 * np.sign(np.asarray(chosen, float) - np.asarray(rejected, float))


def _balanced(right: Array, longer: Array) -> float | None:
    """Mean of the accuracies where the chosen one is longer and where it is shorter."""
    parts = [right[longer == side] for side in (0.0, 1.0)]
    return float(np.mean([p.mean() for p in parts])) if all(len(p) for p in parts) else None


def _by_length(pairs: Sequence[ScoredPair], right: Array, longer: Array) -> list[dict[str, Any]]:
    ratios = np.array([p.chosen_length / max(p.rejected_length, 1) for p in pairs])
    rows = []
    for name, low, high in _BUCKETS:
        some = np.flatnonzero((ratios >= low) & (ratios < high))
        if len(some):
            clusters = [pairs[i].cluster for i in some]
            estimate = _estimate(right[some], clusters)
            rows.append({"lengths": name, **estimate, "length_only": float(longer[some].mean())})
    return rows


def _by_subset(
    rows: Sequence[ScoredPair] | Sequence[ScoredResponse], right: Array
) -> dict[str, dict[str, Any]]:
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(row.subset, []).append(i)
    if len(found) < 2:
        return {}
    return {
        name: _estimate(right[some], [rows[i].cluster for i in some])
        for name, some in sorted(found.items())
    }


def _estimate(right: Array, clusters: Sequence[str]) -> dict[str, Any]:
    estimate: Estimate = bootstrap_mean(right, clusters)
    return {"value": estimate.value, "ci95": estimate.ci95, "n": estimate.n}
