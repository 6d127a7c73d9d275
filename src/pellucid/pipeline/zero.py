"""The R1-Zero job: measure the base, train, measure the trained model, report.

    recipe → plan → suites (before) → GRPO steps with checkpoints → suites (after) → result

What the recipe names is looked up before anything costs time. Every part keeps its results as
files, and what is on disk is not done again, so a killed job continues with the same
command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pellucid.algo.presets import resolve
from pellucid.artifacts import RunFolder, StageFolder, atomic_write_json, open_run, sha256_file
from pellucid.config import RunConfig
from pellucid.config_io import dump_recipe
from pellucid.data.load import load_problems, require_sandbox
from pellucid.data.mixture import Mixture
from pellucid.energy.meter import open_meter
from pellucid.evaluate.records import EvalResult
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, Ledger
from pellucid.manifest import code_state, write_manifest
from pellucid.pipeline.controls import ControlRuns, as_exported
from pellucid.pipeline.diary import Diary, stop_on_sigterm
from pellucid.pipeline.evaluations import Evaluations, Instruments
from pellucid.pipeline.grading import grading_of, open_grader
from pellucid.pipeline.measure import load_suites
from pellucid.pipeline.result import RunOutcome, build_result
from pellucid.pipeline.rl_stage import RlStage
from pellucid.pipeline.screening import Screening, screen
from pellucid.pipeline.small_evaluations import SmallEvaluations
from pellucid.pipeline.workbench import free_memory, metered_gpus
from pellucid.report.page import write_report
from pellucid.rewards.pool import GraderPool
from pellucid.rewards.terms import check_terms
from pellucid.runlog import Progress
from pellucid.tasks.templates import get_template

STAGE = "zero"


def run(
    config: RunConfig, out: Path, *, set_by_hand: Mapping[str, str], progress: Progress
) -> RunOutcome:
    """Runs a recipe into `out`, or continues it. Raises UserError, NumericsError or Interrupted."""
    plan = make_plan(config)
    with open_run(out, dump_recipe(config, set_by_hand)) as (folder, is_resumed):
        ledger = Ledger(folder.ledger)
        try:
            if _is_finished(folder, ledger):
                progress.say(f"{out} is finished: this is its result (another --out runs it anew)")
                return _finished_outcome(folder)
            ledger.append(
                EventKind.RESUMED if is_resumed else EventKind.RUN_STARTED,
                recipe=sha256_file(folder.recipe),
            )
            if plan.screening is not None:
                plan.screening.record(folder.root, ledger)
                progress.say(plan.screening.line)
            metered = open_meter(folder.energy, metered_gpus(config.device))
            with stop_on_sigterm() as should_stop, metered as meter:
                diary = Diary(ledger=ledger, progress=progress, meter=meter)
                outcome = ZeroJob(config, plan, folder, diary, should_stop).run()
        finally:
            ledger.close()
        if config.evidence.dossier:
            from pellucid.pipeline.dossier import finish

            finish(out, config.evidence, progress)
        return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a recipe names, looked up."""

    suites: tuple[Suite, ...]
    mixture: Mixture
    """To train on."""
    screening: Screening | None
    """Of the training problems against the suites; None: all of one side is generated."""


def make_plan(config: RunConfig) -> Plan:
    """What is missing or misspelt is found here, before a folder is made and a model measured."""
    check_terms(config.reward.terms)
    get_template(config.task.template)
    resolve(config.algo)
    task = config.task
    require_sandbox([task.name, *(s.name for s in config.eval.suites)], unsafe=config.unsafe_code)
    suites = load_suites(config)
    problems = load_problems(
        task.name, task.split, limit=task.limit, data_dir=task.data_dir, seed=config.seed
    )
    screening = screen(problems, suites, config.data.contamination, seed=config.seed)
    kept = problems if screening is None else screening.kept
    return Plan(suites=suites, mixture=Mixture.single(kept, config.seed), screening=screening)


def _is_finished(folder: RunFolder, ledger: Ledger) -> bool:
    """The ledger ends a run only when all is written; a result changed since then is made again."""
    ended = ledger.last(EventKind.RUN_ENDED)
    if ended is None or not folder.result.is_file():
        return False
    return sha256_file(folder.result) == ended.payload["result"]


def _finished_outcome(folder: RunFolder) -> RunOutcome:
    report = folder.report if folder.report.is_file() else write_report(folder.root)
    return RunOutcome(
        folder=folder.root, report=report, result=json.loads(folder.result.read_text())
    )


