import pytest
import torch
import torch.nn.functional as F

swiglu = pytest.importorskip("pellucid.kernels.swiglu")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter cuts to bfloat16 where hardware rounds.
HALF, HALF_STEP = (torch.bfloat16, 2**-8) if DEVICE == "cuda" else (torch.float16, 2**-11)


def _reference(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def _input(num_rows=3, width=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, 2 * width, generator=g) * 3).to(DEVICE)


def test_value_and_gradient_are_those_of_plain_arithmetic():
    ours = _input().requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    seed = _input(seed=1)[:, :20]
    got, expected = swiglu.swiglu(ours), _reference(theirs)
    got.backward(seed)
    expected.backward(seed.double())
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)


def test_more_columns_than_a_block_are_all_computed(monkeypatch):
    monkeypatch.setattr(swiglu, "BLOCK", 8)
    gate_up = _input()
    torch.testing.assert_close(swiglu.swiglu(gate_up), _reference(gate_up), rtol=1e-5, atol=1e-6)


def test_half_precision_is_rounded_once():
    gate_up = _input().to(HALF)
    got = swiglu.swiglu(gate_up)
    assert got.dtype == HALF
    torch.testing.assert_close(got.float(), _reference(gate_up.float()), rtol=HALF_STEP, atol=1e-6)


def test_a_view_of_a_wider_matrix_is_read_rightly():
    wide = _input(width=30)
    gate_up = wide[:, 4:44]
    torch.testing.assert_close(swiglu.swiglu(gate_up), _reference(gate_up), rtol=1e-5, atol=1e-6)


def test_no_rows_are_no_trouble():
    gate_up = _input(num_rows=0).requires_grad_()
    out = swiglu.swiglu(gate_up)
    out.sum().backward()
    assert out.shape == (0, 20)
    assert gate_up.grad.shape == (0, 40)
