"""Advantages against a slow loop over Python floats and against numbers computed by hand."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.algo.advantages import ADVANTAGES
from pellucid.errors import ConfigError, NumericsError

NAMES = sorted(ADVANTAGES)


def slow_group(name: str, kept: list[float]) -> list[float]:
    """Advantages of one group of valid rewards from the formulas (batch-std: centred only)."""
    if len(kept) < 2 or len(set(kept)) == 1:
        return [0.0] * len(kept)
    mean = statistics.fmean(kept)
    if name == "grpo":
        return [(r - mean) / (statistics.stdev(kept) + 1e-6) for r in kept]
    if name == "rloo":
        return [r - (sum(kept) - r) / (len(kept) - 1) for r in kept]
    if name == "maxrl":
        return [(r - mean) / mean for r in kept]
    return [r - mean for r in kept]


def slow(name: str, rewards: list[list[float]], valid: list[list[bool]]) -> list[list[float]]:
    """Advantages of a batch, one group after the other."""
    table = []
    for row, mask in zip(rewards, valid, strict=True):
        kept = iter(slow_group(name, [r for r, v in zip(row, mask, strict=True) if v]))
        table.append([next(kept) if v else 0.0 for v in mask])
    if name == "batch-std":
        counted = [
            a
            for row, mask in zip(table, valid, strict=True)
            for a, v in zip(row, mask, strict=True)
            if v and sum(mask) >= 2
        ]
        variance = sum(a * a for a in counted) / max(len(counted) - 1, 1)
        table = [[a / (math.sqrt(variance) + 1e-6) for a in row] for row in table]
    return table


def all_valid(rewards: Tensor) -> Tensor:
    return torch.ones_like(rewards, dtype=torch.bool)


BATCHES = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(
            st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0]), st.booleans()),
            min_size=width,
            max_size=width,
        ),
        min_size=1,
        max_size=4,
    )
)


@pytest.mark.parametrize("name", NAMES)
@given(batch=BATCHES)
@settings(max_examples=40, deadline=None)
def test_every_estimator_equals_its_formula_written_as_a_loop(
    name: str, batch: list[list[tuple[float, bool]]]
) -> None:
    rewards = [[r for r, _ in row] for row in batch]
    valid = [[v for _, v in row] for row in batch]
    got = ADVANTAGES[name](torch.tensor(rewards), torch.tensor(valid))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(slow(name, rewards, valid)), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Rewards 1 0 0 0: mean 0.25, unbiased variance (0.5625 + 3 · 0.0625) / 3 = 0.25.
        ("grpo", [1.5, -0.5, -0.5, -0.5]),
        ("dr-grpo", [0.75, -0.25, -0.25, -0.25]),
        ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("batch-std", [1.5, -0.5, -0.5, -0.5]),
        ("maxrl", [3.0, -1.0, -1.0, -1.0]),
    ],
)
def test_one_right_of_four_gives_the_numbers_of_a_pocket_calculator(
    name: str, expected: list[float]
) -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    got = ADVANTAGES[name](rewards, all_valid(rewards))
    torch.testing.assert_close(got, torch.tensor([expected]), rtol=1e-5, atol=1e-5)


def test_batch_std_divides_by_the_spread_of_the_whole_batch() -> None:
    # Centred: ±0.5, ±0.5, and 0, 0: sqrt(1 / 5) = 0.4472.
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    got = ADVANTAGES["batch-std"](rewards, all_valid(rewards))
    a = 0.5 / math.sqrt(0.2)
    torch.testing.assert_close(
        got, torch.tensor([[a, -a], [-a, a], [0.0, 0.0]]), rtol=1e-5, atol=0.0
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.3, 1.0, 1e6])
def test_a_group_without_spread_gets_exactly_zero(name: str, reward: float) -> None:
    rewards = torch.full((1, 7), reward)
    assert torch.equal(ADVANTAGES[name](rewards, all_valid(rewards)), torch.zeros(1, 7))


@pytest.mark.parametrize("name", NAMES)
def test_a_group_with_one_valid_sample_or_none_gets_exactly_zero(name: str) -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5], [1.0, 0.0, 0.5]])
    valid = torch.tensor([[True, False, False], [False, False, False]])
    assert torch.equal(ADVANTAGES[name](rewards, valid), torch.zeros(2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_an_invalid_sample_changes_nothing_whatever_its_reward(name: str) -> None:
    valid = torch.tensor([[True, True, False, True], [True, True, True, True]])
    rest = [0.0, 1.0, 1.0, 0.0]
    results = [
        ADVANTAGES[name](torch.tensor([[1.0, 0.0, junk, 0.0], rest]), valid)
        for junk in (0.0, 1.0, -9.0, math.nan, math.inf)
    ]
    assert results[0][0, 2] == 0.0
    for other in results[1:]:
        assert torch.equal(results[0], other)


@pytest.mark.parametrize("name", NAMES)
def test_permuting_problems_permutes_advantages(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 3, (6, 5), generator=generator).float()
    valid = torch.rand(6, 5, generator=generator) > 0.2
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    advantages = ADVANTAGES[name](rewards, valid)
    permuted = ADVANTAGES[name](rewards[order], valid[order])
    torch.testing.assert_close(permuted, advantages[order], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "batch-std"])
def test_the_rewards_of_one_problem_do_not_reach_another(name: str) -> None:
    one = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    two = torch.tensor([[1.0, 0.0, 0.0], [0.0, 5.0, 9.0]])
    first = ADVANTAGES[name](one, all_valid(one))
    second = ADVANTAGES[name](two, all_valid(two))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("name", NAMES)
def test_better_than_the_group_is_positive_and_worse_negative(name: str) -> None:
    rewards = torch.tensor([[2.0, 1.0, 0.0]])
    best, middle, worst = ADVANTAGES[name](rewards, all_valid(rewards))[0].tolist()
    assert best > 0.0 > worst
    assert middle == 0.0


def test_maxrl_gives_zero_where_nothing_was_solved_and_refuses_negative_rewards() -> None:
    zeros = torch.zeros(1, 3)
    assert torch.equal(ADVANTAGES["maxrl"](zeros, all_valid(zeros)), zeros)
    rewards = torch.tensor([[1.0, -2.0, 0.0]])
    with pytest.raises(ConfigError, match=r"maxrl.*found -2"):
        ADVANTAGES["maxrl"](rewards, all_valid(rewards))


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_reward_that_is_not_finite_is_refused(name: str) -> None:
    rewards = torch.tensor([[1.0, math.nan]])
    with pytest.raises(NumericsError, match="NaN"):
        ADVANTAGES[name](rewards, all_valid(rewards))
