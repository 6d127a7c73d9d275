"""A random chat model of 30 thousand weights as a Hugging Face folder: for jobs of seconds."""

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from pellucid.model.export import export_model
from pellucid.model.spec import ModelSpec
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder, init_weights

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def write_small_model(folder: Path) -> Path:
    """Writes it into `folder`, which must not exist."""
    alphabet = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={text: index for index, text in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    tokenizer = TextTokenizer(
        backend, eos_ids=(0,), chat_template=CHAT, settings={"eos_token": "<eos>"}
    )
    spec = ModelSpec(
        family="llama",
        vocab_size=len(alphabet),
        width=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        ffn_width=64,
        max_context=1024,
    )
    model = Decoder(spec)
    init_weights(model, seed=0)
    export_model(model, tokenizer, folder)
    return folder
