"""Processor milliseconds a sample that recording costs, and the memory of a million, as JSON.

Recording is what an evaluation does with a graded sample: its line in the run folder, its leaf in
the Merkle tree. The second part measures an evaluation of N samples into a folder with a scripted
engine, and reports the most memory that the process ever held. Goals: 0.3 ms, and 500 MB for a
million.

    python benchmarks/evidence_recording.py [N, default 50,000]
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

from pellucid.evaluate.records import Origin, SampleRecord
from pellucid.evaluate.runner import evaluate
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.pipeline.measure import FrameWriter
from pellucid.records import Completion, Problem, SamplingParams, Score, StopReason, Verdict
from pellucid.tasks.templates import get_template

K, TOKENS, TIMED = 16, 256, 5000
TEXT = "So she has 16 - 3 - 4 = 9 eggs left. " * 12 + "</think> <answer>18</answer>"
ENGINE = {"name": "pellucid", "version": "1", "dtype": "bfloat16", "exact": True}


class ReadyEngine:
    """Completions without a model; token ids differ, as a real model's do."""

    def generate(self, requests, params, *, seed, progress=None):
        return [[_completion(i) for i in request.sample_ids] for request in requests]


def _completion(identity: int) -> Completion:
    ids = tuple((identity * 31 + n * 7919) % 150_000 for n in range(TOKENS))
    logprobs = (-0.25,) * TOKENS
    return Completion(
        sample_id=identity, token_ids=ids, logprobs=logprobs, stop=StopReason.EOS, text=TEXT
    )


class ReadyTokenizer:
    """A stand-in that costs nothing."""

    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return list(range(60))


class ReadyGrader:
    """Half right, half wrong."""

    def grade(self, problems, responses):
        right = Score(verdict=Verdict.CORRECT, extracted="18", method="strict")
        wrong = Score(verdict=Verdict.WRONG, extracted="17", method="strict")
        return [right if i % 2 else wrong for i in range(len(responses))]


def measure(num_samples: int, sink) -> None:
    """An evaluation of so many samples."""
    evaluate(
        ReadyEngine(),
        ReadyTokenizer(),
        [
            Problem(
                id=f"toy/test/{i}", question=f"How much is {i}?", gold="18", grader="math",
                language="",
            )
            for i in range(num_samples // K)
        ],
        template=get_template("r1-zero"),
        params=SamplingParams(temperature=0.6, max_new_tokens=TOKENS),
        k=K,
        seed=0,
        arm="after",
        suite="toy",
        grader=ReadyGrader(),
        origin=Origin(eval_serial=1, weights="ab" * 32, grader_sha256="cd" * 32, engine=ENGINE),
        sink=sink,
    )  # fmt: skip


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    records: list[SampleRecord] = []
    measure(TIMED, records.append)
    with tempfile.TemporaryDirectory() as folder:
        costs = []
        for attempt in range(3):
            with ZstdJsonlWriter(Path(folder) / f"{attempt}.zst") as writer:
                started = time.process_time()
                with FrameWriter(writer) as frames:
                    for record in records:
                        frames.add(record)
                costs.append(1000 * (time.process_time() - started) / len(records))
        records.clear()
        path, started = Path(folder) / "all.zst", time.process_time()
        with ZstdJsonlWriter(path) as writer, FrameWriter(writer) as frames:
            measure(wanted, frames.add)
        whole_s, size = time.process_time() - started, path.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "benchmark": "evidence_recording",
                "recording_cpu_ms_per_sample": [round(c, 4) for c in costs],
                "goal_ms_per_sample": 0.3,
                "samples": wanted // K * K,
                "whole_evaluation_cpu_s": round(whole_s, 2),
                "peak_mb": round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1),
                "bytes_per_sample": round(size / wanted, 1),
                "machine": platform.machine(),
                "python": platform.python_version(),
            }
        )
    )


if __name__ == "__main__":
    main()
