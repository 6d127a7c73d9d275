"""AdamW on float32 masters: against torch's own recipe, and what a broken gradient leaves alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pellucid.config import TrainConfig
from pellucid.errors import NumericsError
from pellucid.train.optimizer import Optimizer

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
CONFIG = TrainConfig(weight_decay=0.1, grad_clip=0.5)


def make_model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)).to(dtype)


def backward(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 5, generator=generator).to(weight.dtype)
    (scale * model(x).float().square().sum()).backward()


def copies(optimizer: Optimizer) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in optimizer.state().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def reference(
    dtype: torch.dtype, backwards: Callable[[nn.Module, int], None], steps: int
) -> tuple[list[Tensor], list[float]]:
    """The same training with torch's parts in their usual order, on float32 copies."""
    model = make_model(dtype)
    masters = [p.detach().clone().float().requires_grad_() for p in model.parameters()]
    groups = [
        {"params": [m for m in masters if m.dim() >= 2], "weight_decay": 0.1},
        {"params": [m for m in masters if m.dim() < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=0.01, betas=CONFIG.betas, eps=CONFIG.adam_eps, fused=True)
    norms = []
    for step in range(steps):
        for master in masters:
            master.grad = None
        for part in range(2):
            backwards(model, 2 * step + part)
            for master, parameter in zip(masters, model.parameters(), strict=True):
                grad = parameter.grad.float()
                master.grad = grad if master.grad is None else master.grad + grad
                parameter.grad = None
        norms.append(float(nn.utils.clip_grad_norm_(masters, CONFIG.grad_clip)))
        adam.step()
        with torch.no_grad():
            for master, parameter in zip(masters, model.parameters(), strict=True):
                parameter.copy_(master)
    return masters, norms


@BOTH
@pytest.mark.parametrize("scale", [1.0, 1e-3])  # clipped, and not
def test_steps_equal_torchs_own_recipe(dtype: torch.dtype, scale: float) -> None:
    masters, norms = reference(dtype, lambda m, seed: backward(m, seed, scale), steps=3)
    model = make_model(dtype)
    optimizer = Optimizer(model, CONFIG)
    for step, norm in enumerate(norms):
        backward(model, 2 * step, scale)
        backward(model, 2 * step + 1, scale)
        got = optimizer.step(0.01, where="test")
        if dtype == torch.float32:
            assert got == norm
        assert got == pytest.approx(norm, rel=1e-5)
    for parameter, master, want in zip(
        model.parameters(), optimizer.masters.values(), masters, strict=True
    ):
        if dtype == torch.float32:
            assert torch.equal(master, want)
        torch.testing.assert_close(master, want, rtol=1e-5, atol=1e-7)
        assert torch.equal(parameter, master.to(dtype))


@BOTH
def test_a_step_without_a_backward_pass_changes_nothing(dtype: torch.dtype) -> None:
    model = make_model(dtype)
    optimizer = Optimizer(model, CONFIG)
    assert optimizer.step(0.1, where="test") == 0.0
    backward(model, 0)
    assert optimizer.step(0.1, where="test") > 0.0
    before = copies(optimizer)
    assert optimizer.step(0.1, where="test") == 0.0
    assert_same(copies(optimizer), before)


@BOTH
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_gradient_is_named_and_leaves_everything_alone(
    dtype: torch.dtype, bad: float
) -> None:
    model = make_model(dtype)
    optimizer = Optimizer(model, CONFIG)
    backward(model, 0)
    optimizer.step(0.1, where="step 1")
    before, weights = copies(optimizer), [p.detach().clone() for p in model.parameters()]
    backward(model, 1)
    model[2].weight.backward(torch.full_like(model[2].weight, bad))
    with pytest.raises(NumericsError, match=r"^step 2: gradient of 2\.weight is not finite$"):
        optimizer.step(0.1, where="step 2")
    assert_same(copies(optimizer), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert optimizer.step(0.1, where="step 3") == 0.0, "the gradients are cleared"
    backward(model, 2)
    after_break = optimizer.step(0.1, where="step 4"), copies(optimizer)
    smooth_model = make_model(dtype)
    smooth = Optimizer(smooth_model, CONFIG)
    for seed in (0, 2):
        backward(smooth_model, seed)
        norm = smooth.step(0.1, where="test")
    assert after_break[0] == norm
    assert_same(after_break[1], copies(smooth))


@BOTH
def test_a_loaded_state_continues_with_the_same_bits(dtype: torch.dtype) -> None:
    model = make_model(dtype)
    optimizer = Optimizer(model, CONFIG)
    backward(model, 0)
    optimizer.step(0.1, where="test")
    saved = copies(optimizer)
    names = [n for n, _ in model.named_parameters()]
    kinds = ("master", "adam.step", "adam.exp_avg", "adam.exp_avg_sq")
    assert saved.keys() == {f"{kind}.{name}" for kind in kinds for name in names}
    other_model = make_model(dtype)
    addresses = [p.data_ptr() for p in other_model.parameters()]
    other = Optimizer(other_model, CONFIG)
    backward(other_model, 9)  # belongs to another state
    other.load_state(saved)
    assert [p.data_ptr() for p in other_model.parameters()] == addresses
    for m, o in ((model, optimizer), (other_model, other)):
        backward(m, 1)
        o.step(0.1, where="test")
    assert_same(copies(other), copies(optimizer))


def test_a_gradient_may_be_added_in_float32_beside_autograd() -> None:
    model = make_model(torch.bfloat16)
    optimizer = Optimizer(model, CONFIG)
    weight = model[2].weight
    backward(model, 0)  # whichever comes first, autograd or the sum, makes the buffer
    optimizer.clear_gradients()
    total = optimizer.float32_grad(weight)
    assert total is not None
    assert total.dtype == torch.float32
    total.add_(1e-4)
    weight.backward(torch.ones_like(weight))
    expected = torch.full_like(total, 1.0001)  # bfloat16 would round it to 1
    assert torch.equal(optimizer.masters["2.weight"].grad, expected)
    assert weight.grad is None
    norm = optimizer.step(0.1, where="test")
    assert norm == pytest.approx(1.0001 * 21**0.5, rel=1e-6)
    assert not total.any(), "the step clears the sum"


def test_float32_weights_leave_their_gradients_to_autograd() -> None:
    model = make_model(torch.float32)
    optimizer = Optimizer(model, CONFIG)
    assert optimizer.float32_grad(model[2].weight) is None
    assert optimizer.step(0.1, where="test") == 0.0


@BOTH
def test_the_bytes_of_a_parameter_are_those_of_the_tensors_held(dtype: torch.dtype) -> None:
    model = nn.Linear(64, 64, bias=False).to(dtype)
    optimizer = Optimizer(model, CONFIG)
    model.weight.backward(torch.ones_like(model.weight))
    grad = optimizer.masters["weight"].grad
    assert grad is not None
    held = {grad.data_ptr(): grad}
    optimizer.step(0.1, where="test")
    held |= {v.data_ptr(): v for k, v in optimizer.state().items() if ".step." not in k}
    held.pop(model.weight.data_ptr(), None)
    size = sum(v.numel() * v.element_size() for v in held.values())
    assert size == Optimizer.bytes_per_parameter(dtype) * model.weight.numel()


def test_released_gradients_come_back_with_the_next_backward_pass() -> None:
    norms = []
    for is_released in (False, True):
        model = make_model(torch.bfloat16)
        optimizer = Optimizer(model, CONFIG)
        for seed in range(2):
            backward(model, seed)
            norms.append(optimizer.step(0.1, where="test"))
            if is_released:
                optimizer.release_gradients()
                assert all(m.grad is None for m in optimizer.masters.values())
    assert norms[:2] == norms[2:]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_optimiser_that_nobody_names_gives_its_states_back(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 4).to(dtype)
    optimizer = Optimizer(model, TrainConfig())
    model(torch.ones(1, 4, dtype=dtype)).sum().backward()
    optimizer.step(1e-3, where="step 1")
    masters = [weakref.ref(master) for master in optimizer.masters.values()]
    parameters = [weakref.ref(parameter) for parameter in model.parameters()]

    del optimizer
    gc.collect()
    if dtype == torch.bfloat16:
        assert [ref() for ref in masters] == [None, None]

    del model
    gc.collect()
    assert [ref() for ref in parameters] == [None, None]
