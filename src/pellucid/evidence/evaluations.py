"""Evaluations of a run as a dossier ships them: samples as gzip lines, and the root over them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pellucid.artifacts import atomic_write_json
from pellucid.errors import RunError
from pellucid.evaluate.records import EvalResult, SampleRecord
from pellucid.evidence.core.schema import Root
from pellucid.evidence.core.tally import Evaluation
from pellucid.evidence.recording import RootRecorder
from pellucid.jsonl import read_zstd_jsonl
from pellucid.ledger import EvaluationAttempt, Event, evaluation_attempts

_GZIP_LEVEL = 6
DURING = "during"
"""Below a stage's evals/: the small evaluations of its training, and the end of their suite's name.
"""
SAMPLES_NAME = "samples.jsonl.gz"
ROOT_NAME = "root.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEvaluation:
    """A finished evaluation in a run folder. Example: path=…/evals/after-gsm8k.json"""

    path: Path
    result: EvalResult
    attempt: EvaluationAttempt

    @property
    def folder(self) -> str:
        """Of the dossier."""
        return f"evals/{self.attempt.suite}/{self.attempt.arm}"

    @property
    def samples(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.samples.jsonl.zst")


def kept_evaluations(
    folders: list[Path], events: list[Event]
) -> tuple[list[KeptEvaluation], list[str]]:
    """What was measured and can be shipped, in the order of the ledger, and a line for each that
    cannot.
    """
    attempts = {a.serial: a for a in evaluation_attempts(events) if a.is_complete}
    kept, missing = [], []
    for path in sorted(p for folder in folders for p in folder.glob("*.json")):
        result = EvalResult.from_json(path.read_text())
        attempt = attempts.get(result.origin.eval_serial)
        if attempt is None or not result.samples_root:
            missing.append(
                f"{path.name}: measured by a version that did not record where samples come from"
            )
        else:
            kept.append(KeptEvaluation(path=path, result=result, attempt=attempt))
    return sorted(kept, key=lambda one: one.attempt.serial), missing


def ship(one: KeptEvaluation, out: Path) -> Evaluation:
    """Writes samples and root.json of an evaluation below `out`; returns its tallies.

    Raises RunError where the samples are not those that the ledger recorded.
    """
    folder = out / one.folder
    folder.mkdir(parents=True)
    recorder, tallies, first = RootRecorder(), None, None
    with (
        (folder / SAMPLES_NAME).open("wb") as file,
        gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed,
    ):
        for record in _records(one.samples):
            sample = recorder.add(record)
            packed.write(recorder.line + b"\n")
            if tallies is None:
                first, tallies = sample, Evaluation(sample["suite"], sample["arm"], merkle_root="")
            tallies.add(sample)
    recorded = one.attempt.end.payload.get("merkle_root") if one.attempt.end else None
    if first is None or tallies is None or recorder.root() != recorded:
        raise RunError(
            f"{one.samples} does not hold the samples whose root the ledger recorded: restore it"
        )
    tallies.merkle_root = recorder.root()
    root: Root = {
        "v": 1,
        "suite": first["suite"],
        "arm": first["arm"],
        "eval_serial": one.attempt.serial,
        "merkle_root": recorder.root(),
        "recorded_root": recorder.root(),
        "count": recorder.count,
        "expected": len(one.result.problems) * one.result.k,
        "redacted": 0,
        "k": one.result.k,
        "model": first["model"],
        "template_sha256": first["template_sha256"],
        "grader_sha256": first["grader_sha256"],
        "seed": first["seed"],
    }
    atomic_write_json(folder / ROOT_NAME, root)
    return tallies


def _records(path: Path) -> Iterator[SampleRecord]:
    if not path.is_file():
        raise RunError(f"{path} is missing: restore it, or run the evaluation again")
    for fields in read_zstd_jsonl(path):
        yield SampleRecord.from_dict(fields)
