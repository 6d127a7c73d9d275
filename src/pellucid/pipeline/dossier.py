"""The dossier of a run: its plan before anything is measured, its assembly when all is done.

What `evidence` needs and a run folder does not hold is looked up here: the recipe's suites, the
released and the base model, who published the data, the signing key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder, StageFolder
from pellucid.audit.contamination.corpus import ProblemSource, problem_items
from pellucid.audit.contamination.leaks import scan_and_test
from pellucid.audit.contamination.report import scan_json
from pellucid.audit.contamination.scan import Scanner
from pellucid.config import EvidenceConfig, RunConfig
from pellucid.config_io import Recipe, load_recipe
from pellucid.config_stages import BASE, PipelineConfig
from pellucid.data.load import load_problems
from pellucid.data.mixture import load_mixture
from pellucid.data.registry import DATASETS
from pellucid.errors import ModelError, RunError
from pellucid.evaluate.records import item_sha256
from pellucid.evaluate.suites import Suite
from pellucid.evidence.build import Built, Sources, build
from pellucid.evidence.claims import PlannedEvaluation, default_claims
from pellucid.evidence.core.grade import grader_sha256
from pellucid.evidence.core.schema import DataSet, Preregistration
from pellucid.evidence.core.schema_training import Scan
from pellucid.evidence.core.verify import Verdict, verify
from pellucid.evidence.plan import (
    PlanFacts,
    PlannedModel,
    check_same_plan,
    file_plan,
    filed_plan,
    make_plan,
)
from pellucid.evidence.seal import Key, has_cryptography, make_key, read_key, seal_dossier
from pellucid.evidence.weights import weights_root
from pellucid.ledger import Ledger
from pellucid.model.load import resolve
from pellucid.pipeline.controls import control_folder, control_names
from pellucid.pipeline.generated_scan import scan_generated
from pellucid.pipeline.measure import as_asked, load_suites, pipeline_suites
from pellucid.pipeline.screening import SCAN_FILE
from pellucid.pipeline.workbench import trained_or_given
from pellucid.records import Problem
from pellucid.runlog import Progress
from pellucid.tasks import procedural
from pellucid.tasks.templates import get_template

BEFORE, AFTER = "before", "after"
KEY_NAME = "dossier.key"
DOSSIER = "dossier"
"""Below the run folder."""
TRAINING = "training problems"
GENERATED = "generated from a seed"


def user_key() -> Path:
    """Where a person keeps a key for all runs."""
    return Path.home() / ".config" / "pellucid" / KEY_NAME


def key_place(dossier: Path) -> Path:
    """Folder in which a dossier's own key is looked for: beside its run, or beside itself."""
    is_in_run = (dossier.parent / "recipe.toml").is_file()
    return dossier.parent.parent if is_in_run else dossier.parent


def open_key(wanted: str | None, beside: Path, progress: Progress) -> Key | None:
    """The key that signs, made beside the run where there is none; None: this installation cannot
    sign, which is said.
    """
    if wanted is not None:
        return read_key(Path(wanted).expanduser())
    if not has_cryptography():
        progress.say("not signed: pip install 'pellucid[sign]' to sign plans and dossiers")
        return None
    if user_key().is_file():
        return read_key(user_key())
    path = beside / KEY_NAME
    if path.is_file():
        return read_key(path)
    key = make_key(path)
    progress.say(f"made a signing key, {path}: keep it, and publish its id {key.id}")
    return key


# The plan


def file_run_plan(
    recipe: Recipe, run: Path, ledger: Ledger, key: Key | None, progress: Progress
) -> Preregistration:
    """Files the plan of a recipe, or checks the one that was filed. RunError where they differ."""
    filed = filed_plan(run, ledger)
    plan = make_plan(plan_facts(recipe), ledger.events)
    if filed is not None:
        check_same_plan(filed, plan)
        return filed
    file_plan(run, ledger, plan, key)
    tested = sum(claim["test"] is not None for claim in plan["claims"])
    progress.say(f"plan {plan['id']} is filed: {tested} claims to be decided by the samples")
    return plan


