"""Strict loading of checkpoints."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, Qwen2Config

from pellucid.config import ModelConfig
from pellucid.errors import ModelError
from pellucid.model.hf_config import spec_from_config
from pellucid.model.load import load_model, weights_digest
from pellucid.model.tokenizer import read_json
from pellucid.model.weights import (
    empty_model,
    fill,
    read_safetensors,
    tensors_of,
    weight_files,
)


@pytest.fixture
def checkpoint(reference):
    """(folder, spec, tensors by name) of a tied Llama."""
    _, folder = reference(LlamaConfig, tie_word_embeddings=True)
    spec = spec_from_config(read_json(folder / "config.json"))
    return folder, spec, load_file(folder / "model.safetensors")


def filled(spec, tensors):
    model = empty_model(spec, dtype=torch.float32, device="cpu")
    fill(model, tensors.items())
    return model


def test_every_tensor_comes_back_under_its_name(checkpoint):
    _, spec, tensors = checkpoint
    found = dict(tensors_of(filled(spec, tensors)))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_missing_tensor_is_named(checkpoint):
    _, spec, tensors = checkpoint
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(ModelError, match=r"lacks tensor model\.layers\.1\.self_attn\.k_proj"):
        filled(spec, tensors)


def test_an_unexpected_tensor_is_named(checkpoint):
    _, spec, tensors = checkpoint
    tensors["model.layers.0.self_attn.k_proj.bias"] = torch.zeros(32)
    with pytest.raises(ModelError, match=r"model\.layers\.0\.self_attn\.k_proj\.bias"):
        filled(spec, tensors)


def test_a_wrong_shape_is_named_with_both_shapes(checkpoint):
    _, spec, tensors = checkpoint
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(95, 64)
    with pytest.raises(ModelError, match=r"up_proj\.weight has shape \[95, 64\].*\[96, 64\]"):
        filled(spec, tensors)


def test_many_missing_tensors_make_one_line(checkpoint):
    _, spec, _ = checkpoint
    with pytest.raises(ModelError, match=r"and 17 more") as caught:
        filled(spec, {})
    assert "\n" not in str(caught.value)


def test_a_stored_copy_of_a_tied_head_is_accepted_and_another_head_is_not(checkpoint):
    _, spec, tensors = checkpoint
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    filled(spec, dict(sorted(tensors.items(), reverse=True)))
    tensors["lm_head.weight"][5, 5] += 1
    for reverse in (True, False):  # whichever of the two comes first
        with pytest.raises(ModelError, match=r"lm_head\.weight differs"):
            filled(spec, dict(sorted(tensors.items(), reverse=reverse)))


def shard(folder, tensors):
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: tensors[n] for n in part}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {n: file for file, part in halves.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_sharded_weights_equal_a_single_file(checkpoint):
    folder, spec, tensors = checkpoint
    shard(folder, tensors)
    assert [f.name for f in weight_files(folder)] == ["a.safetensors", "b.safetensors"]
    model = filled(spec, dict(read_safetensors(weight_files(folder))))
    assert all(torch.equal(t, tensors[n]) for n, t in tensors_of(model))


def test_a_missing_shard_is_named(checkpoint):
    folder, _, tensors = checkpoint
    shard(folder, tensors)
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"b\.safetensors is missing"):
        weight_files(folder)


def test_a_shard_outside_the_folder_is_refused(checkpoint):
    folder, _, tensors = checkpoint
    shard(folder, tensors)
    index = {"weight_map": {"x": "../b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="damaged"):
        weight_files(folder)


@pytest.mark.parametrize("keep", [0, 4, 300, 5000])
def test_a_cut_off_safetensors_file_is_named(keep, reference, text_tokenizer):
    _, folder = reference(Qwen2Config)
    text_tokenizer.save(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged") as caught:
        load_model(ModelConfig(id=str(folder)), dtype=torch.float32, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_or_configuration_says_so(reference, tmp_path, text_tokenizer):
    _, folder = reference(Qwen2Config)
    text_tokenizer.save(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no safetensors"):
        load_model(ModelConfig(id=str(folder)), dtype=torch.float32, device="cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        load_model(ModelConfig(id=str(folder)), dtype=torch.float32, device="cpu")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(ModelConfig(id=str(folder)), dtype=torch.float32, device="cpu")


def test_the_digest_follows_the_bytes_of_the_weights(checkpoint):
    folder, _, tensors = checkpoint
    before = weights_digest(folder)
    assert before == weights_digest(folder)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors")
    changed = weights_digest(folder)
    assert changed != before
    shard(folder, tensors)
    assert weights_digest(folder) not in (before, changed)
