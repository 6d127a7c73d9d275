"""The dossier's statistics against slow obvious versions, pellucid.stats, scipy and statsmodels."""

import itertools
import math
import random

import numpy as np
import pytest

from pellucid import stats
from pellucid.evidence.core.statistics import (
    StatisticsError,
    holm,
    jackknife,
    majority_credit,
    pass_at_k,
    sign_flip_p,
    t_cdf,
    t_quantile,
    t_test_p,
)


def ratio(sums):
    return sums[0] / sums[1]


def of_mean(values):
    return [(value, 1.0) for value in values]


def test_student_t_is_that_of_pellucid_stats():
    for df in (1, 2, 3, 7, 30, 400, 60_000):
        for t in (-8.0, -1.3, 0.0, 0.4, 2.0, 30.0):
            assert t_cdf(t, df) == pytest.approx(stats.t_cdf(t, df), abs=1e-9)
        assert t_quantile(0.975, df) == pytest.approx(stats.t_quantile(0.975, df), rel=1e-8)


def test_student_t_is_that_of_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    for df, t in itertools.product((1, 4, 19, 1000), (-3.0, 0.5, 2.5)):
        assert t_cdf(t, df) == pytest.approx(scipy_stats.t.cdf(t, df), abs=1e-12)
    assert t_quantile(0.995, 11) == pytest.approx(scipy_stats.t.ppf(0.995, 11), rel=1e-9)


def test_pass_at_k_counts_subsets():
    for n, c, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if c <= n and k <= n:
            draws = list(itertools.combinations([i < c for i in range(n)], k))
            share = sum(any(draw) for draw in draws) / len(draws)
            assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)
            assert pass_at_k(n, c, k) == pytest.approx(stats.pass_at_k(n, c, k)[0], abs=1e-12)
    with pytest.raises(StatisticsError):
        pass_at_k(3, 1, 4)


def test_majority_credit_is_that_of_pellucid_stats():
    draw = random.Random(3)
    for _ in range(200):
        answers = [draw.choice(["4", " 4", "5", "6", None]) for _ in range(5)]
        correct = [a is not None and a.strip() == "4" for a in answers]
        mine = majority_credit(list(zip(answers, correct, strict=True)))
        assert mine == pytest.approx(stats.majority_credit(answers, correct))


def test_the_jackknife_of_a_mean_is_the_standard_error_of_the_mean():
    values = np.random.default_rng(1).normal(size=40)
    estimate = jackknife(of_mean(values), ratio)
    se = values.std(ddof=1) / math.sqrt(40)
    half = stats.t_quantile(0.975, 39) * se
    assert estimate.se == pytest.approx(se)
    assert estimate[:3] == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )


