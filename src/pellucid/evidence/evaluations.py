"""Evaluations of a run as a dossier ships them: samples as gzip lines, and the root over them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pellucid.artifacts import atomic_write_json
from pellucid.errors import RunError
from pellucid.evaluate.records import EvalResult, SampleRecord
from pellucid.evidence.core.packed import START, Packer, PackError, Unpacker
from pellucid.evidence.core.samples import MAX_LINE_BYTES, Sample, SampleError, gzip_lines
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


def ship(one: KeptEvaluation, out: Path, texts: Mapping[int, bytes] | None = None) -> Evaluation:
    """Writes samples and root.json of an evaluation below `out`; returns its tallies.

    `texts`: of the model's tokens, for packed samples (`core.packed`); None: plain ones. Raises
    RunError where the samples are not those that the ledger recorded.
    """
    folder = out / one.folder
    folder.mkdir(parents=True)
    recorder, tallies, first = RootRecorder(), Evaluation("", "", merkle_root=""), None
    with SamplesWriter(folder / SAMPLES_NAME, texts) as writer:
        for record in _records(one.samples):
            sample = recorder.add(record)
            writer.add(recorder.line, sample)
            tallies.add(sample)
            first = first or sample
    end = one.attempt.end.payload if one.attempt.end else {}
    if first is None or recorder.root() != end.get("merkle_root"):
        raise RunError(
            f"{one.samples} does not hold the samples whose root the ledger recorded: restore it"
        )
    tallies.suite, tallies.arm = first["suite"], first["arm"]
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


class SamplesWriter:
    """A samples.jsonl.gz being written, the same bytes for the same samples.

    Packed samples are stored without compression: who packs sends the whole dossier as one archive,
    which finds what the files have in common.
    """

    def __init__(self, path: Path, texts: Mapping[int, bytes] | None) -> None:
        self._packer = None if texts is None else Packer(texts)
        self._file = path.open("wb")
        level = _GZIP_LEVEL if texts is None else 0
        self._gzip = gzip.GzipFile("", "wb", level, self._file, mtime=0)

    def add(self, line: bytes, sample: Sample) -> None:
        """One more sample, and its canonical line."""
        lines = [line] if self._packer is None else self._packer.lines(line, sample)
        for one in lines:
            self._gzip.write(one + b"\n")

    def __enter__(self) -> SamplesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._gzip.close()
        self._file.close()


def packed_texts(path: Path) -> dict[int, bytes] | None:
    """The tokens' texts of packed samples; None: they are plain. Raises SampleError."""
    with path.open("rb") as file:
        lines = gzip_lines(file, path.stat().st_size)
        header = next(lines, b"")
        if not header.startswith(START):
            return None
        try:
            unpacker = Unpacker(header, MAX_LINE_BYTES)
            for line in lines:
                unpacker.line(line)
        except PackError as error:
            raise SampleError(f"packed samples: {error}") from None
    return unpacker.texts


def _records(path: Path) -> Iterator[SampleRecord]:
    if not path.is_file():
        raise RunError(f"{path} is missing: restore it, or run the evaluation again")
    for fields in read_zstd_jsonl(path):
        yield SampleRecord.from_dict(fields)
