"""The optimiser on a device: one wait, the CPU's numbers, and a broken gradient changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.config import TrainConfig
from pellucid.errors import NumericsError
from pellucid.train.optimizer import Optimizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG = TrainConfig(weight_decay=0.1, grad_clip=0.5)


def make(device: str) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 700), nn.Tanh(), nn.Linear(700, 300, bias=False))
    model = model.to(device, torch.bfloat16)
    return model, Optimizer(model, CONFIG)


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        grad = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.backward(grad)


def test_steps_are_those_of_the_cpu() -> None:
    (ours, fast), (plain, slow) = make("cuda"), make("cpu")
    addresses = [p.data_ptr() for p in ours.parameters()]
    for seed in range(3):
        give_gradients(ours, seed)
        give_gradients(plain, seed)
        norm = fast.step(1e-3, where="test")
        # A float32 sum of squares on either side, in another order.
        assert norm == pytest.approx(slow.step(1e-3, where="test"), rel=1e-4)
    got, want = fast.state(), slow.state()
    for name, value in want.items():
        torch.testing.assert_close(got[name].cpu(), value, rtol=1e-5, atol=1e-6)
    assert [p.data_ptr() for p in ours.parameters()] == addresses
    for parameter, master in zip(ours.parameters(), fast.masters.values(), strict=True):
        assert torch.equal(parameter, master.to(torch.bfloat16))


def test_everything_but_the_norm_is_given_to_the_device_without_waiting() -> None:
    model, optimizer = make("cuda")
    give_gradients(model, 0)
    optimizer.step(1e-3, where="warm up")
    give_gradients(model, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        total = nn.utils.get_total_norm(optimizer._gradients())
        optimizer._step_unless_broken(total)
        optimizer.clear_gradients()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_gradient_leaves_masters_moments_and_weights_alone(bad: float) -> None:
    model, optimizer = make("cuda")
    give_gradients(model, 0)
    optimizer.step(1e-3, where="step 1")
    before = {k: v.detach().clone() for k, v in optimizer.state().items()}
    weights = [p.detach().clone() for p in model.parameters()]
    give_gradients(model, 1)
    model[2].weight.backward(torch.full_like(model[2].weight, bad))
    with pytest.raises(NumericsError, match=r"step 2: gradient of 2\.weight is not finite"):
        optimizer.step(1e-3, where="step 2")
    after = optimizer.state()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert optimizer.step(1e-3, where="step 3") == 0.0
