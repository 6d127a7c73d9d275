"""Agreement, kappa and error shares against other programs' numbers, and by simulation."""

import math
import random

import pytest

from pellucid.evidence.core.agreement import (
    CELLS,
    Stratum,
    kappa,
    kappa_error,
    part_of,
    share_of,
    wilson,
)
from pellucid.evidence.core.statistics import StatisticsError

ENDLESS = 10**12
"""Of a population so large that drawing does not thin it out."""
Z = 1.959963984540054


@pytest.mark.parametrize(
    ("counts", "value", "se"),
    [
        ((45, 15, 25, 15), 0.13043478260869554, 0.0986615376234396),
        ((50, 1, 3, 46), 0.9199038846615938, 0.03920732525725782),
    ],
)
def test_kappa_and_its_error_are_those_of_statsmodels(counts, value, se):
    """statsmodels 0.14, cohens_kappa: kappa and std_kappa."""
    strata = [Stratum(ENDLESS, counts)]
    found = kappa(strata)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert kappa_error(strata) == pytest.approx(se, abs=1e-9)
    assert found.low <= value - Z * se + 1e-9
    assert found.high >= value + Z * se - 1e-9


def test_wilsons_interval_is_that_of_statsmodels():
    """statsmodels 0.14, proportion_confint(3, 100, method="wilson")."""
    assert wilson(3, 100) == pytest.approx((0.01025452402403891, 0.08451936429052763), abs=1e-12)


def test_shares_are_weighted_by_the_inverse_probability_of_the_draw():
    """Of 900 alike and 100 contested: 1 of 90 and 20 of 50 are wrongly accepted, by hand
    0.9 / 90 + 0.1 * 20 / 50.
    """
    strata = [Stratum(900, (60, 1, 0, 29)), Stratum(100, (10, 20, 5, 15))]
    assert share_of(strata, (1,)).value == pytest.approx(0.9 / 90 + 0.1 * 20 / 50)


def test_a_stratum_that_was_labelled_whole_adds_no_doubt():
    whole = share_of([Stratum(40, (10, 20, 5, 5))], (1,))
    assert whole == pytest.approx((0.5, 0.5, 0.5))
    assert kappa_error([Stratum(40, (10, 20, 5, 5))]) == 0.0
    both = share_of([Stratum(40, (10, 20, 5, 5)), Stratum(960, (50, 0, 0, 50))], (1,))
    assert both.value == pytest.approx(0.02)
    assert both.low == pytest.approx(0.02)
    left = math.sqrt(1 - 100 / 960)
    assert both.high == pytest.approx(0.02 + 0.96 * left * wilson(0, 100)[1])


def test_no_error_in_a_hundred_leaves_room_for_some():
    perfect = kappa([Stratum(10_000, (60, 0, 0, 40))])
    assert perfect.value == 1.0
    assert 0.9 < perfect.low < 0.95


def test_a_rate_takes_the_worst_of_both_its_parts():
    part, rest = share_of([Stratum(ENDLESS, (50, 5, 5, 40))], (1,)), wilson(40, 100)
    found = part_of(part, share_of([Stratum(ENDLESS, (50, 5, 5, 40))], (3,)))
    assert found.value == pytest.approx(5 / 45)
    assert found.high == pytest.approx(part.high / (part.high + rest[0]))


@pytest.mark.parametrize(
    ("compute", "strata"),
    [
        (kappa, [Stratum(100, (10, 0, 0, 0))]),
        (kappa, [Stratum(100, (0, 0, 0, 0))]),
        (kappa, []),
        (lambda s: share_of(s, (1,)), [Stratum(5, (1, 1, 1, 1)), Stratum(9, (0, 0, 0, 0))]),
    ],
    ids=["one-verdict", "no-labels", "nothing", "a-part-without-labels"],
)
def test_what_labels_cannot_tell_is_not_a_number(compute, strata):
    with pytest.raises(StatisticsError):
        compute(strata)


def test_intervals_hold_the_truth_in_most_of_many_draws():
    """Small runs of `benchmarks/audit_coverage.py`, where they have many."""
    draw, hits, runs = random.Random(5), 0, 60
    for _ in range(runs):
        pops = [_population(draw, 1500, 0.04), _population(draw, 80, 0.4)]
        truth = share_of([_labels(pop, pop) for pop in pops], (1,)).value
        drawn = [_labels(pop, draw.sample(pop, 60)) for pop in pops]
        found = share_of(drawn, (1,))
        hits += found.low <= truth <= found.high
    assert hits >= 52


def _population(draw, size, error):
    truths = [draw.random() < 0.6 for _ in range(size)]
    return [(truth != (draw.random() < error), truth) for truth in truths]


def _labels(population, drawn):
    return Stratum(len(population), tuple(drawn.count(cell) for cell in CELLS))
