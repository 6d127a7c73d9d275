"""The output head on a device at the shapes of Qwen2.5, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.algo.head import default_keep_bytes, linear_logprobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SHAPES = pytest.mark.parametrize(("width", "vocab"), [(896, 151_936), (3584, 152_064)])
ROWS, CHUNK = 777, 256
TEMPERATURE = 0.8


def inputs(width: int, vocab: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, ...]:
    """Hidden and weight giving logits of deviation 3, targets of all probabilities, coefficients
    of which some are 0.
    """
    generator = torch.Generator("cuda").manual_seed(1)
    settings: dict[str, Any] = {"device": "cuda", "generator": generator}
    hidden = torch.randn(ROWS, width, **settings).to(dtype)
    weight = (torch.randn(vocab, width, **settings) * (3 / width**0.5)).to(dtype)
    targets = torch.randint(0, vocab, (ROWS,), **settings)
    likely = (hidden[::2] @ weight.t()).argmax(dim=1)
    targets[::2] = likely
    coefficients = torch.randn(ROWS, **settings)
    coefficients[::5] = 0.0
    return hidden.requires_grad_(), weight.requires_grad_(), targets, coefficients


def run(
    hidden: Tensor, weight: Tensor, targets: Tensor, coefficients: Tensor, **settings: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Log-probabilities, entropies and both gradients."""
    logprobs, entropy = linear_logprobs(
        hidden, weight, targets, temperature=TEMPERATURE, chunk=CHUNK, **settings
    )
    hidden.grad = weight.grad = None
    (coefficients * logprobs).sum().backward()
    assert hidden.grad is not None
    return logprobs.detach(), entropy, hidden.grad, weight.grad


def relative(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


@SHAPES
def test_values_and_gradients_are_those_of_float64(width: int, vocab: int) -> None:
    hidden, weight, targets, coefficients = inputs(width, vocab)
    logprobs, entropy, grad_hidden, grad_weight = run(hidden, weight, targets, coefficients)
    h, w = hidden.detach().double(), weight.detach().double()
    every = (h @ w.t()).div_(TEMPERATURE).log_softmax(dim=1)
    probabilities = every.exp()
    error = (logprobs.double() - every.gather(1, targets.unsqueeze(1)).squeeze(1)).abs()
    # float32 sums of `width` products, whatever their order; the kernel's own share is below.
    # Logits are float32 sums over the width.
    assert error.mean() < 1.2e-8 * width
    assert error.max() < 6e-8 * width
    exact_entropy = -(probabilities * every).sum(dim=1)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=1e-5, atol=5e-5)
    scale = (coefficients.double() / TEMPERATURE).unsqueeze(1)
    grad = probabilities.mul_(-scale)
    grad[torch.arange(ROWS, device="cuda"), targets] += scale.squeeze(1)
    assert grad_weight is not None
    assert relative(grad_hidden, grad @ w) < 1e-2
    assert relative(grad_weight, grad.t() @ h) < 1e-2
    assert (grad_hidden[::5] == 0).all()


@pytest.mark.parametrize("vocab", [151_936, 152_064])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_kernels_add_less_than_1e_5(vocab: int, temperature: float) -> None:
    from pellucid.kernels.logsumexp import read_rows, write_gradient

    logits = 5 * torch.randn(300, vocab, device="cuda")
    targets = torch.randint(0, vocab, (300,), device="cuda")
    stats = {n: torch.empty(300, device="cuda") for n in ("logprobs", "entropy")}
    normaliser = {n: torch.empty(300, device="cuda") for n in ("peak", "log2_sum")}
    read_rows(logits, targets, temperature, **stats, **normaliser)
    every = (logits.double() / temperature).log_softmax(dim=1)
    exact = every.gather(1, targets.unsqueeze(1)).squeeze(1)
    entropy = -(every.exp() * every).sum(dim=1)
    assert (stats["logprobs"].double() - exact).abs().max() < 1e-5
    assert (stats["entropy"].double() - entropy).abs().max() < 1e-5
    grad = torch.randn(300, device="cuda")
    want = -every.exp()
    want[torch.arange(300, device="cuda"), targets] += 1.0
    want *= grad.double().unsqueeze(1) / temperature
    for dtype, rounding in ((torch.float32, 1e-5), (torch.bfloat16, 2**-8)):
        out = torch.full_like(logits, float("nan"), dtype=dtype)
        write_gradient(logits, targets, temperature, **normaliser, grad=grad, out=out)
        torch.testing.assert_close(out.double(), want, rtol=rounding, atol=1e-9)


