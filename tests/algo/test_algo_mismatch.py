"""Corrections for sampler/trainer differences, by hand."""

from __future__ import annotations

import math

import torch

from pellucid.algo.mismatch import MISMATCH

# w = old / rollout = 1, 1.5, 3, 0.6, 0.25
ROLLOUT = torch.tensor([-1.0, -2.0, -3.0, -1.0, -2.0])
OLD = ROLLOUT + torch.tensor([1.0, 1.5, 3.0, 0.6, 0.25]).log()


def test_off_leaves_every_token_alone() -> None:
    weight, capped, masked = MISMATCH["off"](OLD, ROLLOUT, 2.0)
    assert torch.equal(weight, torch.ones(5))
    assert not capped.any()
    assert not masked.any()


def test_truncation_caps_large_weights_only() -> None:
    weight, capped, masked = MISMATCH["tis"](OLD, ROLLOUT, 2.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 1.5, 2.0, 0.6, 0.25]))
    assert capped.tolist() == [False, False, True, False, False]
    assert not masked.any()


def test_masking_drops_weights_outside_the_band_on_both_sides() -> None:
    weight, capped, masked = MISMATCH["mask"](OLD, ROLLOUT, 2.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 1.5, 0.0, 0.6, 0.0]))
    assert masked.tolist() == [False, False, True, False, True]
    assert not capped.any()


def test_the_weight_carries_no_gradient_and_stays_finite() -> None:
    old = torch.tensor([0.0, -500.0], requires_grad=True)
    weight, _, _ = MISMATCH["mask"](old, torch.tensor([-500.0, 0.0]), 2.0)
    assert not weight.requires_grad
    weight, _, _ = MISMATCH["tis"](old, torch.tensor([-500.0, 0.0]), math.inf)
    assert torch.isfinite(weight).all()
    assert not weight.requires_grad
