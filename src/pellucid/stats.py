"""Statistics of evaluation: estimates with intervals, paired tests, power. numpy alone, no torch.

Legend: N problems · G clusters · R resamples · k samples per problem.

Every estimate here is a mean over problems, or a ratio of two sums over problems. Problems of one
family are variants of each other, so the *cluster* is what gets resampled, whole: problems and
samples inside it are kept as they are. Drawing samples again inside the drawn clusters would count
the variance between samples twice (Davison & Hinkley 1997, section 3.8).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
SIGN_FLIPS = 20_000
EXACT_FLIPS_UP_TO = 14
"""With so few differing clusters all 2^G sign patterns are enumerated."""
CHUNK_ELEMENTS = 1 << 17
"""Resampled values held at once: they stay in the processor's cache."""
WORD = 64
"""Rows of a chunk are a multiple of this, so that no random bits are dropped between chunks and
results do not depend on their size."""
TIE = 1e-12
"""Sums that differ by less are the same number rounded differently."""

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its interval. Example: Estimate(0.5, 0.4, 0.6, n=100, k=4)."""

    value: float
    low: float
    high: float
    n: int
    """Problems that took part."""
    k: int = 1
    """Samples per problem."""

    @property
    def ci95(self) -> list[float]:
        return [self.low, self.high]


class Difference(NamedTuple):
    """A paired difference (after - before) over the same problems."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided sign-flip p value over clusters."""
    n: int
    """Problems in both arms."""
    mde: float
    """Smallest true difference that this comparison finds with 80 % power at alpha = 5 %."""

    @property
    def ci95(self) -> list[float]:
        return [self.low, self.high]


# Point estimates


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> Array:
    """Unbiased pass@k of each problem, 1 - C(n-c, k) / C(n, k) [N] (Chen et al. 2021, 2107.03374).

    Raises ValueError where a problem has fewer than k samples.
    """
    samples, correct = np.atleast_1d(num_samples), np.atleast_1d(num_correct)
    if k < 1 or (samples < k).any():
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples of every problem")
    return np.array([_pass_at_k(int(n), int(c), k) for n, c in zip(samples, correct, strict=True)])


