"""GGUF files written here, read back: arithmetic, names, q/k order, damage."""

from __future__ import annotations

import math

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from gguf_blocks import random_rows
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from pellucid.config import ModelConfig
from pellucid.errors import ModelError
from pellucid.model.gguf_file import SUPPORTED_TYPES, GgufFile
from pellucid.model.gguf_model import load_gguf, spec_from_gguf
from pellucid.model.load import load_model
from pellucid.model.spec import RopeScaling

WIDTH = 256
"""One block of the K types."""
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}


def write(path, arch, tensors, metadata=None, **fields):
    """A GGUF file; `tensors`: name -> (array, type); `fields` under the architecture's prefix."""
    writer = gguf.GGUFWriter(path, arch)
    base = {
        "block_count": 2, "context_length": 64, "embedding_length": WIDTH,
        "feed_forward_length": WIDTH, "attention.head_count": 4, "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 10000.0,
    }  # fmt: skip
    for key, value in (base | fields).items():
        add(writer, f"{arch}.{key}", value)
    for key, value in (metadata or {}).items():
        add(writer, key, value)
    for name, (array, kind) in tensors.items():
        raw = {} if kind in (Quant.F32, Quant.F16) else {"raw_dtype": kind}
        writer.add_tensor(name, array, **raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer, key, value):
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    kinds |= {str: writer.add_string, list: writer.add_array}
    kinds[type(value)](key, value)


