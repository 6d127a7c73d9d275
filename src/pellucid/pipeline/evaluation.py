"""Models measured as they are: planned, recorded, continued after a kill; in a folder of its own.

    DIR/evaluation.toml   what was asked          DIR/stages/NN-NAME/weights/  the model's digests
    DIR/ledger.jsonl      every attempt           DIR/stages/NN-NAME/evals/    results and samples
    DIR/prereg/           the plan, filed before  DIR/energy/, result.json

The plan says before the first sample what will be claimed: every model's pass@1 on every suite and,
of several models, that each is above those named before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pellucid.artifacts import StageFolder, atomic_write_json, open_run, sha256_file, writing
from pellucid.config_io import load_recipe
from pellucid.data.load import require_sandbox
from pellucid.energy.meter import open_meter
from pellucid.errors import ModelError
from pellucid.evaluate.compare import compare
from pellucid.evaluate.records import EvalResult, arm_summary
from pellucid.evaluate.suites import Suite
from pellucid.evidence.claims import PlannedEvaluation, compared_claims
from pellucid.evidence.core.grade import grader_sha256
from pellucid.evidence.core.schema import PlannedClaim
from pellucid.evidence.known_models import describe_model
from pellucid.evidence.plan import PlanFacts, PlannedModel
from pellucid.evidence.training import WEIGHTS
from pellucid.ledger import EventKind, Ledger
from pellucid.manifest import code_state, write_manifest
from pellucid.model.load import resolve
from pellucid.pipeline.diary import Diary, stop_on_sigterm
from pellucid.pipeline.dossier import data_sets, file_same_plan, open_key
from pellucid.pipeline.dossier_scan import largest_threshold
from pellucid.pipeline.evaluation_options import AskedModel, EvaluationFolder, Options
from pellucid.pipeline.evaluations import Evaluations, Instruments
from pellucid.pipeline.grading import grading_of, open_grader
from pellucid.pipeline.measure import load_suites
from pellucid.pipeline.workbench import (
    free_memory,
    metered_gpus,
    open_run_workbench,
    trained_or_given,
)
from pellucid.runlog import Progress


def evaluate_models(
    options: Options, out: Path, key: str | None, progress: Progress
) -> list[dict[str, Any]]:
    """Measures all models on all suites into `out`, or continues there; a summary for each model
    and suite. `key`: private key that signs the plan. Raises UserError or Interrupted.
    """
    config = options.first
    require_sandbox([s.name for s in config.eval.suites], unsafe=config.unsafe_code)
    suites = {model.name: load_suites(model.config) for model in options.models}
    with open_run(out, options.text(), kind=EvaluationFolder) as (folder, is_resumed):
        ledger = Ledger(folder.ledger)
        try:
            if _is_finished(folder, ledger):
                progress.say(f"{out} is finished: this is its result (another --out measures anew)")
                return json.loads(folder.result.read_text())["results"]
            ledger.append(
                EventKind.RESUMED if is_resumed else EventKind.RUN_STARTED,
                recipe=sha256_file(folder.recipe),
            )
            signer = open_key(key, out.parent, progress)
            progress.say(f"graded with {grading_of(config).words()}")
            file_same_plan(plan_facts(options, suites), folder.root, ledger, signer, progress)
            metered = open_meter(folder.energy, metered_gpus(config.device))
            with stop_on_sigterm() as should_stop, metered as meter:
                diary = Diary(ledger=ledger, progress=progress, meter=meter)
                results = [
                    _Measurement(folder, number, model, diary, should_stop).run(suites[model.name])
                    for number, model in enumerate(options.models, 1)
                ]
            summaries = _summaries(options, suites, results)
            atomic_write_json(folder.result, {"results": summaries})
            ledger.append(EventKind.RUN_ENDED, result=sha256_file(folder.result))
        finally:
            ledger.close()
    return summaries


def planned(
    options: Options, suites: Mapping[str, Sequence[Suite]]
) -> tuple[list[PlannedEvaluation], list[PlannedClaim]]:
    """Every model on every suite, and what is claimed of them."""
    names = [model.name for model in options.models]
    asked = [PlannedEvaluation(model=name, suite=s) for name in names for s in suites[name]]
    return asked, compared_claims(asked, names)


def plan_facts(options: Options, suites: Mapping[str, Sequence[Suite]]) -> PlanFacts:
    """What the plan of an evaluation is made of; the last model is the one that is shown."""
    evaluations, claims = planned(options, suites)
    last, sets = options.models[-1], {}
    for model in options.models:
        sets |= data_sets(model.config, {suite.key: suite for suite in suites[model.name]})
    return PlanFacts(
        models=[
            PlannedModel(
                name=model.name,
                role="subject" if model is last else "rival",
                weights=model.weights,
            )
            for model in options.models
        ],
        evaluations=evaluations,
        seed=options.first.seed,
        grader_sha256=grader_sha256(),
        claims=claims,
        training_seeds=0,
        sets=sets,
        cutoff=_cutoff(options),
        clean_below=largest_threshold([suite for own in suites.values() for suite in own]),
    )


def _cutoff(options: Options) -> str | None:
    """The latest that the recipe of a run among the models names; None: none does."""
    recipes = [Path(model.config.model.id) / "recipe.toml" for model in options.models]
    days = [load_recipe(path)[0].evidence.cutoff for path in recipes if path.is_file()]
    return max((day for day in days if day is not None), default=None)


def _is_finished(folder: EvaluationFolder, ledger: Ledger) -> bool:
    ended = ledger.last(EventKind.RUN_ENDED)
    if ended is None or not folder.result.is_file():
        return False
    return sha256_file(folder.result) == ended.payload["result"]


class _Measurement:
    """One model of an evaluation."""

    def __init__(
        self,
        folder: EvaluationFolder,
        number: int,
        model: AskedModel,
        diary: Diary,
        should_stop: Callable[[], bool],
    ) -> None:
        self.model, self.diary, self.should_stop = model, diary, should_stop
        self.options_sha256 = sha256_file(folder.recipe)
        self.stage = StageFolder(folder.root / "stages" / f"{number:02d}-{model.name}")
        self.code = code_state()

    def run(self, suites: Sequence[Suite]) -> dict[str, EvalResult]:
        """Results by suite; what a killed process had finished is read."""
        with writing(self.stage.evals):
            self.stage.evals.mkdir(parents=True, exist_ok=True)
        self._record_weights()
        config = self.model.config
        evaluations = Evaluations(
            folder=self.stage.evals,
            seed=config.seed,
            grading=grading_of(config),
            diary=self.diary,
            should_stop=self.should_stop,
        )
        with ExitStack() as stack:

            @cache
            def instruments() -> Instruments:
                grader = stack.enter_context(open_grader(config))
                return Instruments(open_run_workbench(config, self.diary.progress), grader)

            results = evaluations.measure_all(self.model.name, suites, instruments)
            instruments.cache_clear()
        free_memory()  # the next model needs the room
        self._record(results)
        return results

    def _record_weights(self) -> None:
        """The bytes are named before they answer anything."""
        weights = describe_model(resolve(trained_or_given(self.model.config.model)))
        atomic_write_json(self.stage.root / WEIGHTS, weights)
        if weights["root"] != self.model.weights:
            raise ModelError(
                f"the files of {self.model.config.model.id} changed while they were read: "
                "let whatever writes them finish, then give the same command again"
            )

    def _record(self, results: Mapping[str, EvalResult]) -> None:
        """The manifest, last; one that is there tells of the process that measured."""
        if self.stage.manifest.is_file():
            return
        last = list(results.values())[-1]
        files = sorted(p for p in self.stage.root.rglob("*") if p.is_file())
        write_manifest(
            self.stage.manifest,
            stage=self.stage.stage_name,
            digest=self.options_sha256,
            inputs={"model": self.model.weights, "options": self.options_sha256},
            outputs={p.relative_to(self.stage.root).as_posix(): sha256_file(p) for p in files},
            seed=self.model.config.seed,
            device=str(last.origin.engine["device"]),
            more={"code": self.code},
        )


def _summaries(
    options: Options,
    suites: Mapping[str, Sequence[Suite]],
    results: Sequence[Mapping[str, EvalResult]],
) -> list[dict[str, Any]]:
    """A summary for each model and suite, with its differences to the models before it."""
    summaries = []
    for number, (model, measured) in enumerate(zip(options.models, results, strict=True)):
        for suite in suites[model.name]:
            result = measured[suite.key]
            about = {
                "suite": suite.label,
                "arm": suite.arm(model.name),
                "model": model.config.model.id,
                "weights": model.weights,
            }
            differences = [
                {"over": options.models[i].name} | compare(other, result).to_dict()
                for i in range(number)
                for other in results[i].values()
                if [p.id for p in other.problems] == [p.id for p in result.problems]
            ]
            made = {
                "device": result.origin.engine["device"],
                "grading": asdict(grading_of(model.config)),
            }
            summaries.append(about | arm_summary(result) | made | {"differences": differences})
    return summaries