def plan_facts(recipe: Recipe) -> PlanFacts:
    """Who is asked what, by a recipe. Raises ModelError where its base cannot be found."""
    base = weights_root(resolve(trained_or_given(recipe.model)))
    if isinstance(recipe, PipelineConfig):
        names = [stage.name for stage in recipe.stages if stage.kind not in _NOT_MEASURED]
        others = [PlannedModel(name=n, role="rival", weights=None) for n in names[:-1]]
        models = [
            PlannedModel(name=BASE, role="baseline", weights=base),
            *others,
            PlannedModel(name=names[-1], role="subject", weights=None),
        ]
    else:
        models = [
            PlannedModel(name=BEFORE, role="baseline", weights=base),
            PlannedModel(name=AFTER, role="subject", weights=None),
            *(
                PlannedModel(name=name, role="control", weights=None)
                for name in control_names(recipe.controls)
            ),
        ]
    return PlanFacts(
        models=models,
        evaluations=planned_evaluations(recipe, [model.name for model in models]),
        seed=recipe.seed,
        grader_sha256=grader_sha256(),
    )


_NOT_MEASURED = ("reward-models", "distill")
"""Stages that do not end with one model which is asked the recipe's suites."""


def planned_evaluations(recipe: Recipe, models: Sequence[str]) -> list[PlannedEvaluation]:
    """Every suite on every model, the base first; some suites are for the base alone."""
    found = []
    for number, model in enumerate(models):
        for suite in _suites(recipe, model):
            if number == 0 or not suite.baseline_only:
                found.append(PlannedEvaluation(model=model, suite=suite))
    return found


def _suites(recipe: Recipe, model: str) -> tuple[Suite, ...]:
    if isinstance(recipe, PipelineConfig):
        return as_asked(pipeline_suites(recipe), recipe, model)
    return load_suites(recipe)


# Assembly


def build_dossier(run: Path, out: Path | None, progress: Progress) -> Built:
    """The dossier of a finished run, not sealed. UserError where the run holds too little."""
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise RunError(f"{run} is no run folder (it has no recipe.toml): name one that `run` made")
    recipe, _ = load_recipe(folder.recipe)
    released = folder.last_model()
    if released is None:
        raise RunError(f"{run} holds no trained model yet: let `pellucid run` finish it first")
    is_pipeline = isinstance(recipe, PipelineConfig)
    base, subject = (BASE, released.stage_name) if is_pipeline else (BEFORE, AFTER)
    evaluations = planned_evaluations(recipe, [base, subject])
    suites = {one.suite.key: one.suite for one in evaluations}
    with progress.task("building the dossier", 1, "dossier") as tick:
        sources = Sources(
            model=released.model,
            base=_base(recipe),
            sets=data_sets(recipe, suites),
            claims=default_claims(evaluations, base=base, subject=subject),
            reward_weights=_reward_weights(recipe, released),
            prefill=get_template(_template(recipe, released)).prefill,
            scan=scan_of(recipe, folder, list(suites.values())),
            controls=[] if is_pipeline else control_folders(folder, recipe),
        )
        built = build(folder, sources, out if out is not None else run / DOSSIER)
        tick(1, 1)
    return built


def seal(dossier: Path, key: Key | None) -> int:
    """Seals a dossier as its next version, whose number is returned."""
    ledger = Ledger(dossier / "ledger.jsonl")
    ledger.close()
    return seal_dossier(dossier, key, ledger.events)


