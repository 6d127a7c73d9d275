"""Prediction-powered inference: a judge's verdicts on everything, corrected by people's labels on a
part of it (Angelopoulos et al. 2023, Science 382:669, arXiv 2301.09633).

    corrected = mean of the judge over all + mean of (label - judge) over what was labelled

The correction is right on average whatever the judge is like; a good judge makes it narrow. Labels
may be drawn by strata, and weigh by the inverse of their probability to be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pellucid.evidence.core.agreement import Estimate
from pellucid.evidence.core.statistics import Interval, StatisticsError, t_quantile


class Part(NamedTuple):
    """A stratum of the population: its samples, and label minus judge of those labelled."""

    size: int
    gaps: Sequence[float]
    """Each from -1 (the judge accepts, a person does not) to 1."""


def rectifier(parts: Sequence[Part]) -> tuple[float, float]:
    """Mean of (label - judge) over the population, and its standard error.

    The spread of each part is taken as if two more labels had differed, one either way: where no
    judgment was wrong so far, some may yet be. Raises StatisticsError where a part has no label.
    """
    kept = [part for part in parts if part.size]
    total = sum(part.size for part in kept)
    if not kept or any(not part.gaps for part in kept):
        raise StatisticsError("a part of the population has no label")
    mean = variance = 0.0
    for part in kept:
        number = len(part.gaps)
        own = math.fsum(part.gaps) / number
        spread = (math.fsum((gap - own) ** 2 for gap in part.gaps) + 2.0) / (number + 1)
        mean += part.size / total * own
        variance += (part.size / total) ** 2 * spread / number
    return mean, math.sqrt(variance)


def corrected(
    judged: Interval,
    parts: Sequence[Sequence[Part]],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """The judge's mean over all (`judged`, with its standard error over clusters) with the first
    of `parts` corrected, or the difference of two means with both.

    Raises StatisticsError where labels are missing, or of a single cluster.
    """
    found = [rectifier(arm) for arm in parts]
    signs = (1.0, -1.0)[: len(found)]
    shift = math.fsum(sign * mean for sign, (mean, _) in zip(signs, found, strict=True))
    error = math.sqrt(judged.se**2 + math.fsum(se**2 for _, se in found))
    labelled = min(sum(len(part.gaps) for part in arm) for arm in parts)
    freedom = min(judged.n_clusters, labelled) - 1
    if freedom < 1 or not math.isfinite(error):
        raise StatisticsError("a single label or cluster says nothing of chance")
    half = t_quantile(0.975, freedom) * error
    value, low, high = (
        min(max(x, bounds[0]), bounds[1])
        for x in (judged.value + shift, judged.value + shift - half, judged.value + shift + half)
    )
    return Estimate(value, low, high)
