"""Processor milliseconds per sample that evaluation adds to generation and math-verify, as JSON.

A scripted engine returns ready completions and a trivial grader ready scores, so what is timed is
the rest: prompts, ids, records written as JSON lines, and all statistics. Goal: 0.3 ms or less.

    python benchmarks/eval_overhead.py
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

from pellucid.evaluate.runner import evaluate
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.records import Completion, Problem, SamplingParams, Score, StopReason, Verdict
from pellucid.stats import bootstrap_mean
from pellucid.tasks.templates import get_template

PROBLEMS, K, TOKENS = 1319, 4, 256
TEXT = "So she has 16 - 3 - 4 = 9 eggs left and makes 9 * 2 = 18 dollars. " * 12
IDS = tuple(range(TOKENS))
LOGPROBS = (-0.25,) * TOKENS


class ReadyEngine:
    """Completions without a model."""

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        groups = [
            [
                Completion(
                    sample_id=i, token_ids=IDS, logprobs=LOGPROBS, stop=StopReason.EOS, text=TEXT
                )
                for i in request.sample_ids
            ]
            for request in requests
        ]
        for index, group in enumerate(groups):
            on_group(index, group)
        return groups


class ReadyTokenizer:
    """A stand-in that costs nothing: tokenising prompts is the tokenizer's own time."""

    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return list(range(200))

    def decode(self, ids):
        return TEXT


class ReadyGrader:
    """Half right, half wrong."""

    def submit(self, problems, responses):
        pending = Future()
        pending.set_result(self.grade(problems, responses))
        return pending

    def grade(self, problems, responses):
        right = Score(verdict=Verdict.CORRECT, extracted="18", method="strict")
        wrong = Score(verdict=Verdict.WRONG, extracted="17", method="strict")
        return [right if i % 2 else wrong for i in range(len(responses))]


def main() -> None:
    problems = [
        Problem(id=f"toy/test/{i}", question="How much?", gold="18", grader="math")
        for i in range(PROBLEMS)
    ]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(3):
            started = time.process_time()
            records = []
            evaluate(
                ReadyEngine(),
                ReadyTokenizer(),
                problems,
                template=get_template("r1-zero"),
                params=SamplingParams(temperature=0.6),
                k=K,
                seed=0,
                arm="before",
                suite="toy",
                grader=ReadyGrader(),
                pass_at=(1, 4),
                sink=records.append,
            )
            with ZstdJsonlWriter(Path(folder) / f"{attempt}.jsonl.zst") as writer:
                writer.append_all(record.to_dict() for record in records)
            seconds.append(time.process_time() - started)
    values = [i % 5 / 4 for i in range(PROBLEMS)]
    started = time.process_time()
    bootstrap_mean(values, k=K)
    bootstrap_s = time.process_time() - started
    samples = PROBLEMS * K
    print(
        json.dumps(
            {
                "benchmark": "eval_overhead",
                "samples": samples,
                "cpu_ms_per_sample": [round(1000 * s / samples, 4) for s in seconds],
                "bootstrap_10k_of_1319_cpu_s": round(bootstrap_s, 4),
                "goal_ms_per_sample": 0.3,
                "machine": platform.machine(),
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
