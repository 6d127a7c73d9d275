import pytest
import torch

norm = pytest.importorskip("pellucid.kernels.norm")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter cuts to bfloat16 where hardware rounds.
HALF, HALF_STEP = (torch.bfloat16, 2**-8) if DEVICE == "cuda" else (torch.float16, 2**-11)


def _inputs(num_rows=5, width=24, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, width, generator=g)
    delta = torch.randn(num_rows, width, generator=g).to(dtype)
    weight = torch.randn(width, generator=g).to(dtype)
    return x.to(DEVICE), delta.to(DEVICE), weight.to(DEVICE)


def _reference(x, delta, weight, eps):
    total = x if delta is None else x + delta
    return total, total * torch.rsqrt(total.square().mean(-1, keepdim=True) + eps) * weight


def _gradients(function, inputs, seeds):
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in inputs]
    outputs = function(*leaves, 1e-5)
    loss = sum((o * s).sum() for o, s in zip(outputs, seeds, strict=True) if s is not None)
    loss.backward()
    return [None if t is None else t.grad for t in leaves]


def test_sum_and_norm_are_those_of_plain_arithmetic():
    x, delta, weight = _inputs()
    total, normed = norm.add_norm(x, delta, weight, 1e-5)
    expected_total, expected = _reference(x.double(), delta.double(), weight.double(), 1e-5)
    torch.testing.assert_close(total.double(), expected_total, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(normed.double(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_delta_the_sum_is_x_itself():
    x, _, weight = _inputs()
    total, normed = norm.add_norm(x, None, weight, 1e-5)
    assert total is x
    torch.testing.assert_close(normed, _reference(x, None, weight, 1e-5)[1])


def test_half_precision_is_rounded_once():
    x, delta, weight = _inputs(dtype=HALF)
    total, normed = norm.add_norm(x, delta, weight, 1e-5)
    expected = _reference(x, delta.float(), weight.float(), 1e-5)
    assert (total.dtype, normed.dtype) == (torch.float32, HALF)
    torch.testing.assert_close(total, expected[0], rtol=0, atol=0)
    # Half a unit in the last place, no more: a second rounding would show.
    torch.testing.assert_close(normed.float(), expected[1], rtol=HALF_STEP, atol=1e-6)


@pytest.mark.parametrize("used", ["both", "sum", "norm"])
@pytest.mark.parametrize("has_delta", [True, False])
def test_gradients_are_those_of_plain_arithmetic(used, has_delta):
    x, delta, weight = _inputs()
    inputs = (x, delta if has_delta else None, weight)
    g = torch.Generator().manual_seed(1)
    seeds = [torch.randn(x.shape, generator=g).to(DEVICE) for _ in range(2)]
    seeds = [seeds[0] if used != "norm" else None, seeds[1] if used != "sum" else None]
    got = _gradients(norm.add_norm, inputs, seeds)
    wide = [None if t is None else t.double() for t in inputs]
    expected = _gradients(_reference, wide, seeds)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_gradients_come_in_the_dtype_of_what_they_are_for():
    x, delta, weight = _inputs(dtype=HALF)
    grads = _gradients(norm.add_norm, (x, delta, weight), [torch.ones_like(x)] * 2)
    assert [g.dtype for g in grads] == [torch.float32, HALF, HALF]
    torch.testing.assert_close(grads[1], grads[0].to(HALF), rtol=0, atol=0)


def test_more_rows_than_programs_still_sum_to_the_weight_s_gradient(monkeypatch):
    monkeypatch.setattr(norm, "PARTIAL_ROWS", 3)
    x, delta, weight = _inputs(num_rows=8)
    seeds = [None, torch.ones_like(x)]
    got = _gradients(norm.add_norm, (x, delta, weight), seeds)
    expected = _gradients(_reference, (x, delta, weight), seeds)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_row_has_the_same_bits_whatever_rows_surround_it():
    x, delta, weight = _inputs(num_rows=7)
    all_rows = norm.add_norm(x, delta, weight, 1e-5)
    one_row = norm.add_norm(x[4:5], delta[4:5], weight, 1e-5)
    for whole, part in zip(all_rows, one_row, strict=True):
        assert torch.equal(whole[4:5], part)


def test_no_rows_are_no_trouble():
    x, delta, weight = _inputs(num_rows=0)
    total, normed = norm.add_norm(x, delta, weight, 1e-5)
    assert total.shape == normed.shape == (0, 24)
    grads = _gradients(norm.add_norm, (x, delta, weight), [torch.ones_like(x)] * 2)
    assert grads[2].abs().sum() == 0
