"""A GGUF file's vocabulary as a `tokenizers` pipeline.

GGUF names how text is split before merging (`tokenizer.ggml.pre`) instead of storing the rule; the
table here holds the rules of the models that the decoder runs, as in their own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from pellucid.errors import ModelError
from pellucid.model.tokenizer import TextTokenizer

CONTROL, USER_DEFINED = 3, 4
"""`tokenizer.ggml.token_type` of special tokens, and of added words that are ordinary text."""
TURN_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
"""Control tokens that end a turn wherever a vocabulary has them: a file names only one or two."""

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


class Split(NamedTuple):
    """How a family cuts text before merging."""

    regex: str | None = None
    """None: GPT-2's own rule."""
    splits_digits: bool = False
    """Every digit stands alone."""
    is_nfc: bool = False
    """Text is brought to Unicode's composed form first."""
    ignores_merges: bool = False
    """A piece that is itself in the vocabulary is not taken apart."""


GPT2 = Split()
QWEN2 = Split(regex=f"{_CONTRACTIONS}|{_WORDS}|\\p{{N}}|{_REST}", is_nfc=True)
LLAMA3 = Split(regex=f"{_CONTRACTIONS}|{_WORDS}|\\p{{N}}{{1,3}}|{_REST}", ignores_merges=True)
SPLITS = {
    "default": GPT2,
    "gpt-2": GPT2,
    "smollm": Split(splits_digits=True),
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
}


def tokenizer_from_metadata(data: Mapping[str, Any]) -> TextTokenizer:
    """Tokenizer of a GGUF file: byte-level BPE ("gpt2") of a known split.

    Raises ModelError that names what is missing or not supported.
    """
    model = data.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise ModelError(
            f"GGUF tokenizer {model} is not supported; byte-level BPE (gpt2) is. Use the model's "
            "Hugging Face folder instead"
        )
    name = data.get("tokenizer.ggml.pre", "default")
    if name not in SPLITS:
        raise ModelError(
            f"GGUF pre-tokenizer {name} is not supported; {', '.join(SPLITS)} are. Use the model's "
            "Hugging Face folder instead"
        )
    tokens = _list(data, "tokens", str)
    backend = _pipeline(tokens, _list(data, "merges", str), SPLITS[name])
    types = _list(data, "token_type", int) if "tokenizer.ggml.token_type" in data else []
    _add_special(backend, tokens, types)
    return TextTokenizer(
        backend,
        eos_ids=_eos_ids(data, tokens),
        chat_template=data.get("tokenizer.chat_template"),
        settings=_settings(data, tokens),
    )


def _pipeline(tokens: list[str], merges: list[str], split: Split) -> tokenizers.Tokenizer:
    vocab = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        model = BPE(vocab=vocab, merges=pairs, ignore_merges=split.ignores_merges)
    except Exception as error:  # the library raises bare Exception for an inconsistent vocabulary
        reason = " ".join(str(error).split())
        raise ModelError(f"the GGUF tokenizer's merges do not fit its tokens: {reason}") from error
    backend = tokenizers.Tokenizer(model)
    if split.is_nfc:
        backend.normalizer = normalizers.NFC()
    steps: list[pre_tokenizers.PreTokenizer] = []
    if split.splits_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if split.regex is not None:
        steps.append(pre_tokenizers.Split(Regex(split.regex), behavior="isolated"))
    has_own_rule = split.regex is None
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=has_own_rule))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _add_special(backend: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Control tokens become special (never decoded), user-defined words stay text; none is cut."""
    added = [
        (AddedToken(token, normalized=False, special=kind == CONTROL), kind == CONTROL)
        for token, kind in zip(tokens, types, strict=False)
        if kind in (CONTROL, USER_DEFINED)
    ]
    backend.add_special_tokens([token for token, is_special in added if is_special])
    backend.add_tokens([token for token, is_special in added if not is_special])


def _eos_ids(data: Mapping[str, Any], tokens: list[str]) -> list[int]:
    named = [data.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    types = data.get("tokenizer.ggml.token_type") or []
    known = [i for i, kind in enumerate(types) if kind == CONTROL and tokens[i] in TURN_ENDS]
    return [i for i in [*named, *known] if i is not None and 0 <= i < len(tokens)]


def _settings(data: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    roles = {
        "bos_token": "bos",
        "eos_token": "eos",
        "unk_token": "unknown",
        "pad_token": "padding",
    }
    settings: dict[str, Any] = {}
    for role, key in roles.items():
        index = data.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None and 0 <= index < len(tokens):
            settings[role] = tokens[index]
    return settings


def _list(data: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    value = data.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not value or not isinstance(value[0], kind):
        raise ModelError(f"the GGUF file has no tokenizer.ggml.{key}: it holds no usable tokenizer")
    return value
