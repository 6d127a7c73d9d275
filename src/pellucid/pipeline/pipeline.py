"""The runner of pipelines: each stage skipped, continued or run; each model measured.

    recipe → check → base measured → stage: claim its folder by address → run → manifest → measured
                                     … → stage table (result.json) → report

A stage whose address and outputs are unchanged is not run again, so the same command continues a
killed pipeline, and one with a changed recipe runs what the change concerns and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder, StageFolder, atomic_write_json, open_run, sha256_file
from pellucid.config_io import dump_recipe
from pellucid.config_stages import BASE, AnyStage, DistillConfig, PipelineConfig
from pellucid.energy.meter import open_meter
from pellucid.errors import Interrupted, RunError
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, Ledger
from pellucid.manifest import code_state, write_manifest
from pellucid.model.load import resolve, weights_digest
from pellucid.pipeline.address import (
    StageAddress,
    check_outputs,
    computing_sources,
    digest_outputs,
    input_digests,
    make_address,
    read_address,
    read_manifest,
)
from pellucid.pipeline.check import check_recipe
from pellucid.pipeline.diary import Diary, stop_on_sigterm
from pellucid.pipeline.distill.table import other_arms
from pellucid.pipeline.measure import as_asked, pipeline_suites
from pellucid.pipeline.measure_models import ModelMeasurer
from pellucid.pipeline.result import RunOutcome
from pellucid.pipeline.stage import StageContext, model_of_stage, stage_seed
from pellucid.pipeline.stage_folders import Claim, claim, difference, find_folder
from pellucid.pipeline.stage_table import Row, build_table
from pellucid.pipeline.stages import find_stage
from pellucid.pipeline.workbench import (
    describe_device,
    free_memory,
    metered_gpus,
    resolve_device,
    set_threads,
    trained_or_given,
)
from pellucid.report.page import write_report
from pellucid.runlog import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of a recipe one command does."""

    stages: Collection[str] | None = None
    """Names; None: all. What they build on must be finished then."""
    accepts_code: bool = False
    """Take what other code made as if this one had made it."""


def run_pipeline(
    recipe: PipelineConfig,
    out: Path,
    *,
    set_by_hand: Mapping[str, str],
    progress: Progress,
    choice: Choice | None = None,
) -> RunOutcome:
    """Runs a pipeline, or some of its stages, into `out`, or continues it.

    Raises UserError, NumericsError or Interrupted.
    """
    choice = choice or Choice()
    check_recipe(recipe, choice.stages)
    suites = pipeline_suites(recipe)
    text = dump_recipe(recipe, set_by_hand)
    with open_run(out, text, may_change=True) as (folder, is_resumed):
        ledger = Ledger(folder.ledger)
        try:
            ledger.append(
                EventKind.RESUMED if is_resumed else EventKind.RUN_STARTED,
                recipe=sha256_file(folder.recipe),
            )
            metered = open_meter(folder.energy, metered_gpus(recipe.device))
            with stop_on_sigterm() as should_stop, metered as meter:
                diary = Diary(ledger=ledger, progress=progress, meter=meter)
                job = PipelineJob(recipe, suites, folder, diary, should_stop, choice)
                outcome = job.run()
        finally:
            ledger.close()
        if recipe.evidence.dossier and job.is_whole:
            from pellucid.pipeline.dossier import finish

            finish(out, recipe.evidence, progress)
        return outcome