@pytest.fixture
def vocabulary(metadata):
    """Tokenizer metadata of the test vocabulary, filled up to the embedding's 320 rows."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    fill = 320 - len(tokens)
    return metadata | {
        "tokenizer.ggml.tokens": tokens + [f"[PAD{i}]" for i in range(fill)],
        "tokenizer.ggml.token_type": types + [5] * fill,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }


@pytest.mark.parametrize("kind", SUPPORTED_TYPES, ids=lambda kind: kind.name)
def test_each_type_is_dequantised_as_its_layout_says(kind, tmp_path):
    raw, expected = random_rows(kind, 3, 512, np.random.default_rng(1))
    path = write(tmp_path / "a.gguf", "llama", {"x": (raw, kind)})
    file = GgufFile(path)
    found = file.read("x", torch.float32)
    assert file.tensors["x"].type is kind
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    order = np.array([2, 0, 1])
    assert torch.equal(file.read("x", torch.float32, order), found[[2, 0, 1]])
    assert torch.equal(file.read("x", torch.bfloat16), found.bfloat16())


def test_a_tensor_larger_than_one_block_of_rows_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.model.gguf_file.BLOCK_ELEMENTS", 600)
    raw, expected = random_rows(Quant.Q8_0, 7, 256, np.random.default_rng(1))
    path = write(tmp_path / "a.gguf", "llama", {"x": (raw, Quant.Q8_0)})
    torch.testing.assert_close(GgufFile(path).read("x", torch.float32), expected)


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def their_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.{kind}"


def interleaved(rows, num_heads):
    """llama.cpp's row order of q and k: a head's halves dealt out alternately."""
    size = len(rows) // num_heads
    order = [h * size + i + half * size // 2 for h in range(num_heads)
             for i in range(size // 2) for half in range(2)]  # fmt: skip
    return rows[order]


def converted(model, arch, kind, rng):
    """Random tensors of `kind` for a transformers model, put into it and given back as GGUF."""
    found, values = {}, {}
    tied = model.config.tie_word_embeddings
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        if parameter.dim() == 1:  # norms and biases are always stored as float32
            raw, stored = parameter.numpy(), Quant.F32
            values[name] = parameter
        else:
            raw, values[name] = random_rows(kind, *parameter.shape, rng, is_slow=False)
            stored = kind
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = model.config.num_attention_heads
            heads = heads if "q_proj" in name else model.config.num_key_value_heads
            raw = interleaved(raw, heads)
        found[their_name(name)] = (np.ascontiguousarray(raw), stored)
    model.load_state_dict(values, strict=not tied)
    return found


ALL_KINDS = [("llama", kind) for kind in SUPPORTED_TYPES] + [
    ("qwen2", Quant.Q5_0),
    ("qwen2", Quant.Q6_K),
    ("qwen3", Quant.Q4_K),
]
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


@pytest.mark.parametrize(("arch", "kind"), ALL_KINDS, ids=[f"{a}-{k.name}" for a, k in ALL_KINDS])
def test_logits_equal_transformers_on_the_same_weights(
    arch, kind, reference, vocabulary, tmp_path, logits
):
    ours, theirs = logits
    settings = SIZES | {"tie_word_embeddings": arch != "llama", "head_dim": 64}
    if arch == "llama":
        settings |= {"attention_bias": True}
    model, _ = reference(CONFIGS[arch], **settings)
    tensors = converted(model, arch, kind, np.random.default_rng(5))
    path = write(tmp_path / "m.gguf", arch, tensors, vocabulary)
    mine, tokenizer = load_gguf(path, dtype=torch.float32, device="cpu")
    assert mine.spec.is_head_tied == (arch != "llama")
    ids = torch.randint(0, 320, (2, 30), generator=torch.Generator().manual_seed(1))
    expected = theirs(model, ids)
    assert expected.std() > 0.1
    assert (ours(mine, ids) - expected).abs().max() <= 1e-5
    assert tokenizer.eos_ids == (2, 0)


@pytest.fixture
def small(reference, vocabulary, tmp_path):
    """Writes a small Llama GGUF with changes; gives its path."""
    model, _ = reference(LlamaConfig, **SIZES)
    tensors = converted(model, "llama", Quant.Q8_0, np.random.default_rng(5))

    def make(*, arch="llama", extra=None, without=(), metadata=None, **fields):
        chosen = {k: v for k, v in (tensors | (extra or {})).items() if k not in without}
        data = vocabulary | (metadata or {})
        return write(tmp_path / "small.gguf", arch, chosen, data, **fields)

    return make


def test_a_file_is_found_by_id_and_by_path_and_names_its_digest(small):
    import hashlib

    path = small()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for config in (ModelConfig(id=str(path)), ModelConfig(id="owner/name", path=str(path))):
        loaded = load_model(config, dtype=torch.bfloat16, device="cpu")
        assert (loaded.name, loaded.digest, loaded.path) == (config.id, digest, path)
        assert loaded.model.embedding.weight.dtype is torch.bfloat16


def test_metadata_becomes_the_spec(small):
    file = GgufFile(small(**{"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}))
    spec = spec_from_gguf(file)
    assert spec.rope_scaling == RopeScaling(kind="linear", factor=4.0)
    assert (spec.norm_eps, spec.rope_theta, spec.max_context) == (1e-6, 10000.0, 64)
    assert (spec.family, spec.head_dim, spec.vocab_size) == ("llama", 64, 320)
    yarn = {"type": "yarn", "factor": 2.0, "original_context_length": 32}
    file = GgufFile(small(**{f"rope.scaling.{k}": v for k, v in yarn.items()}))
    expected = RopeScaling(kind="yarn", factor=2.0, original_context=32)
    assert spec_from_gguf(file).rope_scaling == expected


def llama3_factors(factor, theta=10000.0, size=64):
    """As llama.cpp's converter computes them: divisors of the frequencies."""
    found = []
    for i in range(0, size, 2):
        wavelength = 2 * math.pi * theta ** (i / size)
        smooth = (8192 / wavelength - 1) / 3
        blend = 1 / ((1 - smooth) / factor + smooth)
        found.append(1 if wavelength < 8192 / 4 else factor if wavelength > 8192 else blend)
    return np.array(found, dtype=np.float32)


