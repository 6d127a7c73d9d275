import copy

import pytest
import torch
import torch.nn.functional as F

from pellucid.model import packed
from pellucid.model.attention import PackedCausal
from pellucid.model.packed import Packing, packed_linear, packing_pays
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights

SPEC = ModelSpec(
    family="qwen2", vocab_size=50, width=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16,
    ffn_width=48, has_qkv_bias=True,
)  # fmt: skip


def build(dtype: torch.dtype) -> Decoder:
    model = Decoder(SPEC)
    init_weights(model, 0)
    model.reserve_context(8)
    return model.to(dtype)


def hidden(model: Decoder) -> torch.Tensor:
    attend = PackedCausal(torch.tensor([5, 3]))
    return model(torch.arange(8), attend)


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_packed_weight_multiplies_as_the_plain_one(has_bias) -> None:
    # In float32: the operator is the same, and runs on processors without bfloat16 too.
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 40, generator=generator) for n in (7, 24))
    bias = torch.randn(24, generator=generator) if has_bias else None
    assert torch.allclose(packed_linear(weight, bias)(x), F.linear(x, weight, bias), atol=1e-4)


def test_float32_weights_stay_plain_and_the_head_is_shared() -> None:
    model = build(torch.float32)
    packing = Packing(model)
    assert packing.head.data_ptr() == model.head.weight.data_ptr()
    with packing.attached():
        assert model.blocks[0].mlp.down.packed is None


def test_bfloat16_weights_are_packed_only_while_attached(monkeypatch) -> None:
    monkeypatch.setattr(packed, "packing_pays", lambda: True)
    calls = []

    def recording(weight, bias):
        calls.append(tuple(weight.shape))
        return lambda x: F.linear(x, 0 * weight, bias)

    monkeypatch.setattr(packed, "packed_linear", recording)
    model = build(torch.bfloat16)
    with torch.no_grad():
        plain = hidden(model)
        packing = Packing(model)
        assert torch.equal(hidden(model), plain)
        with packing.attached():
            assert not torch.equal(hidden(model), plain)
            with torch.enable_grad():
                assert torch.equal(hidden(model).detach(), plain)
        assert torch.equal(hidden(model), plain)
    assert calls == [(64, 32), (32, 32), (96, 32), (32, 48)] * 2
    assert packing.head.dtype == torch.float32
    assert torch.equal(packing.head.bfloat16(), model.head.weight)
    copy.deepcopy(model)


def test_an_operator_that_is_missing_or_wrong_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    for broken in (_raise, lambda weight, bias: lambda x: F.linear(x, -weight, bias)):
        packing_pays.cache_clear()
        monkeypatch.setattr(packed, "packed_linear", broken)
        assert not packing_pays()
    packing_pays.cache_clear()


def _raise(weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    raise AttributeError("no such operator")
