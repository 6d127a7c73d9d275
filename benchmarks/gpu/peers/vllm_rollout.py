"""Rollout throughput of vLLM, offline: `python vllm_rollout.py WORK.json`, started by run.py.

Setting `best`: the fastest that we know of. The engine has a process of its own, prefix caching is
on, up to 1,024 sequences run at once, CUDA graphs and compilation are the default's, no
log-probabilities, no detokenisation. `rl`: the same with the log-probability of every sampled
token, as training needs it. One request a prompt with n = group; in the mixed job one request a
sample, each with its own limit, so that prefix caching shares the prompt.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import model_folder, prompts, read_work, report, versions

MAX_SEQUENCES = 1024
MEMORY_FRAC = 0.6
MAX_LENGTH = 4096


def main() -> None:
    work = read_work()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with tempfile.TemporaryDirectory() as parent:
        folder = model_folder(work, Path(parent))
        from vllm import LLM

        start = time.perf_counter()
        engine = LLM(
            folder,
            skip_tokenizer_init=True,
            dtype="bfloat16",
            gpu_memory_utilization=MEMORY_FRAC,
            max_model_len=MAX_LENGTH,
            max_num_seqs=MAX_SEQUENCES,
            enable_prefix_caching=True,
            disable_log_stats=True,
        )
        start_s = time.perf_counter() - start
        for job in work["jobs"]:
            for setting in work["settings"]:
                if setting == "best" or job["limits"] is None:
                    measure(engine, job, setting, work, start_s)


def measure(
    engine: Any, job: dict[str, Any], setting: str, work: dict[str, Any], start_s: float
) -> None:
    """A short warm-up and the repeats of one job under one setting."""
    asked, params = requests(job, work["model"]["vocab_size"], has_logprobs=setting == "rl")
    warm, warm_params = requests({**job, "new": min(job["new"], 32), "limits": None},
                                 work["model"]["vocab_size"], has_logprobs=False)  # fmt: skip
    engine.generate(warm, warm_params, use_tqdm=False)
    repeats = []
    for _ in range(work["repeats"]):
        start = time.perf_counter()
        out = engine.generate(asked, params, use_tqdm=False)
        seconds = time.perf_counter() - start
        tokens = sum(len(c.token_ids) for o in out for c in o.outputs)
        repeats.append({"seconds": seconds, "tokens": tokens})
    settings = {
        "setting": setting,
        "own_process": os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1",
        "prefix_caching": True,
        "max_num_seqs": MAX_SEQUENCES,
        "gpu_memory_utilization": MEMORY_FRAC,
        "logprobs": setting == "rl",
        "samples_per_request": 1 if job["limits"] else job["group"],
    }
    report(job["name"], f"vllm-{setting}", repeats, settings, versions=versions("vllm", "torch"),
           start_s=start_s)  # fmt: skip


def requests(
    job: dict[str, Any], vocab_size: int, *, has_logprobs: bool
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Prompts and the parameters of each."""
    from vllm import SamplingParams

    always = {"temperature": 1.0, "detokenize": False, "logprobs": 0 if has_logprobs else None}
    asked = [
        {"prompt_token_ids": ids} for ids in prompts(job["prompts"], job["prompt"], vocab_size)
    ]
    if job["limits"] is None:
        new = job["new"]
        params = SamplingParams(
            n=job["group"], max_tokens=new, min_tokens=new, ignore_eos=True, **always
        )
        return asked, [params] * len(asked)
    params = [SamplingParams(n=1, max_tokens=limit, **always) for limit in job["limits"]]
    return [a for a in asked for _ in range(job["group"])], params


if __name__ == "__main__":
    main()
