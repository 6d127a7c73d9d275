"""A tiny decoder and a tokenizer of letters, shared by the tests of the engine."""

from collections.abc import Sequence

import torch

from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights


class LetterTokenizer:
    """Token i is one character; 0 is the end token; three tokens hold several characters."""

    eos_ids = (0,)
    chat_template = None
    texts = ("", *"abcdefghijklmnopqrstuvwxyz<>/ .", "</a>", "b>c", "xy")

    def encode(self, text: str) -> list[int]:
        return [self.texts.index(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.texts[i] for i in ids)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.decode(row) for row in rows]


def tiny_spec(**changes: object) -> ModelSpec:
    fields: dict[str, object] = {
        "family": "llama", "vocab_size": len(LetterTokenizer.texts), "width": 32, "num_layers": 2,
        "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "ffn_width": 64, "max_context": 128,
    }  # fmt: skip
    return ModelSpec(**(fields | changes))  # type: ignore[arg-type]


def loud_model(spec: ModelSpec, seed: int = 0) -> Decoder:
    """Random weights, scaled up so that the distribution over tokens depends on the context."""
    model = Decoder(spec)
    init_weights(model, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8.0)
    return model
