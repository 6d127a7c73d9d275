"""Processor milliseconds a sample that recording costs, and the memory of many, as JSON lines.

Recording is what an evaluation does with a graded sample: its line in the run folder, its leaf in
the Merkle tree. The second part measures an evaluation of N samples into a folder with a scripted
engine, its result included, and then what a dossier's builder does with it, each in a process of
its own that reports the most memory it ever held. Answers differ as they do in practice: most are
right, the others one of a few thousand. Goals: 0.3 ms, and 500 MB for a million: measure two sizes
and draw a line through them.

    python benchmarks/evidence_recording.py [N, default 50,000]
"""

from __future__ import annotations

import itertools
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from pellucid.artifacts import atomic_write_text
from pellucid.evaluate.records import EvalResult, Origin, SampleRecord
from pellucid.evaluate.runner import evaluate
from pellucid.evidence.evaluations import kept_evaluations, ship
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.ledger import EventKind, Ledger
from pellucid.pipeline.measure import FrameWriter
from pellucid.records import Completion, Problem, SamplingParams, Score, StopReason, Verdict
from pellucid.tasks.templates import get_template

K, TOKENS, TIMED = 16, 256, 5000
TEXT = "So she has 16 - 3 - 4 = 9 eggs left. " * 12 + "</think> <answer>18</answer>"
ENGINE = {"name": "pellucid", "version": "1", "dtype": "bfloat16", "exact": True}


class ReadyEngine:
    """Completions without a model; token ids differ, as a real model's do."""

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        groups = [[_completion(i) for i in request.sample_ids] for request in requests]
        for index, group in enumerate(groups):
            on_group(index, group)
        return groups


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
    """Half right, half wrong, each answer an object of its own."""

    def __init__(self):
        self._number = itertools.count()

    def submit(self, problems, responses):
        pending = Future()
        pending.set_result(self.grade(problems, responses))
        return pending

    def grade(self, problems, responses):
        return [
            Score(verdict=Verdict.CORRECT, extracted=f"{1}8", method="strict")
            if i % 2
            else Score(verdict=Verdict.WRONG, extracted=f"{i * 37 % 4001}", method="strict")
            for _, i in zip(responses, self._number, strict=False)
        ]


def measure(num_samples: int, sink) -> EvalResult:
    """An evaluation of so many samples."""
    return evaluate(
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


def record(folder: Path, wanted: int) -> None:
    """As `pipeline.measure.measure_into` does."""
    path = folder / "after-toy.samples.jsonl.zst"
    with ZstdJsonlWriter(path) as writer, FrameWriter(writer) as frames:
        result = measure(wanted, frames.add)
    leaves = frames.leaves
    result = replace(result, samples_root=leaves.root(), sealed_verdicts=leaves.verdicts())
    atomic_write_text(folder / "after-toy.json", result.to_json())
    ledger = Ledger(folder / "ledger.jsonl")
    facts = {"serial": 1, "suite": "toy", "arm": "after"}
    ledger.append(EventKind.EVALUATION_STARTED, **facts)
    ended = {"merkle_root": result.samples_root, **result.sealed_verdicts}
    ledger.append(EventKind.EVALUATION_ENDED, **facts, **ended)
    ledger.close()


def build(folder: Path, wanted: int) -> None:
    """As `evidence.build` does."""
    ledger = Ledger(folder / "ledger.jsonl")
    kept, _ = kept_evaluations([folder], ledger.events)
    ledger.close()
    for one in kept:
        ship(one, folder / "dossier")


def milliseconds() -> list[float]:
    """Of recording one sample, three times."""
    records: list[SampleRecord] = []
    measure(TIMED, records.append)
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(3):
            with ZstdJsonlWriter(Path(folder) / f"{attempt}.zst") as writer:
                started = time.process_time()
                with FrameWriter(writer) as frames:
                    for sample in records:
                        frames.add(sample)
                costs.append(round(1000 * (time.process_time() - started) / len(records), 4))
    return costs


def step(name: str, folder: Path, wanted: int) -> None:
    """One step, and what it took."""
    started = time.process_time()
    {"record": record, "build": build}[name](folder, wanted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _say(
        step=name,
        samples=wanted // K * K,
        cpu_s=round(time.process_time() - started, 2),
        peak_mb=round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1),
        bytes_on_disk=sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
    )


def _say(**facts: object) -> None:
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "evidence_recording"} | facts | machine), flush=True)


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    if len(sys.argv) == 4:
        return step(sys.argv[2], Path(sys.argv[3]), wanted)
    _say(recording_cpu_ms_per_sample=milliseconds(), goal_ms_per_sample=0.3)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("record", "build"):
            command = [sys.executable, __file__, str(wanted), name, folder]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
