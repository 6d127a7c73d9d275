"""How far two raters agree, from labels on a stratified random draw; standard library alone.

Legend: W_h share of stratum h in the population · f_h share of the stratum that was labelled.

The samples are weighted by the inverse of their probability to be drawn. Intervals of shares are
Wilson's in each stratum, narrowed for a finite population (to a point where all were labelled) and
combined by the method of variance estimates recovery (Zou, Huang & Zhang 2009): where no error was
seen they still say how many there may be. Draws are taken as independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pellucid.evidence.core.statistics import StatisticsError

Z = 1.959963984540054
"""Of the normal distribution: 95 % lie within ± Z."""
CELLS = ((True, True), (True, False), (False, True), (False, False))
"""(what is judged says yes, the reference says yes)."""


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Stratum(NamedTuple):
    """A part of the population, and the pairs of verdicts on what was labelled of it.

    Example: Stratum(size=900, counts=(50, 1, 0, 49)): a hundred labelled, one wrongly accepted
    """

    size: int
    counts: tuple[int, int, int, int]
    """Of each of `CELLS`."""

    @property
    def num_labelled(self) -> int:
        return sum(self.counts)


def wilson(hits: float, number: float) -> tuple[float, float]:
    """Wilson's interval of a share, `hits` of `number` (Wilson 1927)."""
    share, z2 = hits / number, Z * Z
    centre = (share + z2 / (2 * number)) / (1 + z2 / number)
    spread = share * (1 - share) / number + z2 / (4 * number * number)
    half = Z * math.sqrt(max(0.0, spread)) / (1 + z2 / number)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def share_of(strata: Iterable[Stratum], cells: Sequence[int]) -> Estimate:
    """Share of the population that lies in these cells (indices into `CELLS`).

    Raises StatisticsError where a part of the population has no label.
    """
    kept = _labelled(strata)
    total = sum(stratum.size for stratum in kept)
    value = below = above = 0.0
    for stratum in kept:
        number = stratum.num_labelled
        share = sum(stratum.counts[c] for c in cells) / number
        low, high = wilson(share * number, number)
        weight, left = stratum.size / total, max(0.0, 1 - number / stratum.size)
        value += weight * share
        below += weight**2 * left * (share - low) ** 2
        above += weight**2 * left * (high - share) ** 2
    low, high = max(0.0, value - math.sqrt(below)), min(1.0, value + math.sqrt(above))
    return Estimate(value, low, high)


def part_of(part: Estimate, rest: Estimate) -> Estimate:
    """part / (part + rest), of two shares of one population. Its interval takes the worst of both,
    so it is wider than need be. Raises StatisticsError where there is neither.
    """
    if part.value + rest.value <= 0.0:
        raise StatisticsError("nothing that was labelled has a part in it")
    low = part.low / (part.low + rest.high) if part.low else 0.0
    high = part.high / (part.high + rest.low) if part.high else 0.0
    return Estimate(part.value / (part.value + rest.value), low, high)


def kappa(strata: Iterable[Stratum]) -> Estimate:
    """Cohen's kappa. Its interval is ± `Z` standard errors, and at least as wide as that of the
    agreement makes it, since the error is zero where all labels agree.

    Raises StatisticsError where both sides say one and the same of everything.
    """
    kept = _labelled(strata)
    chance = _chance(_marginals(kept))
    agreed = share_of(kept, (0, 3))
    value, low, high = ((share - chance) / (1 - chance) for share in agreed)
    half = Z * kappa_error(kept)
    return Estimate(value, max(-1.0, min(low, value - half)), min(1.0, max(high, value + half)))


def kappa_error(strata: Iterable[Stratum]) -> float:
    """Standard error of kappa, by linearisation in each stratum; of one endless stratum it is that
    of Fleiss, Cohen & Everitt (1969). Raises StatisticsError as `kappa`.
    """
    kept = _labelled(strata)
    total = sum(stratum.size for stratum in kept)
    yes = _marginals(kept)
    chance, agreed = _chance(yes), share_of(kept, (0, 3)).value
    influence = [_influence(cell, yes, agreed, chance) for cell in CELLS]
    variance = 0.0
    for stratum in kept:
        number = stratum.num_labelled
        mean, square = (
            math.fsum(n * u**power for n, u in zip(stratum.counts, influence, strict=True)) / number
            for power in (1, 2)
        )
        left = max(0.0, 1 - number / stratum.size)
        variance += (stratum.size / total) ** 2 * left * max(0.0, square - mean**2) / number
    return math.sqrt(variance)


def _marginals(kept: Sequence[Stratum]) -> tuple[float, float]:
    """Shares of yes on either side."""
    total = sum(stratum.size for stratum in kept)
    both, first, second = (
        math.fsum(s.size / total * s.counts[cell] / s.num_labelled for s in kept)
        for cell in range(3)
    )
    return both + first, both + second


def _chance(yes: tuple[float, float]) -> float:
    """Agreement of two sides that know nothing of each other."""
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    if chance >= 1.0 - 1e-12:
        raise StatisticsError("only one verdict occurs: agreement beyond chance has no meaning")
    return chance


def _influence(
    cell: tuple[bool, bool], yes: tuple[float, float], agreed: float, chance: float
) -> float:
    """Derivative of kappa by the share of a cell."""
    first, second = cell
    beside = (yes[1] if first else 1 - yes[1]) + (yes[0] if second else 1 - yes[0])
    return (first == second) / (1 - chance) - (1 - agreed) / (1 - chance) ** 2 * beside


def _labelled(strata: Iterable[Stratum]) -> list[Stratum]:
    kept = [stratum for stratum in strata if stratum.size]
    if not kept:
        raise StatisticsError("nothing to estimate from")
    if any(not stratum.num_labelled for stratum in kept):
        raise StatisticsError("a part of the population has no label")
    return kept
