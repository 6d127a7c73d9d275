"""Merging two softmaxes gives the softmax over the keys of both."""

import pytest
import torch

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("width", [8, 24])
def test_the_merge_is_the_softmax_over_all_keys(width: int) -> None:
    from pellucid.kernels.merge_softmax import merge_softmax

    generator = torch.Generator().manual_seed(0)
    tokens, first, heads, keys = 11, 4, 3, 6
    scores = 4 * torch.randn(heads, tokens, keys, generator=generator)
    values = torch.randn(heads, keys, width, generator=generator)

    def attend(part: slice, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.einsum("htk,hkw->thw", scores[:, rows, part].softmax(-1), values[:, part])
        lse = scores[:, rows, part].logsumexp(-1)
        return out.contiguous().to(DEVICE), lse.contiguous().to(DEVICE)

    every, own = slice(None), slice(first, None)
    out, lse = attend(slice(0, 4), every)
    before = out[:first].clone(), lse[:, :first].clone()
    merge_softmax(out, lse, *attend(slice(4, 6), own), first)
    expected, expected_lse = attend(every, every)
    assert torch.equal(out[:first], before[0])
    assert torch.equal(lse[:, :first], before[1])
    torch.testing.assert_close(out[own], expected[own], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse[:, own], expected_lse[:, own], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("infinity", [float("inf"), float("-inf")])
def test_rows_that_saw_no_other_key_stay_as_they_are(infinity: float) -> None:
    from pellucid.kernels.merge_softmax import merge_softmax

    out, lse = torch.randn(5, 2, 8, device=DEVICE), torch.randn(2, 5, device=DEVICE)
    before = out.clone(), lse.clone()
    other = torch.zeros(3, 2, 8, device=DEVICE)
    merge_softmax(out, lse, other, torch.full((2, 3), infinity, device=DEVICE), 2)
    torch.testing.assert_close(out, before[0])
    torch.testing.assert_close(lse, before[1])
