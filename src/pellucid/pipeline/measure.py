"""Evaluations: one arm (`before`, `after`, a model's name) on one suite, kept as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pellucid.artifacts import atomic_write_text, writing
from pellucid.config import RunConfig
from pellucid.config_stages import PipelineConfig
from pellucid.data.load import load_problems
from pellucid.evaluate.records import EvalResult, Origin, SampleRecord
from pellucid.evaluate.runner import evaluate
from pellucid.evaluate.suites import Suite, make_suites
from pellucid.evidence.core.grade import grader_sha256
from pellucid.evidence.recording import RootRecorder
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.pipeline.grading import Grading
from pellucid.pipeline.workbench import Workbench
from pellucid.protocols import ProgressFn, StreamGrader
from pellucid.tasks.templates import get_template

SUITE_SEED = 0
"""Held-out problems of a procedural task are the same in every run, whatever its seed."""
SAMPLES_PER_FRAME = 1000


def load_suites(config: RunConfig) -> tuple[Suite, ...]:
    """All suites of a recipe with their problems: missing data is missed before any work."""
    return make_suites(
        config.eval,
        default_template=config.task.template,
        load=lambda name, split, limit: load_problems(
            name, split, limit=limit, data_dir=config.task.data_dir, seed=SUITE_SEED
        ),
    )


def pipeline_suites(recipe: PipelineConfig) -> tuple[Suite, ...]:
    """All suites of a pipeline with their problems, as the base is asked; see `as_asked`."""
    return make_suites(
        recipe.eval,
        default_template=recipe.template,
        load=lambda name, split, limit: load_problems(
            name, split, limit=limit, data_dir=recipe.data_dir, seed=SUITE_SEED
        ),
    )


def as_asked(suites: Sequence[Suite], recipe: PipelineConfig, model: str) -> tuple[Suite, ...]:
    """The suites of `pipeline_suites` as the model of a stage, or `base`, is asked: those that
    name no template take the model's own, and keep their name in files and tables. Under another
    template than its own a model is another arm.
    """
    own = recipe.template_of(model)
    asked = zip(suites, recipe.eval.suites, strict=True)
    return tuple(
        replace(s, variant="" if s.template == own else s.template)
        if given.template
        else replace(s, template=own)
        for s, given in asked
    )


def measure(
    bench: Workbench,
    suite: Suite,
    grader: StreamGrader,
    *,
    arm: str,
    seed: int,
    weights: str,
    grading: Grading,
    serial: int = 0,
    sink: Callable[[SampleRecord], None] | None = None,
    progress: ProgressFn | None = None,
    graded: ProgressFn | None = None,
) -> EvalResult:
    """Draws and grades the samples of one suite with the model on the bench, whose root digest is
    `weights`; `grading` are the settings of the grader.
    """
    return evaluate(
        bench.engine,
        bench.loaded.tokenizer,
        suite.problems,
        template=get_template(suite.template),
        params=suite.params,
        k=suite.k,
        seed=seed,
        arm=arm,
        suite=suite.key,
        grader=grader,
        pass_at=suite.pass_at,
        origin=Origin(
            arm=suite.arm(arm),
            eval_serial=serial,
            weights=weights,
            grader_sha256=grader_sha256(),
            engine=bench.describe(),
            grading=asdict(grading),
        ),
        sink=sink,
        progress=progress,
        graded=graded,
    )


def measure_into(
    folder: Path,
    bench: Workbench,
    suite: Suite,
    grader: StreamGrader,
    *,
    arm: str,
    seed: int,
    weights: str,
    grading: Grading,
    serial: int = 0,
    progress: ProgressFn | None = None,
    graded: ProgressFn | None = None,
) -> EvalResult:
    """`measure`, kept as `ARM-SUITE.json` and `.samples.jsonl.zst`; the JSON is written last.

    Samples are written as they are graded, a thousand at a time, so memory does not grow with them.
    """
    samples = folder / f"{arm}-{suite.key}.samples.jsonl.zst"
    with writing(samples):
        samples.unlink(missing_ok=True)  # of an evaluation that was killed
    with ZstdJsonlWriter(samples) as writer, FrameWriter(writer) as frames:
        result = measure(
            bench,
            suite,
            grader,
            arm=arm,
            seed=seed,
            weights=weights,
            grading=grading,
            serial=serial,
            sink=frames.add,
            progress=progress,
            graded=graded,
        )
    leaves = frames.leaves
    result = replace(result, samples_root=leaves.root(), sealed_verdicts=leaves.verdicts())
    atomic_write_text(kept_result(folder, arm, suite), result.to_json())
    return result


class FrameWriter:
    """Records gathered to frames of a thousand: large enough to compress well."""

    def __init__(self, writer: ZstdJsonlWriter) -> None:
        self.leaves = RootRecorder()
        self._writer = writer
        self._waiting: list[SampleRecord] = []

    def add(self, record: SampleRecord) -> None:
        self._waiting.append(record)
        self.leaves.add(record)
        if len(self._waiting) == SAMPLES_PER_FRAME:
            self._flush()

    def _flush(self) -> None:
        self._writer.append_all(record.to_dict() for record in self._waiting)
        self._waiting.clear()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()


def kept_result(folder: Path, arm: str, suite: Suite) -> Path:
    """Where `measure_into` keeps a result."""
    return folder / f"{arm}-{suite.key}.json"
