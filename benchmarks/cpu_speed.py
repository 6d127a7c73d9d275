"""How fast one CPU samples and trains: prints one JSON line.

    python benchmarks/cpu_speed.py [--case CASE] [--threads N] [--dtype float32|bfloat16]

Cases, all with random weights: `tiny-base`, the shape of the embedded model, and `tiny`, one of
0.9M parameters (1024 slots, prompts of 48 tokens, 48 new tokens); `135m`, the shape of SmolLM2-135M
(64 rows, prompts of 64, 64 new tokens); `train`, forward, backward and AdamW of the latter over 8
sequences of 256 tokens. Generated tokens include sampling and log-probabilities. `*_cpu_s` is CPU
time over all threads: compare it, not wall time, on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence

import torch

from pellucid.algo.head import linear_logprobs
from pellucid.model.attention import PackedCausal
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Request, SamplingParams, sample_id
from pellucid.rollout.engine import InProcessEngine

TINY = ModelSpec(
    family="llama", vocab_size=512, width=128, num_layers=4, num_heads=4, num_kv_heads=4,
    head_dim=32, ffn_width=384, max_context=256,
)  # fmt: skip
TINY_BASE = ModelSpec(
    family="llama", vocab_size=768, width=96, num_layers=4, num_heads=2, num_kv_heads=2,
    head_dim=48, ffn_width=256, max_context=256,
)  # fmt: skip
SMOLLM2_135M = ModelSpec(
    family="llama", vocab_size=49152, width=576, num_layers=30, num_heads=9, num_kv_heads=3,
    head_dim=64, ffn_width=1536, max_context=8192, rope_theta=100000.0,
)  # fmt: skip


CASES = ("tiny-base", "tiny", "135m", "train")


class NumberTokenizer:
    """Stands in for a tokenizer: a token's text is its number. No token ends a completion."""

    eos_ids: tuple[int, ...] = ()
    chat_template = None

    def encode(self, text: str) -> list[int]:
        return [len(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the 135M model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype or best_dtype())
    report: dict[str, object] = {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": arguments.threads,
        "dtype_135m": str(dtype).removeprefix("torch."),
    }
    cases = arguments.case or CASES
    small = {"rows": 1024, "prompt": 48, "new": 48, "group": 16}
    for name, spec in (("tiny-base", TINY_BASE), ("tiny", TINY)):
        if name in cases:
            report |= generation(name, build(spec, torch.float32), **small)
    if "135m" in cases:
        report |= generation(
            "135m", build(SMOLLM2_135M, dtype), rows=64, prompt=64, new=64, group=8
        )
    if "train" in cases:
        report |= training(build(SMOLLM2_135M, dtype))
    print(json.dumps(report))


def best_dtype() -> str:
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def build(spec: ModelSpec, dtype: torch.dtype) -> Decoder:
    model = Decoder(spec)
    init_weights(model, 0)
    return model.to(dtype)


def generation(
    name: str, model: Decoder, *, rows: int, prompt: int, new: int, group: int
) -> dict[str, float]:
    """Two rollouts of `rows` samples each; the second one counts."""
    engine = InProcessEngine(model, NumberTokenizer(), slots=rows)
    generator = torch.Generator().manual_seed(0)
    requests = [
        Request(
            prompt_ids=tuple(
                torch.randint(model.spec.vocab_size, (prompt,), generator=generator).tolist()
            ),
            sample_ids=tuple(sample_id("benchmark", r, k) for k in range(group)),
        )
        for r in range(rows // group)
    ]
    params = SamplingParams(max_new_tokens=new)
    engine.generate(requests, params, seed=0)
    wall, cpu = timed(lambda: engine.generate(requests, params, seed=1))
    tokens = rows * new
    return {
        f"{name}_tokens_per_s": round(tokens / wall, 1),
        f"{name}_wall_s": round(wall, 3),
        f"{name}_cpu_s": round(cpu, 3),
    }


def training(model: Decoder, sequences: int = 8, length: int = 256) -> dict[str, float]:
    """One warm-up step, then one that counts."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    ids = torch.randint(
        model.spec.vocab_size, (sequences * length,), generator=torch.Generator().manual_seed(0)
    )
    targets = ids.roll(-1)
    packed = PackedCausal(torch.full((sequences,), length))
    model.reserve_context(length)

    def step() -> None:
        hidden = model(ids, packed)
        logprobs, _ = linear_logprobs(hidden, model.head.weight, targets)
        (-logprobs.mean()).backward()
        optimiser.step()
        optimiser.zero_grad()

    step()
    wall, cpu = timed(step)
    return {
        "train_tokens_per_s": round(len(ids) / wall, 1),
        "train_wall_s": round(wall, 3),
        "train_cpu_s": round(cpu, 3),
    }


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime


if __name__ == "__main__":
    main()