def finish(run: Path, evidence: EvidenceConfig, progress: Progress) -> Verdict:
    """Builds, seals and verifies the dossier of a run that has just ended, and says what came of
    it. A dossier that does not hold is no failure of the run: it is said.
    """
    key = open_key(evidence.key, run.parent, progress)
    built = build_dossier(run, None, progress)
    version = seal(built.folder, key)
    verdict = verify(built.folder)
    progress.say(
        f"dossier {built.folder}, version {version}: {built.held} of {built.tested} claims hold; "
        f"{built.samples} samples"
    )
    faults = [f for f in verdict.findings if not f.kind.is_note]
    if faults:
        progress.say(f"the dossier does not hold: {faults[0].code}, {faults[0].text}")
    else:
        progress.say("verified: all that can be checked holds")
    return verdict


def control_folders(run: RunFolder, recipe: RunConfig) -> list[StageFolder]:
    """Folders of the controls that were run."""
    return [control_folder(run, name) for name in control_names(recipe.controls)]


def _base(recipe: Recipe) -> Path | None:
    try:
        return resolve(trained_or_given(recipe.model))
    except (ModelError, RunError):
        return None  # named in the dossier as missing


def _reward_weights(recipe: Recipe, released: StageFolder) -> Mapping[str, float]:
    if isinstance(recipe, PipelineConfig):
        reward = getattr(recipe.stage(released.stage_name), "reward", None)
        return reward.terms if reward is not None else {}
    return recipe.reward.terms


def _template(recipe: Recipe, released: StageFolder) -> str:
    if isinstance(recipe, PipelineConfig):
        return recipe.template_of(released.stage_name)
    return recipe.task.template


def data_sets(recipe: Recipe, suites: Mapping[str, Suite]) -> dict[str, DataSet]:
    """Who published each suite's problems, and their digests."""
    names = dict(zip(suites, recipe.eval.suites, strict=True))
    found = {}
    for key, suite in suites.items():
        about = DATASETS.get(names[key].name)
        first_public = about.first_public[:10] if about is not None else None
        found[key] = {
            "v": 1,
            "suite": key,
            "source": f"{about.repository} at {about.revision}" if about else GENERATED,
            "licence": about.licence if about is not None else "Apache-2.0",
            "items": {
                p.id: {"sha256": item_sha256(p), "first_public": first_public, "is_fresh": False}
                for p in suite.problems
            },
        }
    return found


def scan_of(recipe: Recipe, run: RunFolder, suites: Sequence[Suite]) -> Scan | None:
    """The scan that the run made; suites that it leaves out are scanned now: generated ones for
    equal questions, published ones for near copies.
    """
    path = run.root / SCAN_FILE
    document: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    absent = [suite for suite in suites if suite.key not in document.get("suites", {})]
    problems = _training_problems(recipe) if absent else []
    generated = [suite for suite in absent if _is_generated(suite)]
    published = [suite for suite in absent if not _is_generated(suite)]
    if generated and problems:
        document = _merged(document, scan_generated(generated, problems))
    if published and problems:
        items = [item for s in published for item in problem_items(s.key, list(s.problems))]
        sources = [ProblemSource(TRAINING, problems)]
        scan, test = scan_and_test(Scanner(items), sources, seed=recipe.seed)
        document = _merged(scan_json(scan, test), document)
    return document or None  # type: ignore[return-value]


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both scans' suites; all else is the first's, where it says anything."""
    suites = {**second.get("suites", {}), **first.get("suites", {})}
    return {**second, **first, "suites": suites}


def _is_generated(suite: Suite) -> bool:
    return all(procedural(p.id.rsplit("/", 2)[0]) is not None for p in suite.problems)


def _training_problems(recipe: Recipe) -> list[Problem]:
    if isinstance(recipe, PipelineConfig):
        return [
            problem
            for stage in recipe.stages
            if getattr(stage, "tasks", ())
            for problem in load_mixture(
                stage.tasks, seed=recipe.seed, data_dir=recipe.data_dir
            ).problems
        ]
    task = recipe.task
    return load_problems(
        task.name, task.split, limit=task.limit, data_dir=task.data_dir, seed=recipe.seed
    )