@SHAPES
def test_kept_and_recomputed_logits_give_the_same_bits(width: int, vocab: int) -> None:
    tensors = inputs(width, vocab)
    none = run(*tensors, keep_bytes=0)
    some = run(*tensors, keep_bytes=2 * CHUNK * vocab * 4)
    every = run(*tensors, keep_bytes=1 << 40)
    for other in (some, every):
        for a, b in zip(none, other, strict=True):
            assert a is not None
            assert torch.equal(a, b)


@SHAPES
def test_a_given_sum_receives_what_is_returned_otherwise(width: int, vocab: int) -> None:
    tensors = inputs(width, vocab)
    *_, returned = run(*tensors)
    total = torch.full((vocab, width), 0.5, device="cuda")
    *_, none = run(*tensors, weight_grad=total)
    assert none is None
    assert returned is not None
    # The returned gradient is rounded to bfloat16; the sum starts at 0.5, which costs 2^-25.
    torch.testing.assert_close(total - 0.5, returned.float(), rtol=2**-8, atol=1e-6)
    exact = torch.zeros(vocab, width, device="cuda")
    run(*tensors, weight_grad=exact)
    assert torch.equal(exact.to(torch.bfloat16), returned)


def test_float32_weights_keep_float32_gradients() -> None:
    hidden, weight, targets, coefficients = inputs(64, 5003, torch.float32)
    _, _, grad_hidden, grad_weight = run(hidden, weight, targets, coefficients)
    wide = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    every = (wide[0] @ wide[1].t() / TEMPERATURE).log_softmax(dim=1)
    (every.gather(1, targets.unsqueeze(1)).squeeze(1) * coefficients).sum().backward()
    assert grad_weight is not None
    for ours, exact in ((grad_hidden, wide[0].grad), (grad_weight, wide[1].grad)):
        assert exact is not None
        assert relative(ours, exact) < 1e-5


def test_nothing_waits_for_the_device() -> None:
    tensors = inputs(896, 151_936)
    total = torch.zeros(151_936, 896, device="cuda")
    run(*tensors, weight_grad=total)  # compiles kernels, opens libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(*tensors, weight_grad=total)
        run(*tensors, keep_bytes=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_logits_beyond_two_billion_are_reached() -> None:
    from pellucid.kernels.logsumexp import read_rows, write_gradient

    rows, vocab = 15_000, 151_936
    if torch.cuda.mem_get_info()[0] < 30 << 30:
        pytest.skip("needs 30 GiB")
    logits = torch.zeros(rows, vocab, device="cuda")
    logits[-1] = torch.randn(vocab, device="cuda")
    targets = torch.full((rows,), vocab - 1, device="cuda")
    names = ("logprobs", "entropy", "peak", "log2_sum")
    stats = {n: torch.empty(rows, device="cuda") for n in names}
    read_rows(logits, targets, 1.0, **stats)
    exact = logits[-1].double().log_softmax(dim=0)
    assert (stats["logprobs"][-1].double() - exact[-1]).abs() < 1e-5
    assert (stats["logprobs"][:-1] + torch.tensor(vocab).log().item()).abs().max() < 1e-5
    out = torch.empty(rows, vocab, dtype=torch.bfloat16, device="cuda")
    write_gradient(
        logits,
        targets,
        1.0,
        peak=stats["peak"],
        log2_sum=stats["log2_sum"],
        grad=torch.ones(rows, device="cuda"),
        out=out,
    )
    want = -exact.exp()
    want[-1] += 1.0
    torch.testing.assert_close(out[-1].double(), want, rtol=2**-8, atol=1e-9)


def test_what_is_kept_by_default_leaves_three_quarters_of_the_free_memory() -> None:
    free = torch.cuda.mem_get_info()[0]
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    got = default_keep_bytes(torch.device("cuda"))
    assert 0 < got <= min(16 << 30, (free + cached) // 4 + (1 << 20))
