"""The fused output head against the plain one: values, gradients, precision, memory."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.algo import head
from pellucid.algo.head import (
    default_chunk,
    default_keep_bytes,
    float32_logits,
    linear_logprobs,
)
from pellucid.kernels.available import triton_ready


def plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """All logits at once; autograd does the rest."""
    logprobs = ((hidden @ weight.t()) / temperature).log_softmax(dim=1)
    entropy = -(logprobs.exp() * logprobs).sum(dim=1)
    return logprobs.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


def inputs(
    tokens: int, width: int, vocab: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    coefficients = torch.randn(tokens, generator=generator)
    return hidden, weight, targets, coefficients


@pytest.fixture(params=["plain", "fused", "exact"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way through torch, and those through the trainer's and the sampler's kernels in Triton's
    interpreter."""
    if request.param != "plain":
        if not triton_ready(torch.device("cpu"), can_interpret=True):
            pytest.skip("Triton's interpreter is off where there is a CUDA device")
        monkeypatch.setattr(head, "triton_ready", lambda device: True)
    if request.param == "exact":
        exactly = functools.partial(linear_logprobs, exact=True)
        monkeypatch.setitem(globals(), "linear_logprobs", exactly)
    return request.param


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_gradient_is_the_derivative(chunk: int, temperature: float) -> None:
    hidden, weight, targets, _ = inputs(7, 4, 11, torch.float64)

    def logprobs(h: Tensor, w: Tensor) -> Tensor:
        return linear_logprobs(h, w, targets, temperature=temperature, chunk=chunk)[0]

    assert torch.autograd.gradcheck(logprobs, (hidden, weight))


@pytest.mark.parametrize("chunk", [1, 5, 64, None])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.usefixtures("path")
def test_float32_equals_the_plain_version(chunk: int | None, temperature: float) -> None:
    hidden, weight, targets, coefficients = inputs(37, 16, 50, torch.float32)
    logprobs, entropy = linear_logprobs(
        hidden, weight, targets, temperature=temperature, chunk=chunk
    )
    expected, expected_entropy = plain(hidden, weight, targets, temperature)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((coefficients * logprobs).sum(), (hidden, weight))
    want = torch.autograd.grad((coefficients * expected).sum(), (hidden, weight))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("path")
def test_bfloat16_weights_give_float32_logprobs_and_gradients_in_their_own_type() -> None:
    hidden, weight, targets, coefficients = inputs(64, 32, 200, torch.bfloat16)
    logprobs, entropy = linear_logprobs(hidden, weight, targets, chunk=10)
    assert logprobs.dtype == entropy.dtype == torch.float32
    wide = [t.detach().float().requires_grad_() for t in (hidden, weight)]
    expected, expected_entropy = plain(wide[0], wide[1], targets, 1.0)
    # No rounding to bfloat16 between the weights and the log-probability.
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((coefficients * logprobs).sum(), (hidden, weight))
    want = torch.autograd.grad((coefficients * expected).sum(), wide)
    for ours, exact in zip(got, want, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - exact).norm() < 0.01 * exact.norm()


def gradients(dtype: torch.dtype, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities and both gradients of 20 rows in parts of at most 8."""
    hidden, weight, targets, coefficients = inputs(20, 16, 50, dtype)
    logprobs, _ = linear_logprobs(hidden, weight, targets, temperature=0.7, chunk=8, **settings)
    grads = torch.autograd.grad((coefficients * logprobs).sum(), (hidden, weight))
    return logprobs.detach(), *grads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_kept_and_logits_computed_again_give_the_same_gradients(
    path: str, dtype: torch.dtype
) -> None:
    none = gradients(dtype, keep_bytes=0)
    some = gradients(dtype, keep_bytes=2 * 8 * 50 * 4)
    every = gradients(dtype, keep_bytes=1 << 30)
    for other in (some, every):
        for a, b in zip(none, other, strict=True):
            if path != "plain":
                assert torch.equal(a, b)
            else:  # exp of a log-softmax is not softmax to the last bit
                torch.testing.assert_close(a, b, rtol=2**-7, atol=1e-6)


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("keep_bytes", "again"), [(0, 3), (2 * 1600, 1), (1 << 30, 0)])
def test_kept_logits_save_the_fourth_product(
    path: str, keep_bytes: int, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each of three parts; those of the exact way are made by the sampler's kernel."""
    sampled = 0
    if path == "exact":
        from pellucid.kernels import head_sample, head_stats

        def count(*args: Any, **kwargs: Any) -> None:
            nonlocal sampled
            sampled += 1
            make(*args, **kwargs)

        make = head_stats.head_stats
        for module in (head_sample, head_stats):
            monkeypatch.setattr(module, "head_stats", count)
    with Products() as seen:
        gradients(torch.float32, keep_bytes=keep_bytes)
    assert seen.count + sampled == 9 + again
    assert sampled == (3 + again if path == "exact" else 0)


@pytest.mark.usefixtures("path")
def test_nothing_is_kept_where_nothing_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets, _ = inputs(20, 16, 50, torch.float32)
    plans = []
    make = head._plan
    monkeypatch.setattr(head, "_plan", lambda *args: plans.append(make(*args)) or plans[-1])
    with torch.no_grad():
        linear_logprobs(hidden, weight, targets, chunk=8, keep_bytes=1 << 30)
    linear_logprobs(hidden, weight, targets, chunk=8, keep_bytes=1 << 30)
    assert [p.num_kept for p in plans] == [0, 3]


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weight_gradient_may_go_straight_into_a_float32_sum(dtype: torch.dtype) -> None:
    _, hidden_grad, weight_grad = gradients(dtype)
    total = torch.full((50, 16), 2.0)
    hidden, weight, targets, coefficients = inputs(20, 16, 50, dtype)
    logprobs, _ = linear_logprobs(
        hidden, weight, targets, temperature=0.7, chunk=8, weight_grad=total
    )
    (coefficients * logprobs).sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, hidden_grad)
    # What is returned is rounded to the weights' type, the sum is not.
    rounding = 2**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(total - 2.0, weight_grad.float(), rtol=rounding, atol=1e-5)


