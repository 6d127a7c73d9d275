"""Small random models and tokenizers, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor

from pellucid.model.attention import PackedCausal
from pellucid.model.gguf_tokenizer import tokenizer_from_metadata
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = ["the cat sat on the mat", "2 + 2 = 4, so 12 * 3 = 36", "naïve café, Straße", "日本語"]


@pytest.fixture(autouse=True)
def _quiet_transformers() -> None:
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def bpe() -> tokenizers.Tokenizer:
    """Byte-level BPE with three control tokens and one ordinary added word."""
    backend = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT * 3, trainer)
    backend.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    return backend


@pytest.fixture
def text_tokenizer(bpe: tokenizers.Tokenizer) -> TextTokenizer:
    return TextTokenizer(
        tokenizers.Tokenizer.from_str(bpe.to_str()),
        eos_ids=(2, 0),
        chat_template=CHAT,
        settings={
            "eos_token": "<|im_end|>",
            "bos_token": "<|im_start|>",
            "pad_token": "<|endoftext|>",
        },
    )


@pytest.fixture
def metadata(bpe: tokenizers.Tokenizer) -> dict[str, object]:
    """The test vocabulary as a GGUF file describes it."""
    tokens = sorted(bpe.get_vocab(), key=bpe.get_vocab().get)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 4) + [4],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.bos_token_id": 1,
    }


@pytest.fixture
def qwen_tokenizer(metadata: dict[str, object]) -> TextTokenizer:
    """The test vocabulary with Qwen's split, which transformers 5 forces on qwen2 models."""
    return tokenizer_from_metadata(
        metadata | {"tokenizer.ggml.pre": "qwen2", "tokenizer.chat_template": CHAT}
    )


@pytest.fixture
def reference(tmp_path: Path) -> Callable[..., tuple[torch.nn.Module, Path]]:
    """Makes a random transformers model with weights of which every one matters, and saves it."""

    def make(config_class: type, **settings: object) -> tuple[torch.nn.Module, Path]:
        base = {
            "vocab_size": 320,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "eos_token_id": 2,
        }
        torch.manual_seed(0)
        config = config_class(**(base | settings))
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        for name, parameter in model.named_parameters():
            center = 1.0 if "norm" in name else 0.0
            torch.nn.init.normal_(parameter, center, 0.3)
        folder = tmp_path / "reference"
        model.save_pretrained(folder)
        return model, folder

    return make


def our_logits(model: Decoder, ids: Tensor) -> Tensor:
    """Logits [N, S, V] of equally long sequences ids [N, S]."""
    lengths = torch.full((ids.shape[0],), ids.shape[1])
    attend = PackedCausal(lengths)
    model.reserve_context(ids.shape[1])
    with torch.no_grad():
        return model.head(model(ids.flatten(), attend)).view(*ids.shape, -1)


def their_logits(model: torch.nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids).logits


@pytest.fixture(scope="session")
def logits() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """(ours, transformers')"""
    return our_logits, their_logits
