from unittest.mock import Mock

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.runtime.errors import OutOfResources

from pellucid.kernels import attention, token_trial
from pellucid.kernels.attention_causal import sum_as_spread
from pellucid.kernels.token_trial import Pack, random_pack, shape_agrees, tokens_agree

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's; see _cuda")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_lane(monkeypatch):
    monkeypatch.setattr(attention, "PROGRAMS", 1)


@pytest.mark.parametrize(("heads", "num_kv"), [(7, 1), (6, 2), (4, 1), (16, 1), (2, 2)])
@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [3, 66, 1, 2], [257, 2]])
def test_tokens_together_have_the_bits_of_tokens_alone(heads, num_kv, lengths):
    prompts = [0, 3, 257, 70][: len(lengths)]
    pack = random_pack(lengths, prompts, heads, num_kv, 16, torch.float16, CPU)
    pack = pack._replace(fused=pack.fused.sign() / 2)  # sums without rounding: see attention_few
    (together, lse), (alone, other) = pack.attend_together(), pack.attend_alone()
    assert alone.isfinite().all()
    assert torch.equal(together, alone)
    assert torch.equal(lse, other)


def test_real_numbers_agree_too():
    pack = random_pack([70, 9, 130], [5, 0, 300], 7, 1, 32, torch.float32, CPU)
    (together, lse), (alone, other) = pack.attend_together(), pack.attend_alone()
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(lse, other, atol=1e-6, rtol=1e-5)


@triton.jit
def _sum_kernel(x, out, ROWS: tl.constexpr, SPREAD: tl.constexpr):
    rows, keys = tl.arange(0, ROWS)[:, None], tl.arange(0, 64)[None, :]
    tl.store(out + tl.arange(0, ROWS), sum_as_spread(tl.load(x + rows * 64 + keys), SPREAD))


def test_sums_are_in_the_order_of_four_warps() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 64, generator=generator) * torch.logspace(0, 6, 64)
    got = torch.empty(64)
    _sum_kernel[(1,)](x, got, ROWS=64, SPREAD=True)
    # Key 32 i + 8 w + 2 l + j: number 2 i + j of lane l of warp w.
    keys = x.view(64, 2, 4, 4, 2).numpy()
    lanes = ((keys[:, 0, :, :, 0] + keys[:, 0, :, :, 1]) + keys[:, 1, :, :, 0]) + keys[
        :, 1, :, :, 1
    ]
    warps = (lanes[:, :, 0] + lanes[:, :, 2]) + (lanes[:, :, 1] + lanes[:, :, 3])
    want = torch.from_numpy((warps[:, 0] + warps[:, 2]) + (warps[:, 1] + warps[:, 3]))
    assert torch.equal(got, want)
    assert not torch.equal(got, x.sum(1))


def test_tokens_are_tried_once_and_trusted_where_their_bits_agree(monkeypatch) -> None:
    monkeypatch.setattr(token_trial, "LENGTHS", (3, 1))
    monkeypatch.setattr(token_trial, "PROMPTS", (0, 2))
    monkeypatch.setattr(token_trial, "_agreements", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    alone, tried = Pack.attend_alone, []

    def off_by(bit):
        def attend(pack):
            tried.append(pack)
            out, lse = alone(pack)
            return out, lse + bit * lse.sign() * 1e-6

        return attend

    for bit, heads in ((0.0, 4), (1.0, 2)):
        monkeypatch.setattr(Pack, "attend_together", off_by(bit))
        for _ in range(2):
            assert shape_agrees(heads, 1, 16, torch.float16, CPU) == (bit == 0.0)
    assert [pack.fused.shape[1] for pack in tried] == [6, 4]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert shape_agrees(4, 1, 16, torch.float16, CPU)
    assert not shape_agrees(8, 1, 16, torch.float16, CPU)
    assert len(tried) == 2
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(Pack, "attend_together", Mock(side_effect=OutOfResources(9, 8, "shared")))
    assert not shape_agrees(8, 1, 16, torch.float16, CPU)
    assert not tokens_agree(torch.zeros(5, 4, 16, dtype=torch.float16), 1)
