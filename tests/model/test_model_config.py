"""config.json and ModelSpec."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from pellucid.errors import ModelError
from pellucid.model.hf_config import config_from_spec, spec_from_config
from pellucid.model.spec import ModelSpec, RopeScaling

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SCALINGS = [
    None,
    RopeScaling(kind="linear", factor=2.0),
    RopeScaling(kind="llama3", factor=8.0, original_context=128, high_freq_factor=5.0),
    RopeScaling(kind="yarn", factor=4.0, original_context=128, beta_fast=16.0),
    RopeScaling(kind="yarn", factor=4.0, original_context=128, attention_factor=1.5),
]


def test_both_styles_of_rope_settings_give_the_same_spec():
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    old = spec_from_config({**LLAMA, "rope_theta": 5e5, "rope_scaling": scaling})
    older = {k: v for k, v in scaling.items() if k != "rope_type"} | {"type": "yarn"}
    oldest = spec_from_config({**LLAMA, "rope_theta": 5e5, "rope_scaling": older})
    new = spec_from_config({**LLAMA, "rope_parameters": {"rope_theta": 5e5, **scaling}})
    assert old == oldest == new
    assert new.rope_theta == 5e5
    assert new.rope_scaling == RopeScaling(kind="yarn", factor=4.0, original_context=128)


def test_defaults_are_transformers_own():
    spec = spec_from_config({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"})
    assert (spec.num_kv_heads, spec.head_dim, spec.rope_theta) == (4, 8, 10000.0)
    assert (spec.is_head_tied, spec.has_qkv_bias, spec.norm_eps) == (False, False, 1e-6)
    qwen2 = spec_from_config(LLAMA | {"architectures": ["Qwen2ForCausalLM"]})
    assert (qwen2.has_qkv_bias, qwen2.has_o_bias) == (True, False)
    qwen3 = spec_from_config(LLAMA | {"architectures": ["Qwen3ForCausalLM"]})
    assert (qwen3.head_dim, qwen3.has_qk_norm) == (128, True)


def test_a_spec_survives_the_way_through_config_json():
    base = spec_from_config(LLAMA)
    flags = itertools.product([False, True], repeat=2)
    specs = [
        dataclasses.replace(base, rope_scaling=s, is_head_tied=tied, has_mlp_bias=mlp)
        for s, (tied, mlp) in itertools.product(SCALINGS, flags)
    ]
    qwen2 = dataclasses.replace(base, family="qwen2", has_qkv_bias=True)
    qwen3 = dataclasses.replace(base, family="qwen3", has_qk_norm=True, head_dim=16)
    biased = dataclasses.replace(qwen3, has_qkv_bias=True, has_o_bias=True)
    for spec in [*specs, qwen2, qwen3, biased]:
        assert spec_from_config(config_from_spec(spec, dtype="float32")) == spec


def test_a_mix_of_features_that_no_architecture_has_is_not_exported():
    spec = dataclasses.replace(spec_from_config(LLAMA), has_o_bias=True)
    with pytest.raises(ModelError, match="qkv bias False, output bias True"):
        config_from_spec(spec, dtype="float32")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"architectures": ["MambaForCausalLM"]}, ["MambaForCausalLM", "Qwen3ForCausalLM"]),
        ({"architectures": None, "model_type": "gpt2"}, ["gpt2", "LlamaForCausalLM"]),
        ({"hidden_act": "gelu"}, ["gelu", "silu"]),
        ({"quantization_config": {"quant_method": "awq"}}, ["awq", "GGUF"]),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 64}, ["sliding", "64"]),
        ({"use_sliding_window": True, "sliding_window": 64}, ["sliding", "64"]),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ["sliding"]),
        ({"rope_scaling": {"rope_type": "longrope"}}, ["longrope", "yarn"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["linear", "factor"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor", "0.5"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}}, ["mscale"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, ["truncate"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, ["llama3", "low_freq_factor"]),
        ({"hidden_size": None}, ["hidden_size"]),
        ({"num_hidden_layers": "two"}, ["num_hidden_layers", "two"]),
    ],
)
def test_what_the_decoder_lacks_is_refused_by_name(change, names):
    with pytest.raises(ModelError) as caught:
        spec_from_config(LLAMA | change)
    assert "\n" not in str(caught.value)
    for name in names:
        assert name in str(caught.value)


def test_an_unused_sliding_window_is_no_obstacle():
    mistral = LLAMA | {"architectures": ["MistralForCausalLM"]}
    assert spec_from_config(mistral | {"sliding_window": 512}).family == "llama"
    assert spec_from_config(LLAMA | {"use_sliding_window": False, "sliding_window": 64})


def test_parameters_are_counted_by_hand():
    spec = ModelSpec(
        family="qwen2", vocab_size=10, width=8, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=4, ffn_width=6, has_qkv_bias=True,
    )  # fmt: skip
    # embedding 80, q 64 + k 32 + v 32 with biases 16, out 64, mlp 3 * 48, norms 3 * 8
    assert spec.num_parameters == 80 + 128 + 16 + 64 + 144 + 24
