"""Whole GRPO steps of TRL with vLLM colocated: `python trl_step.py WORK.json`, started by run.py.

The setting is the fastest that fitted: bf16, sdpa, β = 0, one update a rollout, no gradient
checkpointing, the micro-batch of the work order. Random rewards, fixed lengths. The first step,
which compiles and warms up, does not count.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import model_folder, prompts, read_work, report, versions

VLLM_MEMORY_FRAC = 0.4
ONE_PROCESS = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511", "WANDB_DISABLED": "true", "VLLM_LOGGING_LEVEL": "WARNING",
}  # fmt: skip


def main() -> None:
    work = read_work()
    for name, value in ONE_PROCESS.items():
        os.environ.setdefault(name, value)
    with tempfile.TemporaryDirectory() as parent:
        folder = model_folder(work, Path(parent))
        measure(work, folder, Path(parent))


def measure(work: dict[str, Any], folder: str, parent: Path) -> None:
    """Trains a few steps and reports all but the first."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    job, micro = work["jobs"][0], work["micro"]
    rows, new = job["prompts"] * job["group"], job["new"]
    tokenizer = number_tokenizer(work["model"])
    tokenizer.save_pretrained(folder)
    ids = prompts(job["prompts"] * 8, job["prompt"], work["model"]["vocab_size"])
    config = GRPOConfig(
        output_dir=str(parent / "trl"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows // micro,
        num_generations=job["group"],
        max_completion_length=new,
        max_steps=1 + work["repeats"],
        logging_steps=1,
        bf16=True,
        beta=0.0,
        learning_rate=1e-6,
        report_to=[],
        save_strategy="no",
        temperature=1.0,
        gradient_checkpointing=False,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=VLLM_MEMORY_FRAC,
        vllm_max_model_length=4096,
        generation_kwargs={"ignore_eos": True, "min_tokens": new},
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    repeats: list[dict[str, float]] = []
    gaps: dict[str, list[float]] = {}

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            repeats.append({"seconds": time.perf_counter() - self.start, "tokens": rows * new})

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            for name, value in (logs or {}).items():
                if "logp_difference" in name:
                    gaps.setdefault(name.rpartition("/")[2], []).append(value)

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [random.random() for _ in completions],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [" ".join(f"t{i}" for i in p) for p in ids]}),
        processing_class=tokenizer,
    )
    trainer.add_callback(Watch())
    trainer.train()
    settings = {
        "micro": micro,
        "vllm": "colocate",
        "gpu_memory_utilization": VLLM_MEMORY_FRAC,
        "attention": "sdpa",
        "gradient_checkpointing": False,
    }
    report(
        job["name"],
        "trl",
        repeats[1:],
        settings,
        versions=versions("trl", "vllm", "transformers", "torch"),
        details={f"{name}_gap": sum(values) / len(values) for name, values in gaps.items()},
        peak_allocated_bytes=torch.cuda.max_memory_allocated(),
        peak_reserved_bytes=torch.cuda.max_memory_reserved(),
    )


def number_tokenizer(model: dict[str, Any]) -> Any:
    """Every id is the word `t` and its number, so that prompts keep their lengths."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{i}": i for i in range(model["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=f"t{model['eos_token_id']}",
        pad_token=f"t{model['bos_token_id']}",
        unk_token="t0",
        padding_side="left",
    )


if __name__ == "__main__":
    main()