class _Measured(NamedTuple):
    """What the training and its two measurements gave."""

    base: str
    """Digest of the base's weights."""
    device: str
    before: dict[str, EvalResult]
    after: dict[str, EvalResult]


class ZeroJob:
    """One R1-Zero stage in a run folder that is open for writing."""

    def __init__(
        self,
        config: RunConfig,
        plan: Plan,
        folder: RunFolder,
        diary: Diary,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.stage: StageFolder = folder.stage(1, STAGE)
        self.diary = diary
        self.code = code_state()
        """As loaded now: the checkout may move on while the job runs."""
        self.training = RlStage(
            config=config,
            mixture=plan.mixture,
            stage=self.stage,
            diary=self.diary,
            should_stop=should_stop,
        )
        self.evaluations = Evaluations(
            folder=self.stage.evals,
            seed=config.seed,
            grading=grading_of(config),
            diary=self.diary,
            should_stop=should_stop,
        )
        self.controls = ControlRuns(
            config=config,
            mixture=plan.mixture,
            run=folder,
            suites=plan.suites,
            diary=self.diary,
            should_stop=should_stop,
        )

    def run(self) -> RunOutcome:
        """All parts in order; what is there already is read."""
        with open_grader(self.training.config) as grader:
            measured = self._train_and_measure(grader)
            free_memory()  # a control needs the room
            self.controls.train_and_measure(grader)
        return self._finish(measured)

    def _train_and_measure(self, grader: GraderPool) -> _Measured:
        ledger, suites = self.diary.ledger, self.plan.suites
        started = ledger.last(EventKind.STAGE_STARTED)
        chosen = self.training.settle({} if started is None else started.payload)
        bench = self.training.open()
        ledger.append(EventKind.STAGE_STARTED, stage=STAGE, model=bench.loaded.digest, **chosen)
        self._file_plan()
        measure_all = self.evaluations.measure_all
        before = measure_all("before", suites, lambda: Instruments(bench, grader))
        looks, instruments = self._small_evaluations(), Instruments(bench, grader)
        self.training.train(bench, grader, lambda step: looks.after_update(step, instruments))
        # Exported before it is measured: its samples name the files that answered.
        self.training.export(bench)
        trained = as_exported(bench, self.stage.model)
        asked = [s for s in suites if not s.baseline_only]
        after = measure_all("after", asked, lambda: Instruments(trained, grader))
        return _Measured(bench.loaded.digest, bench.device_name, before, after)

    def _file_plan(self) -> None:
        """Before anything is measured: what will be claimed, and how it will be decided."""
        config = self.training.config
        if config.evidence.dossier:
            from pellucid.pipeline.dossier import file_run_plan, open_key

            run, progress = self.folder.root, self.diary.progress
            key = open_key(config.evidence.key, run.parent, progress)
            file_run_plan(config, run, self.diary.ledger, key, progress)

    def _contamination(self) -> dict[str, object]:
        screening = self.plan.screening
        return {} if screening is None else {"contamination": screening.summary}

    def _small_evaluations(self) -> SmallEvaluations:
        """On the first suite."""
        config = self.training.config
        return SmallEvaluations(
            stage=self.stage,
            suite=self.plan.suites[0],
            every=config.train.eval_every,
            limit=config.eval.during_limit,
            seed=config.seed,
            grading=grading_of(config),
            diary=self.diary,
        )

    def _finish(self, measured: _Measured) -> RunOutcome:
        result = build_result(
            self.plan.suites,
            measured.before,
            measured.after,
            wall_s=self.diary.wall_s(),
            device=measured.device,
        )
        atomic_write_json(self.folder.result, result)
        write_manifest(
            self.stage.manifest,
            stage=STAGE,
            digest=sha256_file(self.folder.recipe),
            inputs={"model": measured.base, "recipe": sha256_file(self.folder.recipe)},
            outputs={
                str(path.relative_to(self.stage.root)): sha256_file(path)
                for path in sorted(p for p in self.stage.evals.rglob("*") if p.is_file())
            }
            | {"metrics.jsonl": sha256_file(self.stage.metrics)}
            | {
                f"model/{path.name}": sha256_file(path)
                for path in sorted(self.stage.model.glob("*.safetensors"))
            },
            seed=self.training.config.seed,
            device=measured.device,
            more={"code": self.code, **self._contamination()},
        )
        ledger = self.diary.ledger
        ledger.append(EventKind.STAGE_ENDED, stage=STAGE)
        ledger.append(EventKind.RUN_ENDED, result=sha256_file(self.folder.result))
        report = write_report(self.folder.root)
        return RunOutcome(folder=self.folder.root, report=report, result=result)
