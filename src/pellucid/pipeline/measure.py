"""Evaluations of a run: one arm (`before`, `after`) on one suite, kept beside the stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pellucid.artifacts import StageFolder, atomic_write_text
from pellucid.config import EvalConfig, RunConfig, SuiteConfig
from pellucid.data.load import load_problems
from pellucid.evaluate.records import EvalResult, SampleRecord
from pellucid.evaluate.runner import evaluate
from pellucid.jsonl import ZstdJsonlWriter
from pellucid.ledger import EventKind, Ledger
from pellucid.pipeline.workbench import Workbench
from pellucid.protocols import Grader, ProgressFn
from pellucid.records import Problem, SamplingParams
from pellucid.tasks.templates import get_template

SAMPLES_PER_FRAME = 1000
ProblemLoader = Callable[[SuiteConfig], list[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite of a recipe with everything that a measurement needs."""

    config: SuiteConfig
    label: str
    template: str
    problems: tuple[Problem, ...]
    params: SamplingParams


def load_suites(config: RunConfig) -> list[Suite]:
    """All suites of a recipe with their problems: missing data is missed before any work."""
    return [load_suite(suite, config.eval, config) for suite in config.eval.suites]


def load_suite(suite: SuiteConfig, settings: EvalConfig, config: RunConfig) -> Suite:
    """Problems, template and sampler of one suite."""
    template = suite.template or config.task.template
    problems = load_problems(
        suite.name,
        suite.split,
        limit=suite.limit,
        data_dir=Path(config.task.data_dir) if config.task.data_dir else None,
        seed=config.seed,
    )
    return Suite(
        config=suite,
        label=suite_label(suite, config.task.template),
        template=template,
        problems=tuple(problems),
        params=SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_new_tokens=suite.max_new_tokens or settings.max_new_tokens,
        ),
    )


def suite_label(suite: SuiteConfig, default_template: str) -> str:
    """Its name in tables and files."""
    if suite.label:
        return suite.label
    differs = suite.template is not None and suite.template != default_template
    return f"{suite.name}-{suite.template}" if differs else suite.name


def measure(
    bench: Workbench,
    suite: Suite,
    grader: Grader,
    *,
    arm: str,
    seed: int,
    sink: Callable[[SampleRecord], None] | None = None,
    progress: ProgressFn | None = None,
) -> EvalResult:
    """Draws and grades the samples of one suite with the model on the bench."""
    return evaluate(
        bench.engine,
        bench.loaded.tokenizer,
        suite.problems,
        template=get_template(suite.template),
        params=suite.params,
        k=suite.config.k,
        seed=seed,
        arm=arm,
        suite=suite.label,
        grader=grader,
        pass_at=suite.config.pass_at,
        sink=sink,
        progress=progress,
    )


def measure_into(
    folder: StageFolder,
    ledger: Ledger,
    bench: Workbench,
    suite: Suite,
    grader: Grader,
    *,
    arm: str,
    seed: int,
    progress: ProgressFn | None = None,
) -> EvalResult:
    """`measure`, kept in `evals/`; a measurement that is already there whole is read instead.

    Every start goes into the ledger, so an attempt that was not reported leaves a trace.
    """
    target = folder.evals / f"{arm}-{suite.label}.json"
    if target.exists():
        return EvalResult.from_json(target.read_text())
    samples = folder.evals / f"{arm}-{suite.label}.samples.jsonl.zst"
    samples.unlink(missing_ok=True)  # of an evaluation that was killed
    facts = {"arm": arm, "suite": suite.label, "problems": len(suite.problems), "k": suite.config.k}
    ledger.append(EventKind.EVALUATION_STARTED, **facts)
    records: list[SampleRecord] = []
    result = measure(
        bench, suite, grader, arm=arm, seed=seed, sink=records.append, progress=progress
    )
    with ZstdJsonlWriter(samples) as writer:
        for start in range(0, len(records), SAMPLES_PER_FRAME):
            writer.append_all(r.to_dict() for r in records[start : start + SAMPLES_PER_FRAME])
    atomic_write_text(target, result.to_json())
    ledger.append(EventKind.EVALUATION_ENDED, **facts, pass_at_1=result.pass_at_1.value)
    return result
