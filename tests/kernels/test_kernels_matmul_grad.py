"""Where the gradient of a product's weight goes: into a float32 sum, or to autograd."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pellucid.config import TrainConfig
from pellucid.train.optimizer import Optimizer

matmul = pytest.importorskip("pellucid.kernels.matmul")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter's numpy has no other
EXACT_OR_NOT = pytest.mark.parametrize("product", [matmul.matmul, matmul.fast_matmul])


class Layer(nn.Module):
    def __init__(self, dtype=HALF):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(48, 32, generator=g).to(DEVICE, dtype))
        self.bias = nn.Parameter(torch.randn(48, generator=g).to(DEVICE, dtype))


def numbers(seed, rows, columns, dtype=HALF):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=g).to(DEVICE, dtype)


@EXACT_OR_NOT
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_gradients_of_many_packs_are_added_without_rounding(product, is_checkpointed):
    layer = Layer()
    optimizer = Optimizer(layer, TrainConfig())
    expected = torch.zeros(48, 32, dtype=torch.float64, device=DEVICE)
    biases = torch.zeros(48, dtype=torch.float64, device=DEVICE)
    for seed in range(5):
        x, d_out = numbers(seed, 20, 32).requires_grad_(), numbers(seed + 9, 20, 48)
        args = (x, layer.weight, layer.bias)
        out = checkpoint(product, *args, use_reentrant=False) if is_checkpointed else product(*args)
        out.backward(d_out)
        expected += d_out.double().t() @ x.detach().double()
        biases += d_out.double().sum(0)
        assert layer.weight.grad is None
        torch.testing.assert_close(
            x.grad.double(), d_out.double() @ layer.weight.double(), rtol=2e-2, atol=2e-2
        )
    sums = optimizer.masters
    torch.testing.assert_close(sums["weight"].grad.double(), expected, rtol=1e-5, atol=1e-4)
    # Autograd's, rounded before they are added: five numbers of about ten, bfloat16 has 8 bits.
    torch.testing.assert_close(sums["bias"].grad.double(), biases, rtol=0, atol=0.2)
    norm = optimizer.step(1e-3, where="test")
    assert norm == pytest.approx(
        (expected.norm() ** 2 + biases.norm() ** 2).sqrt().item(), rel=1e-2
    )
    assert not sums["weight"].grad.any()


@EXACT_OR_NOT
def test_without_an_optimizer_the_gradient_is_autograds(product):
    layer = Layer()
    x, d_out = numbers(1, 20, 32), numbers(2, 20, 48)
    product(x, layer.weight).backward(d_out)
    first = layer.weight.grad.clone()
    optimizer = Optimizer(layer, TrainConfig())
    del optimizer  # what it leaves on the weights must not keep it, nor swallow a gradient
    layer.weight.grad = None
    product(x, layer.weight).backward(d_out)
    assert torch.equal(layer.weight.grad, first)
    torch.testing.assert_close(
        first.double(), d_out.double().t() @ x.double(), rtol=2e-2, atol=2e-2
    )


@EXACT_OR_NOT
def test_the_gradients_of_float32_weights_are_autograds(product):
    layer = Layer(torch.float32)
    optimizer = Optimizer(layer, TrainConfig())
    x, d_out = numbers(1, 20, 32, torch.float32), numbers(2, 20, 48, torch.float32)
    product(x, layer.weight).backward(d_out)
    torch.testing.assert_close(layer.weight.grad, d_out.t() @ x, rtol=1e-5, atol=1e-4)
    assert optimizer.masters["weight"].grad is layer.weight.grad


@EXACT_OR_NOT
def test_the_younger_of_two_optimizers_gets_the_gradient(product):
    layer = Layer()
    elder, younger = Optimizer(layer, TrainConfig()), Optimizer(layer, TrainConfig())
    product(numbers(1, 20, 32), layer.weight).backward(numbers(2, 20, 48))
    assert elder.masters["weight"].grad is None
    assert younger.masters["weight"].grad.any()
    assert elder.step(1e-3, where="test") == 0.0


@EXACT_OR_NOT
def test_a_step_sees_what_a_product_alone_has_brought(product):
    layer = Layer()
    optimizer = Optimizer(layer, TrainConfig())
    before = optimizer.masters["weight"].detach().clone()
    x, d_out = numbers(1, 20, 32), numbers(2, 20, 48)
    product(x, layer.weight).backward(d_out)
    norm = (d_out.double().t() @ x.double()).norm().item()
    assert optimizer.step(1e-3, where="test") == pytest.approx(norm, rel=1e-4)
    assert not torch.equal(optimizer.masters["weight"], before)