@cache
def _pass_at_k(n: int, c: int, k: int) -> float:
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority_credit(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """cons@k of one problem: is the most frequent answer right? 0 where nothing was extracted.

    Samples without an answer have no vote. Tied answers share the credit, as if one were drawn.
    """
    votes = Counter(a.strip() for a in answers if a is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {a for a, count in votes.items() if count == most}
    right = {a.strip() for a, ok in zip(answers, correct, strict=True) if ok and a is not None}
    return len(winners & right) / len(winners)


# Intervals


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    k: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean over problems [N] with a cluster-bootstrap interval. `bounds`: possible values."""
    values = np.asarray(values, dtype=float)
    return bootstrap_ratio(
        values,
        np.ones_like(values),
        clusters,
        k=k,
        bounds=bounds,
        level=level,
        resamples=resamples,
        seed=seed,
    )


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    k: int = 1,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Sum of numerators over sum of denominators [N] with an expanded-percentile cluster bootstrap.

    The quantiles are those of Hesterberg 2015 (arXiv 1411.5279): they undo the bootstrap's
    narrowness with few clusters. Where resampling tells nothing, because all clusters agree or
    there is but one, the interval says so instead of shrinking to a point (see `_unanimous`).
    Raises ValueError on no data.
    """
    num_G, den_G = _cluster_sums(numerators, clusters), _cluster_sums(denominators, clusters)
    if not den_G.sum() > 0.0:
        raise ValueError("an estimate needs at least one graded sample")
    value, n = float(num_G.sum() / den_G.sum()), int(np.size(numerators))
    used = den_G > 0.0
    num_G, den_G = num_G[used], den_G[used]
    if np.ptp(num_G / den_G) <= TIE:
        return Estimate(value, *_unanimous(value, len(num_G), bounds, level), n, k)
    draws = _resampled_ratios(num_G, den_G, resamples, seed)
    low, high = np.quantile(draws, _expanded_tails(len(num_G), level))
    return Estimate(value, float(low), float(high), n, k)


def clustered_se(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """Standard error of a mean over problems [N], robust to correlation inside clusters.

    CR1 without regressors: sqrt(G/(G-1) · Σ_g (Σ_{i in g} (x_i - mean))²) / N, as Miller 2024
    (arXiv 2411.00640) recommends. With singleton clusters it is the ordinary sd/√N. NaN for G < 2.
    """
    values = np.asarray(values, dtype=float)
    sums_G = _cluster_sums(values - values.mean(), clusters)
    if len(sums_G) < 2:
        return math.nan
    return float(math.sqrt(len(sums_G) / (len(sums_G) - 1) * np.square(sums_G).sum()) / len(values))


def t_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    k: int = 1,
    level: float = 0.95,
) -> Estimate:
    """Mean over problems [N] with the clustered-SE interval on G - 1 degrees of freedom."""
    values = np.asarray(values, dtype=float)
    se, num_clusters = clustered_se(values, clusters), len(_cluster_sums(values, clusters))
    half = t_quantile(0.5 + level / 2, num_clusters - 1) * se if num_clusters > 1 else math.nan
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half, len(values), k)


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """A proportion of independent trials with Wilson's score interval. ValueError for n = 0."""
    if n < 1:
        raise ValueError("a proportion needs at least one trial")
    z, p = NormalDist().inv_cdf(0.5 + level / 2), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(p, low, high, n)


# Tests and power


def paired_difference(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Mean of after - before over the same problems [N], with interval, p value and power."""
    delta = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    estimate = bootstrap_mean(delta, clusters, bounds=(-1.0, 1.0), resamples=resamples, seed=seed)
    p = sign_flip_p(delta, clusters, seed=seed)
    mde = minimum_detectable_effect(clustered_se(delta, clusters))
    return Difference(estimate.value, estimate.low, estimate.high, p, estimate.n, mde)


def sign_flip_p(
    differences: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    flips: int = SIGN_FLIPS,
    seed: int = 0,
) -> float:
    """Two-sided p value of "the differences [N] are symmetric about 0", signs flipped by cluster.

    Exact for few clusters, else Monte Carlo with the observed pattern counted, so never 0.
    """
    sums_G = _cluster_sums(differences, clusters)
    sums_G = sums_G[np.abs(sums_G) > TIE]
    if len(sums_G) == 0:
        return 1.0
    observed = abs(sums_G.sum()) - TIE * max(1.0, float(np.abs(sums_G).sum()))
    if len(sums_G) <= EXACT_FLIPS_UP_TO:
        patterns = np.arange(2 ** len(sums_G))[:, None] >> np.arange(len(sums_G)) & 1
        return float((np.abs((2.0 * patterns - 1.0) @ sums_G) >= observed).mean())
    bits, extreme = np.random.PCG64(seed), 0
    rows = _rows_per_chunk(len(sums_G))
    for start in range(0, flips, rows):
        size = (min(rows, flips - start), len(sums_G))
        raw = bits.random_raw((size[0] * size[1] + 63) // 64).view(np.uint8)
        signs = np.unpackbits(raw, count=size[0] * size[1]).reshape(size)
        flipped = 2.0 * (signs.astype(np.float32) @ sums_G.astype(np.float32)) - sums_G.sum()
        extreme += int((np.abs(flipped) >= observed - 1e-5 * abs(observed)).sum())
    return (extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values of one declared family, in the order given."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def minimum_detectable_effect(se: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true effect that a two-sided test with this standard error finds with this power."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)) * se


def mde_unpaired(rate: float, n: int, *, k: int = 1, between_frac: float = 0.5) -> float:
    """Minimum detectable difference of two independent evaluations of n problems, k samples each.

    `between_frac`: share of the variance rate·(1-rate) that lies between problems (difficulty); the
    rest shrinks with k (Miller 2024, section 5).
    """
    return minimum_detectable_effect(math.sqrt(2.0) * _planned_se(rate, n, k, between_frac))


def mde_paired(
    rate: float, n: int, *, k: int = 1, between_frac: float = 0.5, correlation: float = 0.5
) -> float:
    """As `mde_unpaired`, on the same n problems; `correlation`: between the arms' difficulties.

    Pairing removes that share of the variance between problems, and none of that between samples.
    """
    variance = rate * (1.0 - rate)
    between = variance * between_frac * (1.0 - correlation)
    within = variance * (1.0 - between_frac) / k
    return minimum_detectable_effect(math.sqrt(2.0 * (between + within) / n))


def _planned_se(rate: float, n: int, k: int, between_frac: float) -> float:
    return math.sqrt(rate * (1.0 - rate) * (between_frac + (1.0 - between_frac) / k) / n)


# Student's t, so that scipy is not needed at run time


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's t: with θ = atan(t/√df), an integral of cos^(df-1) over [0, θ]."""
    theta = math.atan(abs(t) / math.sqrt(df))
    nodes, weights = _legendre()
    integral = theta / 2 * float(weights @ np.cos(theta / 2 * (nodes + 1.0)) ** (df - 1.0))
    norm = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    return 0.5 + math.copysign(integral * norm, t)


def t_quantile(p: float, df: float) -> float:
    """Inverse of `t_cdf` for 0 < p < 1, by bisection on the angle."""
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(_t(middle, df), df) < p else (low, middle)
    return _t((low + high) / 2, df)


def _t(angle: float, df: float) -> float:
    return math.sqrt(df) * math.tan(angle)


@cache
def _legendre() -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(96)


# Resampling


def _cluster_sums(values: ArrayLike, clusters: Sequence[Hashable] | None) -> Array:
    """Sums by cluster [G], in order of first appearance; None: every problem is its own cluster."""
    values = np.asarray(values, dtype=float)
    if clusters is None:
        return values
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values but {len(clusters)} cluster names")
    index: dict[Hashable, int] = {}
    return np.bincount([index.setdefault(c, len(index)) for c in clusters], weights=values)


def _resampled_ratios(num_G: Array, den_G: Array, resamples: int, seed: int) -> Array:
    """Ratios of sums over G clusters drawn with replacement [R].

    Drawn from the raw bit stream, which numpy keeps stable over its versions (unlike `integers`).
    """
    bits, num_clusters, ratios = np.random.PCG64(seed), len(num_G), np.empty(resamples)
    equal = float(den_G[0]) if np.ptp(den_G) == 0.0 else None
    rows = _rows_per_chunk(num_clusters)
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), num_clusters)
        raw = bits.random_raw((size[0] * size[1] + 1) // 2).view(np.uint32)[: size[0] * size[1]]
        drawn = raw.astype(np.uint64)  # 32 random bits · G / 2^32, in place
        drawn *= np.uint64(num_clusters)
        drawn >>= np.uint64(32)
        drawn = drawn.view(np.int64).reshape(size)
        below = equal * num_clusters if equal else den_G.take(drawn).sum(axis=1)
        ratios[start : start + size[0]] = num_G.take(drawn).sum(axis=1) / below
    return ratios


def _rows_per_chunk(num_clusters: int) -> int:
    return max(WORD, CHUNK_ELEMENTS // num_clusters // WORD * WORD)


def _expanded_tails(num_clusters: int, level: float) -> list[float]:
    """Quantiles of the bootstrap distribution that give the t interval where it is normal."""
    t = t_quantile(0.5 + level / 2, num_clusters - 1)
    tail = NormalDist().cdf(-math.sqrt(num_clusters / (num_clusters - 1)) * t)
    return [tail, 1.0 - tail]


def _unanimous(
    value: float, num_clusters: int, bounds: tuple[float, float], level: float
) -> tuple[float, float]:
    """Interval where all clusters agree: Wilson bounds the share of others; these may lie anywhere.

    0 of n gives exactly Wilson's interval; a single cluster tells nothing, so all of `bounds`.
    """
    others = wilson(0, num_clusters, level=level).high if num_clusters > 1 else 1.0
    return value - others * (value - bounds[0]), value + others * (bounds[1] - value)