def test_clusters_give_the_robust_error_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    draw = np.random.default_rng(2)
    clusters = np.repeat(np.arange(25), 4)
    values = draw.normal(size=25)[clusters] + draw.normal(size=100)
    fit = sm.OLS(values, np.ones(100)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    sums = [(values[clusters == c].sum(), 4.0) for c in range(25)]
    assert jackknife(sums, ratio).se == pytest.approx(fit.bse[0], rel=1e-9)


def test_clusters_give_the_error_of_errorbars():
    errorbars = pytest.importorskip("errorbars")
    draw = np.random.default_rng(2)
    clusters = np.repeat(np.arange(50), 4)
    values = (draw.random(200) < 0.6).astype(float)
    sums = [(values[clusters == c].sum(), 4.0) for c in range(50)]
    theirs = errorbars.cluster_robust_se(values.tolist(), clusters.tolist())
    assert jackknife(sums, ratio).se == pytest.approx(float(theirs), rel=1e-9)


def test_intervals_agree_with_the_bootstrap_of_pellucid_stats():
    draw = np.random.default_rng(5)
    values = draw.binomial(8, draw.beta(2, 2, size=200)) / 8
    clusters = [str(i // 2) for i in range(200)]
    boot = stats.bootstrap_mean(values, clusters, k=8)
    sums = [(values[2 * c] + values[2 * c + 1], 2.0) for c in range(100)]
    mine = jackknife(sums, ratio, is_share=True)
    assert mine.value == pytest.approx(boot.value, abs=1e-12)
    assert mine[:3] == pytest.approx(boot[:3], abs=0.006)


def test_shares_without_clusters_have_wilsons_interval_but_for_t():
    sums = of_mean([1.0] * 300 + [0.0] * 700)
    mine, wilson = jackknife(sums, ratio, is_share=True), stats.wilson(300, 1000)
    assert mine[:3] == pytest.approx(wilson[:3], abs=1e-4)


def test_where_all_agree_the_interval_says_how_little_is_known():
    certain = jackknife(of_mean([1.0] * 20), ratio, is_share=True)
    assert (certain.value, certain.high) == (1.0, 1.0)
    assert 0.75 < certain.low < 0.9
    alone = jackknife([(3.0, 4.0)], ratio, is_share=True)
    assert alone[:3] == (0.75, 0.0, 1.0)
    same = jackknife(of_mean([0.25] * 10), ratio, bounds=(-1.0, 1.0))
    assert same.low < 0.25 < same.high


def test_no_data_and_no_denominator_are_said():
    with pytest.raises(StatisticsError, match="nothing"):
        jackknife([], ratio)
    with pytest.raises(StatisticsError, match="denominator"):
        jackknife([(1.0, 0.0), (1.0, 0.0)], ratio)
    with pytest.raises(StatisticsError, match="denominator"):
        jackknife([(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)], ratio)


# Tests


def brute_force(sums):
    patterns = list(itertools.product((1, -1), repeat=len(sums)))
    observed = abs(sum(sums)) - 1e-9
    far = sum(abs(sum(s * x for s, x in zip(p, sums, strict=True))) >= observed for p in patterns)
    return far / len(patterns)


def test_the_exact_sign_flip_counts_all_patterns():
    draw = random.Random(4)
    for _ in range(60):
        steps = [draw.randrange(-6, 9) for _ in range(draw.randrange(1, 11))]
        sums = [step / 8 for step in steps]
        wanted = brute_force([x for x in sums if x]) if any(sums) else 1.0
        assert sign_flip_p(sums, scale=8) == pytest.approx(wanted, abs=1e-12)
        assert sign_flip_p(sums, scale=8) == pytest.approx(stats.sign_flip_p(sums), abs=1e-12)


def test_the_random_sign_flip_comes_near_the_exact_one():
    draw = random.Random(6)
    sums = [draw.randrange(-6, 9) / 8 for _ in range(120)]
    exact = sign_flip_p(sums, scale=8)
    assert sign_flip_p(sums) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(sums, seed=1) == sign_flip_p(sums, seed=1) != sign_flip_p(sums, seed=2)
    assert sign_flip_p([1.0] * 40) == 1 / 20_001
    assert sign_flip_p([1.0] * 40, scale=1) == 2.0**-39


def test_the_t_test_is_that_of_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(7).normal(0.3, 1.0, size=30)
    estimate = jackknife(of_mean(values), ratio)
    assert t_test_p(estimate) == pytest.approx(scipy_stats.ttest_1samp(values, 0.0).pvalue)
    one_sided = scipy_stats.ttest_1samp(values, -0.1, alternative="greater").pvalue
    assert t_test_p(estimate, null=-0.1, is_one_sided=True) == pytest.approx(one_sided)


def test_holm_is_that_of_pellucid_stats():
    p_values = [0.04, 0.001, 0.2, 0.012]
    assert holm(p_values) == stats.holm(p_values)


# Coverage


def coverage(draw, design, runs):
    inside = 0
    for _ in range(runs):
        sums, truth, options = design(draw)
        estimate = jackknife(sums, ratio, **options)
        inside += estimate.low <= truth <= estimate.high
    return inside / runs


def clustered_shares(draw):
    """60 families of two problems, k = 4, difficulty shared within the family."""
    p = draw.beta(2, 1, size=60)
    return [(x / 4, 2.0) for x in draw.binomial(8, p)], 2 / 3, {"is_share": True}


def high_shares(draw):
    return of_mean((draw.random(250) < 0.9).astype(float)), 0.9, {"is_share": True}


def differences(draw):
    after, before = draw.binomial(4, 0.7, size=80), draw.binomial(4, 0.55, size=80)
    return of_mean((after - before) / 4), 0.15, {"bounds": (-1.0, 1.0)}


@pytest.mark.parametrize("design", [clustered_shares, high_shares, differences])
def test_intervals_cover_the_truth_as_often_as_they_say(design):
    assert 0.93 <= coverage(np.random.default_rng(11), design, 1500) <= 0.97
