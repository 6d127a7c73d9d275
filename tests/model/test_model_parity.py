"""Logits equal transformers' for every family and feature, and every weight takes part in them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from pellucid.model.hf_config import spec_from_config
from pellucid.model.tokenizer import read_json
from pellucid.model.transformer import Decoder
from pellucid.model.weights import empty_model, fill, places, read_safetensors, weight_files

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn-attention-factor": YARN | {"attention_factor": 1.7},
    "yarn-betas": YARN | {"beta_fast": 4.0, "beta_slow": 0.5},
}
CASES = {
    "llama": (LlamaConfig, {}),
    "llama-tied": (LlamaConfig, {"tie_word_embeddings": True}),
    "llama-biases": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama-attention-bias": (LlamaConfig, {"attention_bias": True}),
    "llama-multi-head": (LlamaConfig, {"num_key_value_heads": 4}),
    "llama-wide-heads": (LlamaConfig, {"head_dim": 24}),
    "llama-eps-theta": (
        LlamaConfig,
        {"rms_norm_eps": 1e-2, "rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
    ),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "qwen2": (Qwen2Config, {}),
    "qwen2-tied": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 32}),
    "qwen3-tied": (Qwen3Config, {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-biases": (Qwen3Config, {"head_dim": 32, "attention_bias": True}),
} | {
    f"{name}-{kind}": (config, {"rope_parameters": {"rope_theta": 500.0, **scaling}})
    for kind, scaling in SCALINGS.items()
    for name, config in (("llama", LlamaConfig), ("qwen2", Qwen2Config))
}


def load(folder) -> Decoder:
    spec = spec_from_config(read_json(folder / "config.json"))
    model = empty_model(spec, dtype=torch.float32, device="cpu")
    fill(model, read_safetensors(weight_files(folder)))
    return model


def some_ids(seed: int = 3) -> torch.Tensor:
    return torch.randint(0, 320, (2, 40), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(name, reference, logits):
    ours, theirs = logits
    model, folder = reference(CASES[name][0], **CASES[name][1])
    mine = load(folder)
    expected = theirs(model, some_ids())
    assert expected.std() > 0.3, "logits so small that the comparison would prove nothing"
    assert (ours(mine, some_ids()) - expected).abs().max() <= 1e-5
    assert mine.spec.num_parameters == sum(p.numel() for p in mine.parameters())


@pytest.mark.parametrize("name", ["llama-biases", "qwen2", "qwen3", "llama-tied"])
def test_every_tensor_of_the_checkpoint_takes_part_in_the_logits(name, reference, logits):
    ours, theirs = logits
    model, folder = reference(CASES[name][0], **CASES[name][1])
    mine = load(folder)
    expected = theirs(model, some_ids())
    parameters = dict(mine.named_parameters())
    for tensor, place in places(mine.spec).items():
        # A constant shift of all k biases cancels in the softmax, hence the uneven change.
        part = parameters[place.parameter].data[place.start : place.stop]
        saved = part.clone()
        part.mul_(torch.linspace(0.5, 1.5, part.numel()).view_as(part))
        assert (ours(mine, some_ids()) - expected).abs().max() > 1e-4, tensor
        part.copy_(saved)


@pytest.mark.parametrize("kind", SCALINGS)
def test_rope_scaling_changes_the_logits(kind, reference, logits):
    ours, theirs = logits
    model, folder = reference(*[CASES[f"llama-{kind}"][0]], **CASES[f"llama-{kind}"][1])
    mine = load(folder)
    plain = Decoder(dataclasses.replace(mine.spec, rope_scaling=None))
    plain.load_state_dict(mine.state_dict())
    assert (ours(plain, some_ids()) - theirs(model, some_ids())).abs().max() > 1e-2


def test_packed_sequences_of_different_length_do_not_see_each_other(reference):
    from pellucid.model.attention import PackedCausal

    model, folder = reference(Qwen2Config)
    mine = load(folder)
    mine.reserve_context(64)
    rows = [some_ids()[0, :n] for n in (5, 1, 17)]
    attend = PackedCausal(torch.tensor([len(r) for r in rows]))
    with torch.no_grad():
        packed = mine.head(mine(torch.cat(rows), attend))
        alone = torch.cat([model(r[None]).logits[0] for r in rows])
    assert (packed - alone).abs().max() <= 1e-5


def test_a_model_loads_in_bfloat16_with_one_shared_head(reference):
    _, folder = reference(Qwen2Config, tie_word_embeddings=True)
    spec = spec_from_config(read_json(folder / "config.json"))
    model = empty_model(spec, dtype=torch.bfloat16, device="cpu")
    fill(model, read_safetensors(weight_files(folder)))
    assert model.head.weight is model.embedding.weight
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
