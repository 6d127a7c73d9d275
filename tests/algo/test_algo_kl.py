"""KL estimators: values by hand, unbiasedness by enumeration, and which way the gradient points."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pellucid.algo.kl import KL_ESTIMATORS

NAMES = sorted(KL_ESTIMATORS)


def exact_kl(policy: Tensor, reference: Tensor) -> float:
    p, q = policy.softmax(0), reference.softmax(0)
    return float((p * (p.log() - q.log())).sum())


def kl_loss(name: str, policy: Tensor, reference: Tensor) -> Tensor:
    """The estimator's expectation over samples of the policy, as training sees it: the sampling
    probabilities are constants."""
    logprobs = policy.log_softmax(0)
    estimate = KL_ESTIMATORS[name](logprobs, reference.log_softmax(0))
    return (logprobs.detach().exp() * estimate).sum()


def test_values_by_hand() -> None:
    policy = torch.tensor([math.log(0.5), math.log(0.2), math.log(0.3)])
    reference = torch.tensor([math.log(0.25), math.log(0.4), math.log(0.3)])
    ln2 = math.log(2.0)
    expected = {
        "k1": [ln2, -ln2, 0.0],
        "k2": [ln2 * ln2 / 2, ln2 * ln2 / 2, 0.0],
        "k3": [0.5 + ln2 - 1.0, 2.0 - ln2 - 1.0, 0.0],
    }
    for name, values in expected.items():
        got = KL_ESTIMATORS[name](policy, reference)
        torch.testing.assert_close(got, torch.tensor(values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(name: str) -> None:
    policy, reference = torch.tensor([1.0, 0.2, -0.7]), torch.tensor([-0.3, 0.9, 0.1])
    assert float(kl_loss(name, policy, reference)) == pytest.approx(exact_kl(policy, reference))


@pytest.mark.parametrize("name", NAMES)
def test_a_token_likelier_than_under_the_reference_is_pushed_down_and_a_rarer_one_up(
    name: str,
) -> None:
    policy = torch.tensor([-1.0, -3.0, -2.0, -40.0], requires_grad=True)
    KL_ESTIMATORS[name](policy, torch.tensor([-2.0, -2.0, -2.0, -1.0])).sum().backward()
    assert policy.grad is not None
    assert policy.grad[0] > 0.0 > policy.grad[1]
    assert policy.grad[2] == 0.0
    assert policy.grad[3] < 0.0


@pytest.mark.parametrize("name", NAMES)
def test_descending_on_the_kl_term_moves_the_policy_to_the_reference(name: str) -> None:
    reference = torch.tensor([1.5, 0.0, -1.0, 0.3])
    policy = torch.tensor([-1.0, 0.8, 1.0, 0.0], requires_grad=True)
    before = exact_kl(policy.detach(), reference)
    distances = []
    for _ in range(300):
        (gradient,) = torch.autograd.grad(kl_loss(name, policy, reference), policy)
        policy = (policy - 0.2 * gradient).detach().requires_grad_()
        distances.append(exact_kl(policy.detach(), reference))
    assert distances[0] < before
    assert distances[-1] < 0.01 * before


@pytest.mark.parametrize("name", ["k1", "k2"])
def test_the_gradient_of_k1_and_k2_is_that_of_the_exact_kl(name: str) -> None:
    reference = torch.tensor([1.5, 0.0, -1.0])
    policy = torch.tensor([-1.0, 0.8, 1.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(kl_loss(name, policy, reference), policy)
    p = policy.log_softmax(0)
    exact = (p.exp() * (p - reference.log_softmax(0))).sum()
    (expected,) = torch.autograd.grad(exact, policy)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_k3_stays_finite_and_convex_where_the_policy_has_forgotten_a_token() -> None:
    policy = torch.tensor([-20.9, -21.1, -60.0, -1000.0], requires_grad=True)
    values = KL_ESTIMATORS["k3"](policy, torch.full((4,), -1.0))
    values.sum().backward()
    assert policy.grad is not None
    assert torch.isfinite(values).all()
    assert values.tolist() == sorted(values.tolist())
    assert values[0].item() == pytest.approx(math.exp(19.9) - 20.9, rel=1e-5)
    slope = -math.expm1(20.0)
    torch.testing.assert_close(policy.grad[1:], torch.full((3,), slope), rtol=1e-5, atol=0.0)