def test_llama3_frequency_factors_are_recognised_and_others_refused(small):
    theta = {"rope.freq_base": 500000.0}
    factors = llama3_factors(32.0, 500000.0)
    assert len(set(factors.tolist())) > 4
    path = small(extra={"rope_freqs.weight": (factors, Quant.F32)}, **theta)
    expected = RopeScaling(kind="llama3", factor=32.0, original_context=8192)
    assert spec_from_gguf(GgufFile(path)).rope_scaling == expected
    model, _ = load_gguf(path, dtype=torch.float32, device="cpu")
    model.reserve_context(8)
    angle = torch.atan2(model._rope[1, 1], model._rope[0, 1])
    plain = 500000.0 ** -(torch.arange(0, 64, 2) / 64)
    torch.testing.assert_close(angle, plain / torch.from_numpy(factors), rtol=1e-4, atol=1e-9)
    factors[3] *= 1.5
    path = small(extra={"rope_freqs.weight": (factors, Quant.F32)}, **theta)
    with pytest.raises(ModelError, match=r"rope_freqs\.weight"):
        spec_from_gguf(GgufFile(path))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"arch": "gemma3"}, ["gemma3", "qwen3"]),
        ({"expert_count": 8}, ["mixture-of-experts"]),
        ({"rope.dimension_count": 32}, ["32 rotary"]),
        ({"attention.sliding_window": 32}, ["sliding-window", "32"]),
        ({"rope.scaling.type": "longrope"}, ["longrope"]),
        ({"feed_forward_length": 255}, ["blk.0.ffn_up.weight", "255"]),
        ({"attention.head_count_kv": [2, 2]}, ["head_count_kv", "[2, 2]"]),
        ({"attention.head_count_kv": 3}, ["4 attention heads", "3 KV heads"]),
        ({"block_count": 3}, ["lacks tensor blk.2."]),
        ({"without": ["token_embd.weight"]}, ["token_embd.weight"]),
        ({"without": ["blk.1.attn_k.weight"]}, ["model.layers.1.self_attn.k_proj.weight"]),
        ({"extra": {"blk.0.attn_sinks.weight": (np.ones(4, np.float32), Quant.F32)}},
         ["blk.0.attn_sinks.weight"]),
        ({"metadata": {"tokenizer.ggml.model": "llama"}}, ["tokenizer llama", "gpt2"]),
        ({"metadata": {"tokenizer.ggml.pre": "falcon"}}, ["falcon", "qwen2"]),
        ({"metadata": {"tokenizer.ggml.merges": ["zz qq"]}}, ["merges"]),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name(change, names, small):
    path = small(**change)
    with pytest.raises(ModelError) as caught:
        load_gguf(path, dtype=torch.float32, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    for name in names:
        assert name in message


def test_a_tensor_type_that_is_not_supported_is_named(tmp_path):
    raw = np.zeros((1, gguf.GGML_QUANT_SIZES[Quant.IQ4_XS][1]), np.uint8)
    path = write(tmp_path / "a.gguf", "llama", {"x": (raw, Quant.IQ4_XS)})
    with pytest.raises(ModelError, match="tensor x has type IQ4_XS, which is not supported"):
        GgufFile(path)


def test_a_cut_off_file_is_named_wherever_it_ends(small):
    whole = small()
    data = whole.read_bytes()
    cut = whole.with_name("cut.gguf")
    places = [0, 3, 10, 30, 200, 3000, 9000, len(data) // 2, len(data) - 40]
    for size in places:
        cut.write_bytes(data[:size])
        with pytest.raises(ModelError, match=r"cut\.gguf") as caught:
            load_gguf(cut, dtype=torch.float32, device="cpu")
        assert "\n" not in str(caught.value)


def test_garbage_in_the_header_never_escapes_as_another_error(small):
    data = small().read_bytes()
    broken = small().with_name("broken.gguf")
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        changed = bytearray(data)
        for at in rng.integers(4, 2500, 3):
            changed[at] = rng.integers(0, 256)
        broken.write_bytes(changed)
        try:
            load_gguf(broken, dtype=torch.float32, device="cpu")
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)
