"""A reward model that only reads length must show."""

import random

import numpy as np
import pytest

from pellucid.evaluate.preference_accuracy import (
    ScoredPair,
    ScoredResponse,
    auc,
    label_report,
    pair_report,
)


def pairs(reward, *, share_longer: float = 0.8, count: int = 400) -> list[ScoredPair]:
    """The chosen answer is the longer one in a share of the pairs; `reward(is_chosen, length)`."""
    draw = random.Random(5)
    found = []
    for i in range(count):
        lengths = sorted(draw.sample(range(10, 200), 2))
        if draw.random() < share_longer:
            lengths.reverse()
        chosen, rejected = lengths
        found.append(
            ScoredPair(
                chosen=reward(True, chosen),
                rejected=reward(False, rejected),
                chosen_length=chosen,
                rejected_length=rejected,
                cluster=f"p{i // 2}",
                subset="odd" if i % 2 else "even",
            )
        )
    return found


def test_reading_length_alone_shows() -> None:
    report = pair_report(pairs(lambda is_chosen, length: float(length)))
    assert report["accuracy"]["value"] == pytest.approx(0.8, abs=0.05)
    assert report["accuracy"] == report["length_only"]
    assert report["gain_over_length"]["value"] == 0.0
    assert report["gain_over_length"]["p"] == 1.0
    assert report["length_balanced"] == 0.5
    assert report["prefers_longer"]["value"] == 1.0
    by_length = {row["lengths"]: row["value"] for row in report["by_length"]}
    assert by_length["chosen at most half as long"] == 0.0
    assert by_length["chosen twice as long or more"] == 1.0
    assert report["prompts"] == 200


def test_knowing_the_better_one_shows_too() -> None:
    report = pair_report(pairs(lambda is_chosen, length: float(is_chosen)))
    assert report["accuracy"]["value"] == 1.0
    assert report["accuracy"]["ci95"][0] < 1.0
    assert report["length_balanced"] == 1.0
    assert report["gain_over_length"]["ci95"][0] > 0.1
    assert report["gain_over_length"]["p"] < 0.001
    assert {row["value"] for row in report["by_length"]} == {1.0}
    assert set(report["by_subset"]) == {"odd", "even"}


def test_ties_count_one_half_and_prompts_are_drawn_whole() -> None:
    report = pair_report(pairs(lambda is_chosen, length: 0.0))
    assert report["accuracy"]["value"] == 0.5
    draw = random.Random(1)
    noise = pairs(lambda is_chosen, length: draw.random())
    apart = [
        ScoredPair(
            chosen=p.chosen,
            rejected=p.rejected,
            chosen_length=p.chosen_length,
            rejected_length=p.rejected_length,
            cluster=str(i % 4),
        )
        for i, p in enumerate(noise)
    ]
    few, many = pair_report(apart)["accuracy"]["ci95"], pair_report(noise)["accuracy"]["ci95"]
    assert few != many
    assert pair_report(apart)["by_subset"] == {}


def test_labels_are_measured_beside_the_commoner_one_and_length() -> None:
    responses = [
        ScoredResponse(reward=1.0 if i % 4 else -1.0, label=bool(i % 2), length=i, cluster=str(i))
        for i in range(100)
    ]
    report = label_report(responses)
    assert report["accuracy"]["value"] == 0.75
    assert report["positive"]["value"] == 1.0
    assert report["negative"]["value"] == 0.5
    assert report["majority_only"] == 0.5
    assert report["auc"] == 0.75
    assert report["length_only_auc"] == pytest.approx(0.51)
    assert label_report(responses[1::2])["auc"] is None


def test_auc_is_the_chance_of_the_right_order() -> None:
    values, labels = np.array([0.1, 0.4, 0.35, 0.8, 0.4]), np.array([0, 0, 1, 1, 1], dtype=bool)
    slow = [
        1.0 if p > n else 0.5 if p == n else 0.0 for p in values[labels] for n in values[~labels]
    ]
    assert auc(values, labels) == pytest.approx(sum(slow) / len(slow))
