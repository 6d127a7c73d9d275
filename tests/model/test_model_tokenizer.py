"""Tokenizers from folders and from GGUF metadata."""

from __future__ import annotations

import json

import pytest
import transformers
from transformers import Qwen2Tokenizer

from pellucid.errors import ModelError
from pellucid.model.gguf_tokenizer import SPLITS, tokenizer_from_metadata
from pellucid.model.tokenizer import TextTokenizer

TEXTS = [
    "the cat sat on the mat",
    "2 + 2 = 4, so 12 * 36 = 432 and 1234567.89",
    "naïve café, Straße — “quoted” ½ ² ⅷ",
    "日本語、１２３ ٣٤٥ हिन्दी",
    "🙂👨‍👩‍👧 \u200b\u00a0x",
    "def f(x):\n    return x ** 2  # ok\n\n\n\tpass\r\n",
    "I'm sure WE'LL don't O'Neill's",
    "   leading and trailing   \n \n",
    "",
]


def test_text_comes_back_unchanged(text_tokenizer):
    for text in TEXTS:
        assert text_tokenizer.decode(text_tokenizer.encode(text)) == text


def test_special_tokens_in_text_are_recognised_and_not_decoded(text_tokenizer):
    ids = text_tokenizer.encode("<|im_start|>the<think>cat</think><|im_end|>")
    assert ids[0] == 1
    assert ids[-1] == 2
    assert text_tokenizer.token_id("<think>") in ids
    assert text_tokenizer.decode(ids) == "the<think>cat</think>"


def test_nothing_is_added_and_nothing_is_cut(bpe, tmp_path):
    backend = json.loads(bpe.to_str())
    backend["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}
        },
    }
    backend["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(backend))
    tokenizer = TextTokenizer.from_folder(tmp_path)
    assert tokenizer.encode(TEXTS[0]) == bpe.encode(TEXTS[0], add_special_tokens=False).ids
    assert len(tokenizer.encode(TEXTS[0])) > 3


def test_end_tokens_are_gathered_from_every_file(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert TextTokenizer.from_folder(tmp_path).eos_ids == (2, 0, 7)


def test_special_tokens_may_be_written_as_objects(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    token = {
        "eos_token": {"content": "<|endoftext|>", "lstrip": False},
        "bos_token": "<|im_start|>",
    }
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(token))
    found = TextTokenizer.from_folder(tmp_path)
    assert (found.eos_ids, found.eos_token) == ((0,), "<|endoftext|>")
    assert found.bos_token == "<|im_start|>"


def test_the_template_file_wins_and_named_templates_give_the_default(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    assert TextTokenizer.from_folder(tmp_path).chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert TextTokenizer.from_folder(tmp_path).chat_template == "J"


def test_saving_and_loading_keeps_everything(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    found = TextTokenizer.from_folder(tmp_path)
    assert found.backend.to_str() == text_tokenizer.backend.to_str()
    assert found.eos_ids == text_tokenizer.eos_ids == (2, 0)
    assert found.chat_template == text_tokenizer.chat_template
    assert found.vocab_size == text_tokenizer.vocab_size == 301


def test_transformers_opens_what_is_saved(text_tokenizer, tmp_path):
    text_tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "<|im_start|>user\n<think>x<|im_end|>"]:
        ids = text_tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == text_tokenizer.decode(ids)
    assert theirs.chat_template == text_tokenizer.chat_template
    assert (theirs.eos_token, theirs.bos_token) == ("<|im_end|>", "<|im_start|>")


def test_a_missing_or_damaged_file_is_named(text_tokenizer, tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        TextTokenizer.from_folder(tmp_path)
    text_tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text()[:-200])
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer.from_folder(tmp_path)


def test_gguf_metadata_gives_the_tokenizer_it_was_made_from(metadata, bpe):
    found = tokenizer_from_metadata(metadata)
    for text in [*TEXTS, "<|im_start|>user\n<think>x<|im_end|>"]:
        assert found.encode(text) == bpe.encode(text).ids
        assert found.decode(found.encode(text)) == bpe.decode(bpe.encode(text).ids)
    assert (found.bos_token, found.eos_token, found.eos_ids) == (
        "<|im_start|>",
        "<|im_end|>",
        (2, 0),
    )
    assert found.chat_template is None


def test_the_qwen2_split_equals_transformers_tokenizer(metadata):
    found = tokenizer_from_metadata(metadata | {"tokenizer.ggml.pre": "qwen2"})
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in metadata["tokenizer.ggml.merges"]]
    theirs = Qwen2Tokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    for text in [*TEXTS, "e\u0301 composes"]:
        assert found.encode(text) == theirs.encode(text, add_special_tokens=False), text


def pieces(name, text, metadata):
    backend = tokenizer_from_metadata(metadata | {"tokenizer.ggml.pre": name}).backend
    return [piece.replace("Ġ", " ") for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["x", "'s", " =", " 1234", ".", "56", " ;)"]),
        ("smollm", ["x", "'s", " =", " ", "1", "2", "3", "4", ".", "5", "6", " ;)"]),
        ("qwen2", ["x", "'s", " =", " ", "1", "2", "3", "4", ".", "5", "6", " ;)"]),
        ("llama-bpe", ["x", "'s", " =", " ", "123", "4", ".", "56", " ;)"]),
    ],
)
def test_each_family_cuts_text_its_own_way(name, expected, metadata):
    assert pieces(name, "x's = 1234.56 ;)", metadata) == expected


def test_every_known_split_builds(metadata):
    for name in SPLITS:
        found = tokenizer_from_metadata(metadata | {"tokenizer.ggml.pre": name})
        assert found.decode(found.encode(TEXTS[3])) == TEXTS[3]


def test_llama3_takes_a_known_piece_whole(metadata):
    """Without `ignore_merges`, a word that no chain of merges reaches would be taken apart."""
    tokens = [*metadata["tokenizer.ggml.tokens"], "zebra"]
    types = [*metadata["tokenizer.ggml.token_type"], 1]
    changed = metadata | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    llama3 = tokenizer_from_metadata(changed | {"tokenizer.ggml.pre": "llama-bpe"})
    assert llama3.encode("zebra") == [len(tokens) - 1]
    assert len(tokenizer_from_metadata(changed).encode("zebra")) > 1


@pytest.mark.parametrize("key", ["tokens", "merges"])
def test_metadata_without_a_vocabulary_is_refused(key, metadata):
    del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(ModelError, match=rf"tokenizer\.ggml\.{key}"):
        tokenizer_from_metadata(metadata)
