"""Statistics against hand numbers, brute force, scipy and statsmodels."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from pellucid import stats


def brute_pass_at_k(n, c, k):
    """Share of all subsets of k samples that hold a correct one."""
    subsets = list(itertools.combinations(range(n), k))
    return sum(any(i < c for i in s) for s in subsets) / len(subsets)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        assert stats.pass_at_k(n, c, k)[0] == pytest.approx(brute_pass_at_k(n, c, k), abs=1e-15)


def test_pass_at_k_keeps_its_digits_for_many_samples():
    # 1 - C(9990, 64) / C(10000, 64), as a product of exact fractions
    expected = 1.0 - math.prod((9990 - i) / (10000 - i) for i in range(64))
    assert stats.pass_at_k([10_000], [10], 64)[0] == pytest.approx(expected, rel=1e-12)


def test_pass_at_k_refuses_more_than_there_are_samples():
    with pytest.raises(ValueError, match="pass@5 needs at least 5 samples"):
        stats.pass_at_k([5, 4], [1, 1], 5)


@pytest.mark.parametrize(
    ("answers", "correct", "credit"),
    [
        (["7", "7 ", "8"], [True, True, False], 1.0),
        (["7", "8", "8"], [True, False, False], 0.0),
        (["7", "8"], [True, False], 0.5),
        (["7", None, None, None], [True, False, False, False], 1.0),
        ([None, None], [False, False], 0.0),
        (["1/2", "0.5", "3", "3", "3"], [True, True, False, False, False], 0.0),
    ],
)
def test_majority_vote_of_extracted_answers(answers, correct, credit):
    assert stats.majority_credit(answers, correct) == credit


@pytest.mark.parametrize("df", [1, 2, 3, 7, 30, 399, 1318, 100_000])
def test_student_t_agrees_with_scipy(df):
    for p in (0.5, 0.6, 0.9, 0.975, 0.9995):
        assert stats.t_quantile(p, df) == pytest.approx(
            scipy_stats.t.ppf(p, df), rel=1e-8, abs=1e-8
        )
    for t in (-3.0, -0.2, 0.0, 1.3, 5.0):
        assert stats.t_cdf(t, df) == pytest.approx(scipy_stats.t.cdf(t, df), abs=1e-10)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (119, 1319)])
def test_wilson_agrees_with_statsmodels(successes, n):
    low, high = proportion_confint(successes, n, method="wilson")
    estimate = stats.wilson(successes, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)


def test_t_interval_of_single_problems_agrees_with_scipy():
    values = np.random.default_rng(0).random(37)
    low, high = scipy_stats.t.interval(0.95, 36, values.mean(), scipy_stats.sem(values))
    estimate = stats.t_interval(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)


def test_clustered_standard_error_by_hand():
    # mean 0.5; cluster sums of deviations: a: 1.0, b: -1.0, c: 0.0
    values, clusters = [1, 1, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"]
    assert stats.clustered_se(values, clusters) == pytest.approx(math.sqrt(3 / 2 * 2) / 6)


def test_clustered_standard_error_agrees_with_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 12, 90)
    values = rng.random(90) + 0.3 * rng.random(12)[clusters]
    fit = sm.OLS(values, np.ones(90)).fit(
        cov_type="cluster",
        cov_kwds={"groups": clusters, "df_correction": True, "use_correction": True},
    )
    # statsmodels multiplies by (N-1)/(N-K) too, which is 1 with one regressor
    assert stats.clustered_se(values, clusters.tolist()) == pytest.approx(fit.bse[0], rel=1e-9)


def test_bootstrap_interval_is_near_the_t_interval_where_both_hold():
    values = np.random.default_rng(1).binomial(4, 0.4, 600) / 4
    bootstrap, t = stats.bootstrap_mean(values, k=4), stats.t_interval(values, k=4)
    assert bootstrap.value == t.value == values.mean()
    assert (bootstrap.low, bootstrap.high) == pytest.approx((t.low, t.high), abs=0.002)
    assert (bootstrap.n, bootstrap.k) == (600, 4)


def test_bootstrap_matches_the_enumeration_of_all_resamples():
    values = np.array([0.0, 0.25, 1.0, 0.5])
    everything = [np.mean(c) for c in itertools.product(values, repeat=4)]
    draws = stats._resampled_ratios(values, np.ones(4), 40_000, seed=0)
    for q in (0.05, 0.25, 0.75, 0.95):
        assert np.quantile(draws, q) == pytest.approx(np.quantile(everything, q), abs=0.0626)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.005)
    assert draws.std() == pytest.approx(np.std(everything), rel=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(2).random(50)
    assert stats.bootstrap_mean(values, seed=7) == stats.bootstrap_mean(values, seed=7)
    assert stats.bootstrap_mean(values, seed=7) != stats.bootstrap_mean(values, seed=8)


def test_results_do_not_depend_on_the_size_of_a_chunk(monkeypatch):
    values = np.random.default_rng(6).normal(0.1, 1.0, 77)
    whole = stats.bootstrap_mean(values, bounds=(-9, 9)), stats.sign_flip_p(values)
    monkeypatch.setattr(stats, "CHUNK_ELEMENTS", 100)
    assert (stats.bootstrap_mean(values, bounds=(-9, 9)), stats.sign_flip_p(values)) == whole


def test_a_stored_interval_pins_the_stream_of_random_bits():
    estimate = stats.bootstrap_mean(np.arange(20) / 19, resamples=500, seed=11)
    assert estimate.ci95 == pytest.approx([0.3680238638434379, 0.6396722786045969], abs=1e-12)


def test_copies_inside_a_cluster_add_no_certainty():
    values, clusters = [0, 1, 1, 0, 1, 0, 0, 0, 1, 0], list(range(10))
    alone = stats.bootstrap_mean(values, clusters)
    copied = stats.bootstrap_mean(np.repeat(values, 6), np.repeat(clusters, 6).tolist())
    assert copied.ci95 == pytest.approx(alone.ci95, abs=1e-12)
    assert stats.bootstrap_mean(np.repeat(values, 6)).low > copied.low + 0.05


def test_a_ratio_weighs_problems_by_their_denominators():
    estimate = stats.bootstrap_ratio([4, 0, 0], [4, 1, 0])
    assert estimate.value == 0.8
    assert estimate.n == 3


def test_none_correct_gives_wilsons_interval_and_not_a_point():
    none, every = stats.bootstrap_mean(np.zeros(40)), stats.bootstrap_mean(np.ones(40))
    assert none.ci95 == pytest.approx(stats.wilson(0, 40).ci95)
    assert every.ci95 == pytest.approx(stats.wilson(40, 40).ci95)


def test_a_single_cluster_leaves_everything_open():
    assert stats.bootstrap_mean([0.5, 1.0], ["a", "a"]).ci95 == [0.0, 1.0]


def test_no_graded_sample_is_an_error_and_not_zero():
    with pytest.raises(ValueError, match="at least one graded sample"):
        stats.bootstrap_ratio([0, 0], [0, 0])


def test_cluster_names_must_match_the_values():
    with pytest.raises(ValueError, match="3 values but 2 cluster names"):
        stats.bootstrap_mean([0, 1, 1], ["a", "b"])


@pytest.mark.parametrize(("families", "size", "k"), [(120, 1, 4), (40, 5, 2)])
def test_intervals_cover_the_truth_in_95_of_100_simulated_evaluations(families, size, k):
    rng, rate, trials = np.random.default_rng(5), 0.3, 400
    clusters = np.repeat(np.arange(families), size).tolist()
    hits = naive_hits = 0
    for trial in range(trials):
        difficulty = np.repeat(rng.beta(0.6, 1.4, families), size)
        values = rng.binomial(k, difficulty) / k
        estimate = stats.bootstrap_mean(values, clusters, resamples=800, seed=trial)
        hits += estimate.low <= rate <= estimate.high
        naive = stats.bootstrap_mean(values, resamples=800, seed=trial)
        naive_hits += naive.low <= rate <= naive.high
    assert 0.92 <= hits / trials <= 0.98
    if size > 1:
        assert naive_hits / trials < 0.8  # what forgetting the families would claim


def test_sign_flip_p_is_exact_for_few_problems():
    deltas = [1.0, 1.0, 0.5, -0.25, 0.0]
    sums = [
        abs(sum(s * d for s, d in zip(signs, deltas, strict=True)))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    expected = sum(s >= 2.25 - 1e-9 for s in sums) / 32
    assert stats.sign_flip_p(deltas) == pytest.approx(expected)


def test_sign_flip_p_agrees_with_the_sign_test_where_it_must():
    # 30 problems won, 12 lost by the same amount: the flip test is the binomial test
    deltas = [0.5] * 30 + [-0.5] * 12
    expected = scipy_stats.binomtest(30, 42).pvalue
    assert stats.sign_flip_p(deltas) == pytest.approx(expected, abs=0.002)


def test_sign_flips_keep_families_together():
    deltas, families = [1.0] * 40, ["a"] * 20 + ["b"] * 20
    assert stats.sign_flip_p(deltas, families) == 0.5
    assert stats.sign_flip_p(deltas) < 0.001


def test_identical_arms_have_p_one():
    assert stats.sign_flip_p(np.zeros(30)) == 1.0


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(9)
    small = [stats.sign_flip_p(rng.normal(size=40), flips=500) < 0.1 for _ in range(400)]
    assert 0.06 <= np.mean(small) <= 0.14


def test_a_paired_difference_is_tighter_than_the_arms():
    rng = np.random.default_rng(4)
    difficulty = rng.beta(0.4, 0.4, 300)
    before = rng.binomial(4, difficulty) / 4
    after = np.minimum(1.0, before + 0.25 * (rng.random(300) < 0.3))
    difference = stats.paired_difference(before, after)
    arms = stats.bootstrap_mean(before)
    assert difference.value == pytest.approx(after.mean() - before.mean())
    assert difference.low > 0
    assert difference.p < 0.001
    assert difference.high - difference.low < (arms.high - arms.low) / 2
    assert 0 < difference.mde < difference.value


def test_holm_agrees_with_statsmodels_and_keeps_the_order():
    p_values = [0.04, 0.001, 0.03, 0.2, 0.011]
    expected = multipletests(p_values, method="holm")[1]
    assert stats.holm(p_values) == pytest.approx(expected.tolist())
    assert stats.holm([0.01, 0.04]) == pytest.approx([0.02, 0.04])
    assert stats.holm([]) == []


def test_minimum_detectable_effect_is_found_with_80_percent_power():
    se, trials = 0.02, 20_000
    effect = stats.minimum_detectable_effect(se)
    assert effect == pytest.approx(2.8016 * se, rel=1e-4)
    seen = np.random.default_rng(0).normal(effect, se, trials)
    assert (np.abs(seen) > 1.96 * se).mean() == pytest.approx(0.8, abs=0.01)


def test_more_samples_and_pairing_make_smaller_effects_visible():
    assert stats.mde_unpaired(0.5, 400, between_frac=1.0) == pytest.approx(
        2.8016 * math.sqrt(2 * 0.25 / 400), rel=1e-4
    )
    assert stats.mde_unpaired(0.5, 400, k=16) < stats.mde_unpaired(0.5, 400)
    assert stats.mde_paired(0.5, 400, k=4) < stats.mde_unpaired(0.5, 400, k=4)
    assert stats.mde_paired(0.5, 400, correlation=0.0) == pytest.approx(
        stats.mde_unpaired(0.5, 400)
    )
