"""On-policy distillation: the advantage of a token is what the teacher thinks better of it."""

import pytest
import torch

from pellucid.algo.distill import reverse_kl_advantages


def test_advantages_by_hand_carry_no_gradient() -> None:
    policy = torch.tensor([-1.0, -0.5, -2.0], requires_grad=True)
    teacher = torch.tensor([-0.5, -0.5, -4.0])
    advantages = reverse_kl_advantages(policy, teacher)
    assert advantages.tolist() == [0.5, 0.0, -2.0]
    assert not advantages.requires_grad
    assert reverse_kl_advantages(policy, teacher, coefficient=0.5).tolist() == [0.25, 0.0, -1.0]


def test_bfloat16_is_widened_before_it_is_subtracted() -> None:
    policy, teacher = torch.tensor([-8.0]).bfloat16(), torch.tensor([-8.015625])
    assert reverse_kl_advantages(policy, teacher).item() == -0.015625
    assert reverse_kl_advantages(policy, teacher).dtype == torch.float32


def test_in_expectation_the_gradient_is_that_of_the_reverse_kl() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    (policy.exp() * (policy - teacher)).sum().backward()
    exact = logits.grad.clone()
    logits.grad = None
    policy = logits.log_softmax(-1)
    advantages = reverse_kl_advantages(policy, teacher).double()
    loss = -(policy.detach().exp() * advantages * policy).sum()  # every token, by its probability
    loss.backward()
    assert torch.allclose(logits.grad, exact, atol=1e-6)


def test_rows_of_another_length_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="one log-probability each"):
        reverse_kl_advantages(torch.zeros(3), torch.zeros(2))
