"""A judge's mean, corrected by labels: by hand, and by simulation."""

import math
import random

import pytest

from pellucid.evidence.core.ppi import Part, corrected, rectifier
from pellucid.evidence.core.statistics import Interval, StatisticsError, jackknife, t_quantile


def test_gaps_are_weighted_by_their_strata():
    """Of 900 and 100: means of 0.1 and -0.5, by hand 0.9 * 0.1 - 0.1 * 0.5."""
    plain, contested = [1.0] + [0.0] * 9, [-1.0, -1.0, 0.0, 0.0]
    mean, se = rectifier([Part(900, plain), Part(100, contested), Part(0, [])])
    assert mean == pytest.approx(0.04)
    spreads = [(0.9 + 2) / 11, (1.0 + 2) / 5]
    assert se == pytest.approx(math.sqrt(0.81 * spreads[0] / 10 + 0.01 * spreads[1] / 4))


def test_a_judge_who_was_never_wrong_may_yet_be():
    judged = Interval(0.5, 0.45, 0.55, 0.0, 400)
    found = corrected(judged, [[Part(1000, [0.0] * 100)]])
    assert found.value == 0.5
    half = t_quantile(0.975, 99) * math.sqrt(2 / 101 / 100)
    assert found.high == pytest.approx(0.5 + half)


def test_a_difference_takes_both_corrections():
    judged = Interval(0.2, 0.1, 0.3, 0.05, 100)
    arms = [[Part(100, [0.0] * 50)], [Part(100, [1.0] * 5 + [0.0] * 45)]]
    assert corrected(judged, arms, bounds=(-1.0, 1.0)).value == pytest.approx(0.1)


@pytest.mark.parametrize("parts", [[], [Part(5, [])], [Part(5, [0.0])]])
def test_too_few_labels_correct_nothing(parts):
    with pytest.raises(StatisticsError):
        corrected(Interval(0.5, 0.4, 0.6, 0.05, 50), [parts])


def test_the_corrected_interval_holds_the_truth_where_the_judges_does_not():
    """Small runs of `benchmarks/audit_coverage.py`: a judge right in 80 %, else too kind."""
    draw, hits, naive, runs = random.Random(3), 0, 0, 60
    for _ in range(runs):
        rows = [(family, truth, truth if draw.random() < 0.8 else draw.random() < 0.9)
                for family in range(120) for truth in [draw.random() < 0.6]]  # fmt: skip
        sums = [(float(judge), 1.0) for _, _, judge in rows]
        judged = jackknife(sums, lambda s: s[0] / s[1], is_share=True)
        gaps = [float(truth) - float(judge) for _, truth, judge in draw.sample(rows, 60)]
        found = corrected(judged, [[Part(len(rows), gaps)]])
        hits += found.low <= 0.6 <= found.high
        naive += judged.low <= 0.6 <= judged.high
    assert hits >= 53
    assert naive < hits
