"""Presets resolve to their publications' numbers; a value set by hand wins."""

from __future__ import annotations

import dataclasses

import pytest

from pellucid.algo.advantages import ADVANTAGES
from pellucid.algo.aggregate import AGGREGATIONS
from pellucid.algo.kl import KL_ESTIMATORS
from pellucid.algo.mismatch import MISMATCH
from pellucid.algo.policy_loss import POLICY_LOSSES
from pellucid.algo.presets import PRESETS, resolve
from pellucid.config import AlgoConfig
from pellucid.errors import ConfigError


def test_the_default_is_the_paper() -> None:
    objective = resolve(AlgoConfig())
    assert dataclasses.asdict(objective) == {
        "preset": "r1",
        "advantage": "grpo",
        "loss": "clip",
        "aggregation": "sequence-mean",
        "clip_low": 10.0,
        "clip_high": 10.0,
        "dual_clip": None,
        "kl": "k3",
        "beta": 0.001,
        "reference": "hard",
        "reference_every": 400,
        "reference_ema": 0.6,
        "mismatch": "off",
        "mismatch_cap": 2.0,
        "old_logprobs": "recompute",
    }
    assert objective.has_reference


@pytest.mark.parametrize(
    ("preset", "advantage", "loss", "aggregation", "low", "high"),
    [
        ("dapo", "grpo", "clip", "token-mean", 0.2, 0.28),
        ("dr-grpo", "dr-grpo", "clip", "constant", 0.2, 0.2),
        ("gspo", "grpo", "gspo", "sequence-mean", 3e-4, 4e-4),
        ("cispo", "grpo", "cispo", "token-mean", 1.0, 4.0),
    ],
)
def test_the_other_presets_are_their_papers_without_a_reference(
    preset: str, advantage: str, loss: str, aggregation: str, low: float, high: float
) -> None:
    o = resolve(AlgoConfig.model_validate({"preset": preset}))
    assert (o.advantage, o.loss, o.aggregation) == (advantage, loss, aggregation)
    assert (o.clip_low, o.clip_high, o.beta, o.has_reference) == (low, high, 0.0, False)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_value_set_by_hand_wins_even_a_zero(preset: str) -> None:
    by_hand = {
        "advantage": "rloo",
        "loss": "gspo",
        "aggregation": "constant",
        "clip_low": 0.0,
        "clip_high": 0.123,
        "dual_clip": 3.0,
        "kl": "k1",
        "beta": 0.0 if preset == "r1" else 0.5,
        "reference": "ema",
        "reference_every": 7,
        "reference_ema": 0.25,
        "mismatch": "mask",
        "mismatch_cap": 3.0,
        "old_logprobs": "rollout",
    }
    objective = resolve(AlgoConfig.model_validate({"preset": preset, **by_hand}))
    assert dataclasses.asdict(objective) == {"preset": preset, **by_hand}


def test_swapping_the_loss_by_hand_brings_that_losses_clip_range() -> None:
    assert resolve(AlgoConfig(loss="gspo")).clip_high == 4e-4
    assert resolve(AlgoConfig(loss="clip", preset="dapo")).clip_high == 0.28
    assert resolve(AlgoConfig(loss="clip", preset="gspo")).clip_high == 10.0
    assert resolve(AlgoConfig(loss="cispo", clip_high=1.0)).clip_high == 1.0


def test_dual_clip_with_cispo_is_refused() -> None:
    with pytest.raises(ConfigError, match="dual_clip"):
        resolve(AlgoConfig(preset="cispo", dual_clip=3.0))


def test_every_name_that_the_configuration_allows_has_a_function() -> None:
    def allowed(field: str) -> set[str]:
        schema = AlgoConfig.model_json_schema()["properties"][field]
        options = schema.get("anyOf", [schema])
        return {name for option in options for name in option.get("enum", ())}

    assert allowed("advantage") == set(ADVANTAGES)
    assert allowed("loss") == set(POLICY_LOSSES)
    assert allowed("aggregation") == set(AGGREGATIONS)
    assert allowed("kl") == set(KL_ESTIMATORS)
    assert allowed("mismatch") == set(MISMATCH)
    assert allowed("preset") == set(PRESETS)