def test_what_is_kept_by_default_is_one_chunk_on_a_cpu() -> None:
    assert default_keep_bytes(torch.device("cpu")) == 256 << 20


def test_many_small_chunks_do_not_lose_bits_of_the_weight_gradient() -> None:
    """A bfloat16 sum over 512 chunks would stall once it is 256 times larger than its terms."""
    hidden = torch.ones(512, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(512, dtype=torch.int64)
    linear_logprobs(hidden, weight, targets, chunk=1)[0].sum().backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [256.0, -256.0]


@pytest.mark.usefixtures("path")
def test_the_entropy_is_that_of_the_tempered_distribution_and_carries_no_gradient() -> None:
    hidden, weight, targets, _ = inputs(3, 4, 8, torch.float32)
    uniform = torch.zeros_like(weight, requires_grad=True)
    _, entropy = linear_logprobs(hidden, uniform, targets)
    torch.testing.assert_close(entropy, torch.full((3,), 8.0).log())
    assert not entropy.requires_grad
    _, hot = linear_logprobs(hidden, weight, targets, temperature=2.0)
    _, cold = linear_logprobs(hidden, weight, targets, temperature=0.5)
    assert (hot > cold).all()


@pytest.mark.usefixtures("path")
def test_huge_logits_stay_finite() -> None:
    hidden = torch.full((2, 4), 250.0, requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.5]]).expand(3, 4).clone().requires_grad_()
    logprobs, entropy = linear_logprobs(hidden, weight, torch.tensor([0, 1]))
    logprobs.sum().backward()
    assert logprobs.tolist() == [0.0, -2000.0]
    assert entropy.tolist() == [0.0, 0.0]
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_costs_no_gradient_and_does_not_disturb_the_other(frozen: str) -> None:
    hidden, weight, targets, coefficients = inputs(9, 4, 6, torch.float32)
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    active = weight if frozen == "hidden" else hidden
    fused = linear_logprobs(hidden, weight, targets, chunk=4)[0]
    (got,) = torch.autograd.grad((coefficients * fused).sum(), active)
    (want,) = torch.autograd.grad(
        (coefficients * plain(hidden, weight, targets, 1.0)[0]).sum(), active
    )
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("path")
def test_no_tokens_give_no_logprobs_and_zero_gradients() -> None:
    hidden, weight, targets, _ = inputs(0, 4, 6, torch.float32)
    logprobs, entropy = linear_logprobs(hidden, weight, targets)
    assert logprobs.shape == entropy.shape == (0,)
    logprobs.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros_like(weight))


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def test_the_logits_of_all_tokens_never_exist() -> None:
    hidden, weight, targets, coefficients = inputs(256, 8, 300, torch.float32)
    with Largest() as largest:
        logprobs, _ = linear_logprobs(hidden, weight, targets, chunk=16)
        (coefficients * logprobs).sum().backward()
    assert largest.numel == 16 * 300
    with Largest() as largest:
        plain(hidden, weight, targets, 1.0)
    assert largest.numel == 256 * 300


def test_the_default_chunk_holds_a_fixed_number_of_bytes() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert default_chunk(49_152, cpu) * 49_152 * 4 <= 256 << 20
    assert default_chunk(10**9, cpu) == 16
    assert 1024 <= default_chunk(151_936, cuda) <= 4096


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("exact", [False, True])
def test_on_cuda_bfloat16_equals_the_plain_float32_version_without_waiting(exact: bool) -> None:
    hidden, weight, targets, coefficients = inputs(700, 256, 3001, torch.bfloat16)
    scaled = (weight.detach() / 16).requires_grad_()
    wide = [t.detach().float().requires_grad_() for t in (hidden, scaled)]
    expected, _ = plain(wide[0], wide[1], targets, 0.9)
    want = torch.autograd.grad((coefficients * expected).sum(), wide)
    device = [t.detach().cuda() for t in (hidden, scaled, targets, coefficients)]
    on_gpu = [t.requires_grad_() for t in device[:2]]
    linear_logprobs(on_gpu[0], on_gpu[1], device[2], chunk=128, exact=exact)  # library handles
    torch.cuda.set_sync_debug_mode("error")
    try:
        logprobs, _ = linear_logprobs(
            *on_gpu,
            device[2],
            temperature=0.9,
            chunk=128,
            keep_bytes=2 * 128 * 3001 * 4,
            exact=exact,
        )
        got = torch.autograd.grad((device[3] * logprobs).sum(), on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(logprobs.cpu(), expected, rtol=1e-4, atol=1e-4)
    for ours, exact in zip(got, want, strict=True):
        assert (ours.cpu().float() - exact).norm() < 0.01 * exact.norm()


def test_float32_logits_do_not_round_to_bfloat16() -> None:
    hidden, weight, _, _ = inputs(4, 64, 5, torch.bfloat16)
    with torch.no_grad():
        got = float32_logits(hidden, weight)
        exact = hidden.double() @ weight.double().t()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-4)
