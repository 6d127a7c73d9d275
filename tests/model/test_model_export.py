"""Export: transformers opens it unchanged, and our own loader gets the same bits."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from pellucid.config import ModelConfig
from pellucid.errors import ModelError
from pellucid.model.chat import render_chat
from pellucid.model.export import export_model
from pellucid.model.load import load_model
from pellucid.model.spec import ModelSpec, RopeScaling
from pellucid.model.transformer import Decoder

BASE = {
    "vocab_size": 320, "width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2,
    "head_dim": 16, "ffn_width": 96, "max_context": 64,
}  # fmt: skip
SPECS = {
    "llama": ModelSpec(family="llama", is_head_tied=False, **BASE),
    "llama-biases": ModelSpec(
        family="llama", has_qkv_bias=True, has_o_bias=True, has_mlp_bias=True, **BASE
    ),
    "llama-linear": ModelSpec(
        family="llama", rope_scaling=RopeScaling(kind="linear", factor=2.0), **BASE
    ),
    "llama-llama3": ModelSpec(
        family="llama",
        rope_theta=500.0,
        rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_context=16),
        **BASE,
    ),
    "qwen2": ModelSpec(family="qwen2", has_qkv_bias=True, norm_eps=1e-5, **BASE),
    "qwen2-yarn": ModelSpec(
        family="qwen2",
        has_qkv_bias=True,
        rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_context=16),
        **BASE,
    ),
    "qwen3": ModelSpec(family="qwen3", has_qk_norm=True, **(BASE | {"head_dim": 24})),
}


def random_model(spec: ModelSpec, dtype: torch.dtype = torch.float32) -> Decoder:
    model = Decoder(spec)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        center = 1.0 if "norm" in name else 0.0
        parameter.data = center + 0.3 * torch.randn(parameter.shape, generator=generator)
    if spec.is_head_tied:
        model.head.weight = model.embedding.weight
    return model.to(dtype)


@pytest.mark.parametrize("name", SPECS)
def test_transformers_opens_it_with_equal_logits(name, qwen_tokenizer, tmp_path, logits):
    ours, theirs = logits
    model = random_model(SPECS[name])
    folder = export_model(model, qwen_tokenizer, tmp_path / "out")
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, 320, (2, 40), generator=torch.Generator().manual_seed(1))
    expected = theirs(opened, ids)
    assert expected.std() > 0.3
    assert (ours(model, ids) - expected).abs().max() <= 1e-5
    assert opened.config.eos_token_id == [2, 0]
    assert opened.generation_config.eos_token_id == [2, 0]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_transformers_opens_the_tokenizer_of_any_family(
    name, text_tokenizer, qwen_tokenizer, tmp_path
):
    mine = qwen_tokenizer if name == "qwen2" else text_tokenizer
    folder = export_model(random_model(SPECS[name]), mine, tmp_path / name)
    theirs = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "2 + 2 = <think>"}]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == render_chat(mine.chat_template, messages)
    for sample in (text, "naïve 日本 1234  \n\n x", "<|endoftext|>e\u0301"):
        ids = mine.encode(sample)
        assert theirs.encode(sample, add_special_tokens=False) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == mine.decode(ids)
    assert theirs.chat_template == mine.chat_template
    assert theirs.eos_token == mine.eos_token == "<|im_end|>"


def test_a_tokenizer_that_transformers_would_rebuild_is_warned_of(text_tokenizer, tmp_path):
    with pytest.warns(UserWarning, match="Qwen's own rule"):
        export_model(random_model(SPECS["qwen2"]), text_tokenizer, tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SPECS)
def test_the_way_back_gives_the_same_bits(name, dtype, qwen_tokenizer, tmp_path):
    model = random_model(SPECS[name], dtype)
    folder = export_model(model, qwen_tokenizer, tmp_path / "out")
    back = load_model(ModelConfig(id=str(folder)), dtype=dtype, device="cpu")
    assert back.model.spec == model.spec
    for (key, mine), (other, theirs) in zip(
        model.state_dict().items(), back.model.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(mine, theirs), key
    assert back.tokenizer.backend.to_str() == qwen_tokenizer.backend.to_str()
    assert back.tokenizer.eos_ids == qwen_tokenizer.eos_ids
    assert back.tokenizer.chat_template == qwen_tokenizer.chat_template


def test_shards_hold_the_same_weights_and_transformers_reads_them(qwen_tokenizer, tmp_path, logits):
    ours, theirs = logits
    model = random_model(SPECS["qwen2"])
    folder = export_model(model, qwen_tokenizer, tmp_path / "out", shard_bytes=60_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 3
    assert not (folder / "model.safetensors").exists()
    back = load_model(ModelConfig(id=str(folder)), dtype=torch.float32, device="cpu").model
    for key, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[key])
    ids = torch.arange(30)[None]
    opened = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert (ours(model, ids) - theirs(opened.eval(), ids)).abs().max() <= 1e-5


def test_weights_can_be_stored_in_another_type(text_tokenizer, tmp_path):
    model = random_model(SPECS["llama"])
    folder = export_model(model, text_tokenizer, tmp_path / "out", torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    opened = AutoModelForCausalLM.from_pretrained(folder)
    assert opened.dtype is torch.bfloat16
    assert model.embedding.weight.dtype is torch.float32


def test_a_failed_export_leaves_nothing_behind(text_tokenizer, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pellucid.model.export.save_file", full)
    with pytest.raises(ModelError, match=r"cannot write .*No space left"):
        export_model(random_model(SPECS["llama"]), text_tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(text_tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="already exists"):
        export_model(random_model(SPECS["llama"]), text_tokenizer, tmp_path / "out")


def test_a_tokenizer_of_another_model_is_noticed_on_loading(text_tokenizer, tmp_path):
    spec = ModelSpec(family="llama", **(BASE | {"vocab_size": 200}))
    folder = export_model(random_model(spec), text_tokenizer, tmp_path / "out")
    with pytest.raises(ModelError, match="301 tokens but the embedding only 200 rows"):
        load_model(ModelConfig(id=str(folder)), dtype=torch.float32, device="cpu")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (ModelConfig(path="/nowhere/at/all"), "/nowhere/at/all does not exist"),
        (ModelConfig(id="nowhere.gguf"), r"no model nowhere\.gguf: give tiny-base"),
        (ModelConfig(id="./nowhere/at/all"), "no model ./nowhere/at/all: give tiny-base"),
        (ModelConfig(id="owner/name"), "no folder owner/name, and hub model owner/name needs"),
    ],
)
def test_a_model_that_is_not_there_says_what_to_do(config, says):
    with pytest.raises(ModelError, match=says) as caught:
        load_model(config, dtype=torch.float32, device="cpu")
    assert "\n" not in str(caught.value)