class PipelineJob:
    """A pipeline in a run folder that is open for writing."""

    def __init__(
        self,
        recipe: PipelineConfig,
        suites: tuple[Suite, ...],
        folder: RunFolder,
        diary: Diary,
        should_stop: Callable[[], bool],
        choice: Choice,
    ) -> None:
        self.recipe = recipe
        self.suites = suites
        self.folder = folder
        self.diary = diary
        self.should_stop = should_stop
        self.choice = choice
        self.code = code_state()
        """As loaded now: the checkout may move on while the job runs."""
        self.device = describe_device(resolve_device(recipe.device), set_threads(recipe.threads))
        self.finished: dict[str, StageFolder] = {}
        self.manifests: dict[str, dict[str, Any]] = {}
        self.rows: list[Row] = []
        self.measurer = ModelMeasurer(recipe, diary, should_stop)

    def run(self) -> RunOutcome:
        """All stages in order; what is there already is kept."""
        self._require_folders()
        self._file_plan()
        self._measure_base()
        chosen = self.choice.stages
        for number, stage in enumerate(self.recipe.stages, 1):
            if chosen is None or stage.name in chosen:
                self._advance(number, stage)
            else:
                self._recall(stage)
        return self._finish()

    @property
    def is_whole(self) -> bool:
        """Whether all stages of the recipe are finished."""
        return all(stage.name in self.finished for stage in self.recipe.stages)

    def _file_plan(self) -> None:
        """Before anything is measured: what will be claimed, and how it will be decided."""
        evidence = self.recipe.evidence
        if evidence.dossier:
            from pellucid.pipeline.dossier import file_run_plan, open_key

            root, progress = self.folder.root, self.diary.progress
            key = open_key(evidence.key, root.parent, progress)
            file_run_plan(self.recipe, root, self.diary.ledger, key, progress)

    def _measure_base(self) -> None:
        """The base has a folder and an address too, so that another base is another row."""
        model = trained_or_given(self.recipe.model)
        self.base_digest = weights_digest(resolve(model))
        address = StageAddress(
            values="", inputs={"weights": self.base_digest}, seed=0, code=computing_sources()
        )
        claimed = self._claim(0, BASE, address)
        suites = as_asked(self.suites, self.recipe, BASE)
        results = self.measurer.measure(BASE, model, claimed.stage, suites)
        self.rows.append(self._row(BASE, BASE, claimed.stage, claimed.address, results))

    def _claim(self, number: int, name: str, address: StageAddress) -> Claim:
        claimed = claim(self.folder, number, name, address, accepts_code=self.choice.accepts_code)
        if claimed.set_aside is not None:
            aside = claimed.set_aside.name
            self.diary.note(EventKind.STAGE_SET_ASIDE, stage=name, folder=aside)
            self.diary.progress.say(f"{name}: {claimed.reason}; what was made lies in {aside}")
        return claimed

    def _address(self, stage: AnyStage) -> StageAddress:
        inputs = input_digests(self.recipe, stage, self.base_digest, self.manifests)
        return make_address(self.recipe, stage, inputs, stage_seed(self.recipe.seed, stage.name))

    # Stages that this command runs

    def _advance(self, number: int, stage: AnyStage) -> None:
        """Skips, continues or runs a stage, and measures its model."""
        self._require_inputs(stage, self.finished)
        claimed = self._claim(number, stage.name, self._address(stage))
        manifest = read_manifest(claimed.stage)
        if manifest is None:
            manifest = self._run_stage(stage, claimed)
        else:
            check_outputs(claimed.stage, manifest)
            self.diary.progress.say(f"{stage.name} is finished: not run again")
        self.finished[stage.name], self.manifests[stage.name] = claimed.stage, manifest
        if claimed.stage.model.is_dir():
            self._measure_stage(stage, claimed.stage, claimed.address)

    def _require_folders(self) -> None:
        """Refuses, before the base is measured, what builds on a stage that never ran here."""
        chosen = self.choice.stages
        if chosen is None:
            return
        there = {s.stage_name for s in self.folder.stages() if s.manifest.is_file()} | {*chosen}
        for stage in self.recipe.stages:
            if stage.name in chosen:
                self._require_inputs(stage, there)

    def _require_inputs(self, stage: AnyStage, there: Collection[str]) -> None:
        for name in stage.references().values():
            if name != BASE and name not in there:
                kind = self.recipe.stage(name).kind
                raise RunError(
                    f"stage {stage.name} builds on {name}, which is not finished in "
                    f"{self.folder.root} as this recipe has it: give `pellucid {kind}` with the "
                    "same recipe and --out first"
                )

    def _run_stage(self, stage: AnyStage, claimed: Claim) -> dict[str, Any]:
        """Runs what is left of a stage; the manifest is written last."""
        if self.should_stop():
            raise Interrupted(f"before stage {stage.name}")
        facts = {"stage": stage.name, "kind": stage.kind, "address": claimed.address}
        self.diary.note(EventKind.STAGE_STARTED, **facts)
        self.diary.progress.say(f"stage {stage.name}")
        names = {n for n in stage.references().values() if n != BASE}
        context = StageContext(
            recipe=self.recipe,
            config=stage,
            stage=claimed.stage,
            inputs={name: self.finished[name] for name in names},
            address=claimed.address,
            ledger=self.diary.ledger,
            progress=self.diary.progress,
            should_stop=self.should_stop,
            started=self.diary.started,
        )
        with self.diary.window("stage", stage.name):
            find_stage(stage.kind)(context, stage)
        free_memory()
        address = self._address(stage)
        manifest = write_manifest(
            claimed.stage.manifest,
            stage=stage.name,
            digest=claimed.address,
            inputs=address.inputs,
            outputs=digest_outputs(claimed.stage),
            seed=context.seed,
            device=self.device,
            more={
                "kind": stage.kind,
                "address": claimed.address,
                "builds_on": stage.references(),
                "code": self.code,
            },
        )
        if not self.recipe.keep_checkpoints:
            claimed.stage.prune_checkpoints(0)
        self.diary.note(EventKind.STAGE_ENDED, **facts)
        return manifest

    def _measure_stage(self, stage: AnyStage, folder: StageFolder, address: str) -> None:
        suites = as_asked(self.suites, self.recipe, stage.name)
        trained = [s for s in suites if not s.baseline_only]
        model = model_of_stage(stage.name, folder)
        results = self.measurer.measure(stage.name, model, folder, trained)
        self.rows.append(self._row(stage.name, stage.kind, folder, address, results))
        if isinstance(stage, DistillConfig):
            for arm in other_arms(stage, folder):
                results = self.measurer.measure(
                    stage.name, arm.model, folder, trained, arm=arm.measured_as
                )
                self.rows.append(self._row(arm.measured_as, "arm", folder, address, results))

    # Stages that it does not run

    def _recall(self, stage: AnyStage) -> None:
        """Takes over a stage that is finished as this recipe has it; leaves any other alone."""
        references = [n for n in stage.references().values() if n != BASE]
        root = find_folder(self.folder, stage.name)
        if root is None or any(name not in self.finished for name in references):
            return
        folder, there = StageFolder(root), read_address(root)
        manifest = read_manifest(folder)
        accepts = self.choice.accepts_code
        if (
            manifest is None
            or there is None
            or difference(self._address(stage), there, accepts_code=accepts) is not None
        ):
            return
        check_outputs(folder, manifest)
        self.finished[stage.name], self.manifests[stage.name] = folder, manifest
        if folder.model.is_dir():
            suites = as_asked(self.suites, self.recipe, stage.name)
            results = self.measurer.kept(stage.name, folder, suites)
            self.rows.append(self._row(stage.name, stage.kind, folder, there["digest"], results))
            if isinstance(stage, DistillConfig):
                for arm in other_arms(stage, folder):
                    results = self.measurer.kept(arm.measured_as, folder, suites)
                    digest = there["digest"]
                    self.rows.append(self._row(arm.measured_as, "arm", folder, digest, results))

    # The table

    def _row(
        self, name: str, kind: str, folder: StageFolder, address: str, results: Mapping[str, Any]
    ) -> Row:
        return Row(
            name=name,
            kind=kind,
            folder=folder.root.relative_to(self.folder.root).as_posix(),
            address=address,
            results=results,
            seconds=self.diary.stage_seconds(address) if kind != "arm" else None,
        )

    def _finish(self) -> RunOutcome:
        result = build_table(self.rows, self.suites, wall_s=self.diary.wall_s(), device=self.device)
        atomic_write_json(self.folder.result, result)
        self.diary.note(EventKind.RUN_ENDED, result=sha256_file(self.folder.result))
        report = write_report(self.folder.root)
        return RunOutcome(folder=self.folder.root, report=report, result=result)
