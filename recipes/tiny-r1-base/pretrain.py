"""Makes the embedded bilingual base model from a seed: tokenizer, pretraining, model folder.

    python recipes/tiny-r1-base/pretrain.py --out DIR [--size base|student] [--tokens N] [--seed 0]

As recipes/tiny-base does it, whose batches, rate and way of saving are used; new are the pages, a
larger vocabulary for the second script, and the choice of the device.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import torch
from corpus import load_sibling, pages
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights

# Its `from corpus import pages` finds the corpus imported above: the batches are of these pages.
tiny_base = load_sibling("pretrain")

VOCABULARY = 2304
NUM_TOKENS = 10_000_000
SIZES = {
    "base": {"width": 96, "num_layers": 4, "head_dim": 48, "ffn_width": 256},
    "student": {"width": 64, "num_layers": 3, "head_dim": 32, "ffn_width": 160},
}
"""The student reads the same pages through the same tokenizer: it is distilled into."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=sorted(SIZES), default="base")
    parser.add_argument("--tokens", type=int, default=NUM_TOKENS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--save-every", type=int, default=0, help="steps; 0: only at the end")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer(args.seed)
    spec = tiny_spec(args.size, tokenizer.get_vocab_size())
    model = Decoder(spec)
    init_weights(model, args.seed)
    model.to(args.device)
    print(f"{spec.num_parameters:,} parameters, {spec.vocab_size} tokens in the vocabulary")
    curve = pretrain(model, tokenizer, args)
    tiny_base.save(model, tokenizer, args.out)
    facts = {"tokens": args.tokens, "seed": args.seed, "parameters": spec.num_parameters}
    (args.out / "pretrain.json").write_text(json.dumps(facts | {"loss": curve}, indent=1))


def tiny_spec(size: str, vocab_size: int) -> ModelSpec:
    return ModelSpec(
        family="llama",
        vocab_size=vocab_size,
        num_heads=2,
        num_kv_heads=2,
        max_context=tiny_base.CONTEXT,
        rope_theta=10000.0,
        **SIZES[size],
    )


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE over digits, signs and words of any script."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tiny_base.PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[tiny_base.END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = itertools.islice(pages(seed), tiny_base.TOKENIZER_PAGES)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def pretrain(model: Decoder, tokenizer: Tokenizer, args: argparse.Namespace) -> list[float]:
    """Trains in place; the mean loss of each hundred steps, in nats per token."""
    model.reserve_context(tiny_base.CONTEXT)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=tiny_base.PEAK_RATE, betas=(0.9, 0.95), fused=True)
    num_steps = args.tokens // tiny_base.TOKENS_PER_STEP
    stream = tiny_base.batches(tokenizer, args.seed + 1)
    losses: list[Tensor] = []
    curve: list[float] = []
    started = time.perf_counter()
    for step in range(1, num_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = tiny_base.PEAK_RATE * tiny_base.rate_at(step - 1, num_steps)
        ids, lengths = (t.to(args.device) for t in next(stream))
        loss = tiny_base.page_loss(model, ids, lengths)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if args.save_every and step % args.save_every == 0:
            tiny_base.save(model, tokenizer, args.out / f"step-{step}")
        if len(losses) == 100:
            curve.append(round(torch.stack(losses).mean().item(), 4))
            losses = []
            rate = step * tiny_base.TOKENS_PER_STEP / (time.perf_counter() - started)
            print(f"step {step}/{num_steps} loss {curve[-1]:.4f} {rate:,.0f} tok/s", flush=True)
    return curve


if __name__ == "__main__":
    main()
