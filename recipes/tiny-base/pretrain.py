"""Makes the embedded tiny base model from a seed: tokenizer, pretraining, Hugging Face folder.

    python recipes/tiny-base/pretrain.py --out DIR [--tokens 12000000] [--seed 0] [--threads 1]

Plain next-token prediction on the pages of `corpus.py`, each read once and apart from all others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import pages
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from pellucid.model.attention import PackedCausal
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights

END = "<|endoftext|>"
CONTEXT = 256
TOKENS_PER_STEP = 2048
PEAK_RATE = 3e-3
WARMUP_STEPS = 50
TOKENIZER_PAGES = 20_000
SHELF_PAGES = 2048
PIECES = r" ?\d| ?\p{L}+| ?</| ?[^\s\p{L}\d]|\s+"
"""Single digits and signs, words, and the opening of a closing tag."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=12_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=0, help="steps; 0: only at the end")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer(args.seed)
    spec = tiny_spec(tokenizer.get_vocab_size())
    model = Decoder(spec)
    init_weights(model, args.seed)
    print(f"{spec.num_parameters:,} parameters, {spec.vocab_size} tokens in the vocabulary")

    def after_step(step: int) -> None:
        if args.save_every and step % args.save_every == 0:
            save(model, tokenizer, args.out / f"step-{step}")

    curve = pretrain(
        model, tokenizer, num_tokens=args.tokens, seed=args.seed, after_step=after_step
    )
    save(model, tokenizer, args.out)
    facts = {"tokens": args.tokens, "seed": args.seed, "parameters": spec.num_parameters}
    (args.out / "pretrain.json").write_text(json.dumps(facts | {"loss": curve}, indent=1))


def tiny_spec(vocab_size: int) -> ModelSpec:
    return ModelSpec(
        family="llama",
        vocab_size=vocab_size,
        width=96,
        num_layers=4,
        num_heads=2,
        num_kv_heads=2,
        head_dim=48,
        ffn_width=256,
        max_context=CONTEXT,
        rope_theta=10000.0,
    )


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE over digits, signs and words: any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = itertools.islice(pages(seed), TOKENIZER_PAGES)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat token ids [T] and page lengths [N], at most TOKENS_PER_STEP tokens each time.

    A shelf of pages is sorted by length and its batches shuffled: attention then pads little.
    """
    rng = random.Random(seed)
    end = tokenizer.token_to_id(END)
    stream = pages(seed)
    while True:
        shelf = [page.ids[: CONTEXT - 1] for page in tokenizer.encode_batch(take(stream))]
        shelf.sort(key=len)
        groups: list[list[list[int]]] = [[]]
        for ids in shelf:
            if sum(len(page) + 1 for page in groups[-1]) + len(ids) + 1 > TOKENS_PER_STEP:
                groups.append([])
            groups[-1].append(ids)
        rng.shuffle(groups)
        for group in groups:
            ids = [token for page in group for token in (*page, end)]
            yield torch.tensor(ids), torch.tensor([len(page) + 1 for page in group])


def take(stream: Iterator[str]) -> list[str]:
    return list(itertools.islice(stream, SHELF_PAGES))


def pretrain(
    model: Decoder,
    tokenizer: Tokenizer,
    *,
    num_tokens: int,
    seed: int,
    after_step: Callable[[int], None],
) -> list[float]:
    """Trains in place; the mean loss of each hundred steps, in nats per token."""
    model.reserve_context(CONTEXT)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)
    num_steps = num_tokens // TOKENS_PER_STEP
    stream = batches(tokenizer, seed + 1)
    losses: list[float] = []
    curve: list[float] = []
    started = time.perf_counter()
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate_at(step, num_steps)
        ids, lengths = next(stream)
        loss = page_loss(model, ids, lengths)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        after_step(step + 1)
        if len(losses) == 100:
            curve.append(round(sum(losses) / len(losses), 4))
            losses = []
            took = time.perf_counter() - started
            rate = (step + 1) * TOKENS_PER_STEP / took
            print(f"step {step + 1}/{num_steps} loss {curve[-1]:.4f} {rate:,.0f} tok/s", flush=True)
    return curve


def page_loss(model: Decoder, ids: Tensor, lengths: Tensor) -> Tensor:
    """Mean next-token loss within each page; the last token of a page predicts nothing."""
    attend = PackedCausal(lengths)
    hidden = model(ids, attend)
    is_last = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    is_last[lengths.cumsum(0) - 1] = True
    keep = (~is_last).nonzero().squeeze(1)
    return F.cross_entropy(model.head(hidden[keep]), ids[keep + 1])


def rate_at(step: int, num_steps: int) -> float:
    """Linear warm-up, then cosine to a twentieth."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(1, num_steps - WARMUP_STEPS)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def save(model: Decoder, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a Hugging Face folder of the llama family, weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(named_weights(model), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    s = model.spec
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": s.vocab_size,
        "hidden_size": s.width,
        "intermediate_size": s.ffn_width,
        "num_hidden_layers": s.num_layers,
        "num_attention_heads": s.num_heads,
        "num_key_value_heads": s.num_kv_heads,
        "head_dim": s.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": s.max_context,
        "rms_norm_eps": s.norm_eps,
        "rope_theta": s.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    extra = {
        "config.json": config,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END,
            "model_max_length": s.max_context,
            "clean_up_tokenization_spaces": False,
        },
        "generation_config.json": {"eos_token_id": end, "pad_token_id": end, "do_sample": True},
    }
    for name, content in extra.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def named_weights(model: Decoder) -> dict[str, Tensor]:
    """The weights under the names of Hugging Face's llama, fused matrices taken apart."""
    s = model.spec
    inner, kv = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
    named = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
    }
    for index, block in enumerate(model.blocks):
        q, k, v = block.attention.qkv.weight.split([inner, kv, kv])
        gate, up = block.mlp.gate_up.weight.chunk(2)
        parts = {
            "input_layernorm": block.attention_norm.weight,
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.out.weight,
            "post_attention_layernorm": block.mlp_norm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.mlp.down.weight,
        }
        named |= {f"model.layers.{index}.{name}.weight": w for name, w in parts.items()}
    return {n: w.detach().to(torch.bfloat16).contiguous() for n, w in named.items()}


if __name__ == "__main__":
    main()
