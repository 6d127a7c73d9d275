"""Estimates with intervals, and tests, from the standard library alone; equal inputs, equal bits.

Legend: N problems · G clusters.

Everything is a function of sums over problems. Problems of one family are variants of each other,
so the *cluster* is what varies: the jackknife leaves out one at a time (Efron & Stein 1981). For a
mean over clusters of equal size it is the usual cluster-robust standard error.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

LEVEL = 0.95
FLIPS = 20_000
"""Patterns of a Monte Carlo sign flip."""
MAX_DISTINCT = 20_000
"""Different magnitudes that a Monte Carlo sign flip takes: bounds its time."""
MAX_EXACT_BITS = 2e10
"""Bits that the exact sign flip may move: about a second."""
TIE = 1e-12
"""Sums that differ by less are the same number rounded differently."""


class StatisticsError(ValueError):
    """Data from which an estimate or test cannot be had: says why."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float
    se: float
    n_clusters: int


Sums = tuple[float, ...]
"""Numerators and denominators of one cluster, such as (num, den) or (num_a, den_a, num_b, den_b)"""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased pass@k of one problem, 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, 2107.03374).

    Raises StatisticsError for fewer than k samples.
    """
    if not 1 <= k <= num_samples:
        raise StatisticsError(f"pass@{k} of {num_samples} samples")
    return _pass_at_k(num_samples, num_correct, k)


@cache
def _pass_at_k(n: int, c: int, k: int) -> float:
    # Products instead of binomials, whose digits would grow with n.
    if n - c < k:
        return 1.0
    return 1.0 - math.prod((n - c - i) / (n - i) for i in range(k))


def majority_credit(answers: Sequence[tuple[str | None, bool]]) -> float:
    """cons@k of one problem from (answer, is correct): is the most frequent answer right?

    Samples without an answer have no vote; tied answers share the credit; 0 where none voted.
    """
    votes = Counter(answer.strip() for answer, _ in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {answer for answer, count in votes.items() if count == most}
    right = {answer.strip() for answer, ok in answers if ok and answer is not None}
    return len(winners & right) / len(winners)


# Intervals


def jackknife(
    sums: Sequence[Sums],
    theta: Callable[[Sums], float],
    *,
    bounds: tuple[float, float] | None = None,
    is_share: bool = False,
) -> Interval:
    """theta of the total, its standard error by leaving out clusters [G], and its interval.

    `is_share`: a number in [0, 1], given Wilson's interval with the effective number of trials
    (Korn & Graubard 1998); else Student's t with G - 1 degrees, cut at `bounds`. Where all clusters
    agree, or there is but one, the interval says how little is known instead of shrinking to a
    point. Raises StatisticsError without clusters, or where theta is undefined.
    """
    if not sums:
        raise StatisticsError("nothing to estimate from")
    num_clusters = len(sums)
    total = tuple(math.fsum(column) for column in zip(*sums, strict=True))
    limits = (0.0, 1.0) if is_share else bounds
    value = _clip(_defined(theta, total), limits)
    if num_clusters == 1:
        low, high = limits or (-math.inf, math.inf)
        return Interval(value, low, high, math.inf, 1)
    without = {own: _defined(theta, _minus(total, own)) for own in dict.fromkeys(sums)}
    centre = math.fsum([without[own] for own in sums]) / num_clusters
    squares = {own: (x - centre) ** 2 for own, x in without.items()}
    spread = math.fsum([squares[own] for own in sums])
    se = math.sqrt(spread * (num_clusters - 1) / num_clusters)
    t = t_quantile(0.5 + LEVEL / 2, num_clusters - 1)
    if se <= TIE * max(1.0, abs(value)):
        low, high = _unanimous(value, num_clusters, t, limits)
    elif is_share:
        low, high = _wilson(value, value * (1.0 - value) / se**2, t)
    else:
        low, high = _clip(value - t * se, limits), _clip(value + t * se, limits)
    return Interval(value, low, high, se, num_clusters)


def _minus(total: Sums, own: Sums) -> Sums:
    return tuple(a - b for a, b in zip(total, own, strict=True))


def _defined(theta: Callable[[Sums], float], sums: Sums) -> float:
    try:
        value = theta(sums)
    except ZeroDivisionError:
        raise StatisticsError("a denominator is zero, or depends on a single cluster") from None
    if not math.isfinite(value):
        raise StatisticsError("an estimate is not finite")
    return value


def _wilson(p: float, n: float, t: float) -> tuple[float, float]:
    if n <= 0.0:  # rounding put p outside of its range
        return p, p
    centre = (p + t * t / (2 * n)) / (1 + t * t / n)
    half = t * math.sqrt(max(0.0, p * (1 - p) / n + t * t / (4 * n * n))) / (1 + t * t / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _unanimous(
    value: float, num_clusters: int, t: float, limits: tuple[float, float] | None
) -> tuple[float, float]:
    """Wilson bounds the share of clusters that differ; those may lie anywhere within the limits."""
    if limits is None:
        return value, value
    others = _wilson(0.0, num_clusters, t)[1]
    return value - others * (value - limits[0]), value + others * (limits[1] - value)


def _clip(value: float, limits: tuple[float, float] | None) -> float:
    return value if limits is None else min(max(value, limits[0]), limits[1])


# Tests


def t_test_p(estimate: Interval, *, null: float = 0.0, is_one_sided: bool = False) -> float:
    """p value of "the true value is `null`" (one-sided: "is at most `null`")."""
    if estimate.n_clusters < 2:
        return 1.0
    distance = estimate.value - null
    if estimate.se <= TIE * max(1.0, abs(estimate.value)):
        # No cluster contradicts the others: as if every sign had fallen alike.
        share = 0.5**estimate.n_clusters
        if abs(distance) <= TIE:
            return 1.0
        return (share if distance > 0 else 1.0) if is_one_sided else 2.0 * share
    upper = 1.0 - t_cdf(abs(distance) / estimate.se, estimate.n_clusters - 1)
    if not is_one_sided:
        return min(1.0, 2.0 * upper)
    return upper if distance >= 0 else 1.0 - upper


def sign_flip_p(sums: Sequence[float], *, scale: int | None = None, seed: int = 0) -> float:
    """Two-sided p value of "the clusters' sums [G] are symmetric about 0": their signs are flipped.

    Exact where all sums are whole multiples of 1/`scale` and there are not too many; else seeded
    Monte Carlo with the observed pattern counted, so never 0. Raises StatisticsError.
    """
    kept = [x for x in sums if abs(x) > TIE]
    if not kept:
        return 1.0
    steps = _on_lattice(kept, scale)
    if steps is not None:
        reach = (sum(map(abs, steps)) - abs(sum(steps))) // 2
        if len(steps) * (reach + 1) * (len(steps) + 1) <= MAX_EXACT_BITS:
            return _exact_flips(steps, reach)
    return _random_flips(kept, seed)


def _on_lattice(sums: Sequence[float], scale: int | None) -> list[int] | None:
    if scale is None or scale > 10**9:
        return None
    steps = [round(x * scale) for x in sums]
    if any(abs(x * scale - step) > 1e-6 for x, step in zip(sums, steps, strict=True)):
        return None
    divisor = math.gcd(*steps)
    return [step // divisor for step in steps]


def _exact_flips(steps: Sequence[int], reach: int) -> float:
    """Share of the 2^G patterns at least as far from 0 as the one observed.

    The generating function of the sums of subsets, its coefficients side by side in one integer:
    each fits into G + 1 bits, and only those up to `reach` are needed.
    """
    if sum(steps) == 0:
        return 1.0
    width = len(steps) + 1
    mask = (1 << (reach + 1) * width) - 1
    product = 1
    for step in steps:
        product += (product << abs(step) * width) & mask
    # The digits' sum, to base 2^width, is the remainder by 2^width - 1. Both tails are alike.
    return 2 * (product % ((1 << width) - 1)) / 2 ** len(steps)


def _random_flips(sums: Sequence[float], seed: int) -> float:
    sizes = Counter(float(f"{abs(x):.12g}") for x in sums)
    if len(sizes) > MAX_DISTINCT:
        raise StatisticsError(f"a sign flip over {len(sizes)} different sums: test clustered_t")
    total = math.fsum(n * size for size, n in sizes.items())
    observed = abs(math.fsum(sums)) - 1e-9 * max(TIE, total)
    flips = FLIPS if len(sizes) <= 500 else max(1000, FLIPS * 500 // len(sizes))
    bits = random.Random(seed).getrandbits  # Mersenne Twister: the same in every Python
    groups = list(sizes.items())
    extreme = 0
    for _ in range(flips):
        ups = sum([size * bits(n).bit_count() for size, n in groups])
        extreme += abs(2.0 * ups - total) >= observed
    return (extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values of one declared family, in the order given."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


# Student's t


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's t with `df` degrees of freedom."""
    tail = 0.5 * _incomplete_beta(df / 2.0, 0.5, df / (df + t * t))
    return 1.0 - tail if t > 0 else tail


@cache
def t_quantile(p: float, df: float) -> float:
    """Inverse of `t_cdf` for 0 < p < 1, by bisection on the angle atan(t / sqrt(df))."""
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        is_below = t_cdf(math.sqrt(df) * math.tan(middle), df) < p
        low, high = (middle, high) if is_below else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Lentz; DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    c, d = 1.0, 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1.0), tiny)
    fraction = d
    for m in range(1, 400):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        step = 1.0
        for numerator in (even, odd):
            d = 1.0 / _off_zero(1.0 + numerator * d, tiny)
            c = _off_zero(1.0 + numerator / c, tiny)
            step = c * d
            fraction *= step
        if abs(step - 1.0) < 1e-15:
            break
    return front * fraction / a


def _off_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
