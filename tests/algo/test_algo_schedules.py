"""Learning rates and reference refreshes, by hand."""

from __future__ import annotations

import pytest
import torch

from pellucid.algo.presets import resolve
from pellucid.algo.reference import is_refresh_due, refresh
from pellucid.algo.schedules import learning_rate
from pellucid.config import AlgoConfig, ScheduleConfig


@pytest.mark.parametrize(
    ("schedule", "total", "expected"),
    [
        (ScheduleConfig(), 3, [2.0, 2.0, 2.0]),
        (ScheduleConfig(warmup_steps=4), 6, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]),
        (ScheduleConfig(kind="linear", final_fraction=0.0), 5, [2.0, 1.5, 1.0, 0.5, 0.0]),
        (
            ScheduleConfig(kind="linear", warmup_steps=2, final_fraction=0.5),
            6,
            [1.0, 2.0, 1.75, 1.5, 1.25, 1.0],
        ),
        # cos(0), cos(60°), cos(120°), cos(180°): 1, 3/4, 1/4, 0 of the way from 0.2 to 2.
        (ScheduleConfig(kind="cosine"), 4, [2.0, 1.55, 0.65, 0.2]),
    ],
)
def test_learning_rates_by_hand(
    schedule: ScheduleConfig, total: int, expected: list[float]
) -> None:
    got = [learning_rate(step, total, schedule, 2.0) for step in range(total)]
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_steps_past_the_end_keep_the_final_rate(kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"kind": kind, "final_fraction": 0.1})
    assert learning_rate(50, 10, schedule, 2.0) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_run_of_one_step_and_one_that_ends_in_warm_up_have_a_rate(kind: str) -> None:
    assert learning_rate(0, 1, ScheduleConfig.model_validate({"kind": kind}), 2.0) == 2.0
    long = ScheduleConfig.model_validate({"kind": kind, "warmup_steps": 10})
    assert learning_rate(1, 2, long, 2.0) == pytest.approx(0.4)


def test_the_reference_is_refreshed_after_every_so_many_steps_if_there_is_one() -> None:
    with_kl = resolve(AlgoConfig(reference_every=3))
    assert [s for s in range(10) if is_refresh_due(s, with_kl)] == [3, 6, 9]
    without = resolve(AlgoConfig(preset="dapo", reference_every=3))
    assert not any(is_refresh_due(s, without) for s in range(10))


def test_hard_refresh_copies_and_ema_mixes_in_place() -> None:
    policy = [torch.tensor([1.0, 3.0])]
    reference = [torch.tensor([0.0, 1.0])]
    held = reference[0]
    refresh(reference, policy, resolve(AlgoConfig(reference="ema", reference_ema=0.25)))
    torch.testing.assert_close(held, torch.tensor([0.25, 1.5]))
    refresh(reference, policy, resolve(AlgoConfig()))
    assert torch.equal(held, policy[0])
    policy[0][0] = 7.0
    assert held[0] == 1.0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        refresh(reference, [], resolve(AlgoConfig()))
