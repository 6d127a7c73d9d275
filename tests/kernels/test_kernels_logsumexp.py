"""The kernels beside the output head's products, in Triton's interpreter against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from pellucid.kernels.logsumexp import read_rows, write_gradient

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def read(logits: Tensor, targets: Tensor, temperature: float) -> dict[str, Tensor]:
    """Log-probabilities, entropies and normaliser, each in a buffer full of NaN before."""
    names = ("logprobs", "entropy", "peak", "log2_sum")
    out = {n: torch.full(targets.shape, float("nan"), device=DEVICE) for n in names}
    read_rows(logits, targets, temperature, **out)
    return out


def gradient(
    logits: Tensor, targets: Tensor, temperature: float, grad: Tensor, dtype: torch.dtype
) -> Tensor:
    stats = read(logits, targets, temperature)
    out = torch.full(logits.shape, float("nan"), dtype=dtype, device=DEVICE)
    write_gradient(
        logits,
        targets,
        temperature,
        peak=stats["peak"],
        log2_sum=stats["log2_sum"],
        grad=grad,
        out=out,
    )
    return out


def make(rows: int, vocab: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 8 * torch.randn(rows, vocab, generator=generator)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    grad = torch.randn(rows, generator=generator)
    return logits.to(DEVICE), targets.to(DEVICE), grad.to(DEVICE)


def exact(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, entropy and probabilities in float64."""
    every = (logits.double() / temperature).log_softmax(dim=1)
    entropy = -(every.exp() * every).sum(dim=1)
    return every.gather(1, targets.unsqueeze(1)).squeeze(1), entropy, every.exp()


@pytest.mark.parametrize("temperature", [1.0, 0.6, 3.0])
@pytest.mark.parametrize("vocab", [1, 17, 2048, 5003])
def test_a_row_is_read_as_float64_reads_it(vocab: int, temperature: float) -> None:
    logits, targets, _ = make(5, vocab)
    got = read(logits, targets, temperature)
    logprobs, entropy, _ = exact(logits, targets, temperature)
    torch.testing.assert_close(got["logprobs"].double(), logprobs, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(got["entropy"].double(), entropy, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_the_order_of_the_logits_does_not_matter(order: str) -> None:
    """Rising rows move the running peak at every step, falling ones never."""
    logits, targets, _ = make(2, 5003)
    logits = logits.sort(dim=1, descending=order == "falling").values
    got = read(logits, targets, 1.0)
    logprobs, entropy, _ = exact(logits, targets, 1.0)
    torch.testing.assert_close(got["logprobs"].double(), logprobs, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(got["entropy"].double(), entropy, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("vocab", [3, 5003])
def test_the_gradient_is_one_hot_minus_probability(
    vocab: int, dtype: torch.dtype, temperature: float
) -> None:
    logits, targets, grad = make(4, vocab)
    grad[1] = 0.0
    got = gradient(logits, targets, temperature, grad, dtype)
    _, _, probabilities = exact(logits, targets, temperature)
    one_hot = torch.nn.functional.one_hot(targets, vocab)
    want = (one_hot - probabilities) * (grad.double() / temperature).unsqueeze(1)
    # The interpreter cuts bfloat16 off where the device rounds to the nearest.
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(got.double(), want, rtol=rounding, atol=1e-7)
    assert (got[1] == 0).all()


def test_huge_logits_stay_exact() -> None:
    logits = torch.tensor([[1000.0, -1000.0, 999.0], [-3000.0, -3000.0, -3000.0]], device=DEVICE)
    targets = torch.tensor([1, 2], device=DEVICE)
    got = read(logits, targets, 1.0)
    logprobs, entropy, probabilities = exact(logits, targets, 1.0)
    torch.testing.assert_close(got["logprobs"].double(), logprobs, rtol=1e-6, atol=0)
    torch.testing.assert_close(got["entropy"].double(), entropy, rtol=1e-5, atol=0)
    grad = torch.ones(2, device=DEVICE)
    gradients = gradient(logits, targets, 1.0, grad, torch.float32).double()
    one_hot = torch.nn.functional.one_hot(targets, 3)
    torch.testing.assert_close(gradients, one_hot - probabilities, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, as intended
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_shows_in_its_row_only(bad: float) -> None:
    logits, targets, _ = make(3, 3000)
    targets[:] = 0
    logits[1, 2500] = bad
    got = read(logits, targets, 1.0)["logprobs"].isfinite()
    assert got.tolist() == [True, False, True]


def test_a_target_outside_the_vocabulary_is_not_read() -> None:
    logits, targets, _ = make(2, 10)
    targets[0], targets[1] = 10, -1
    assert read(logits, targets, 1.0)["logprobs"].isnan().all()


def test_no_rows_are_no_work() -> None:
    logits, targets, _ = make(0, 10)
    assert read(logits, targets, 1.0)["logprobs"].shape == (0,)
    grad = torch.empty(0, device=DEVICE)
    assert gradient(logits, targets, 1.0, grad, torch.float32).shape == (0, 10)
