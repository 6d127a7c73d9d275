"""The dossier of a run: its plan before anything is measured, its assembly when all is done.

What `evidence` needs and a run folder does not hold is looked up here: the recipe's suites, the
released and the base model, who published the data, the signing key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pellucid.artifacts import RunFolder, StageFolder
from pellucid.config import EvidenceConfig
from pellucid.config_io import Recipe, load_recipe
from pellucid.config_stages import PipelineConfig, RlStageConfig
from pellucid.data.registry import DATASETS
from pellucid.energy.factors import find_factor
from pellucid.errors import RunError
from pellucid.evaluate.records import item_sha256
from pellucid.evaluate.suites import Suite
from pellucid.evidence.build import Built, Sources, build
from pellucid.evidence.claims import PlannedEvaluation
from pellucid.evidence.core.grade import grader_sha256
from pellucid.evidence.core.schema import DataSet, Preregistration
from pellucid.evidence.core.verify import Verdict, verify
from pellucid.evidence.known_models import recorded_models
from pellucid.evidence.plan import (
    PlanFacts,
    PlannedModel,
    check_same_plan,
    file_plan,
    filed_plan,
    make_plan,
    planned_claims,
)
from pellucid.evidence.seal import (
    Key,
    Sealed,
    has_cryptography,
    make_key,
    read_key,
    seal_dossier,
)
from pellucid.evidence.training import Rewarded
from pellucid.evidence.words import claims_hold, counted
from pellucid.ledger import Ledger
from pellucid.pipeline.controls import control_folder, control_names
from pellucid.pipeline.dossier_models import (
    asked_models,
    comparisons,
    digest_of,
    given_model,
    model_folders,
    planned_models,
    released_stage,
    texts_of,
)
from pellucid.pipeline.dossier_scan import hashed_prompts, largest_threshold, scan_of
from pellucid.pipeline.measure import as_asked, load_suites, pipeline_suites
from pellucid.runlog import Progress
from pellucid.tasks.templates import get_template

BEFORE, AFTER = "before", "after"
STAGE = "zero"
"""The one stage of a recipe that names none."""
KEY_NAME = "dossier.key"
DOSSIER = "dossier"
"""Below the run folder."""
GENERATED = "generated from a seed"


def user_key() -> Path:
    """Where a person keeps a key for all runs."""
    return Path.home() / ".config" / "pellucid" / KEY_NAME


def key_place(dossier: Path) -> Path:
    """Folder in which a dossier's own key is looked for: beside its run, or beside itself."""
    is_in_run = (dossier.parent / "ledger.jsonl").is_file()
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
    """Files the plan of a recipe, or checks the one that was filed. RunError where they differ,
    ConfigError where the recipe cannot have a dossier.
    """
    find_factor(recipe.evidence.region)  # missed now rather than behind the training
    return file_same_plan(plan_facts(recipe), run, ledger, key, progress)


def file_same_plan(
    facts: PlanFacts, run: Path, ledger: Ledger, key: Key | None, progress: Progress
) -> Preregistration:
    """Files the plan that `facts` make, or holds the one that was filed to it."""
    filed = filed_plan(run, ledger)
    plan = make_plan(facts, ledger.events)
    if filed is not None:
        check_same_plan(filed, plan)
        return filed
    file_plan(run, ledger, plan, key, audit=facts.audit)
    tested = sum(claim["test"] is not None for claim in plan["claims"])
    progress.say(
        f"plan {plan['id']} is filed: {counted(tested, 'claim')} to be decided by the samples"
    )
    return plan


def plan_facts(recipe: Recipe, *, with_weights: bool = True) -> PlanFacts:
    """Who is asked what, by a recipe. Raises ModelError where a model that it names cannot be
    found, unless `with_weights` is false.
    """
    if isinstance(recipe, PipelineConfig):
        rows = asked_models(recipe)
        models, compared = planned_models(rows, with_weights=with_weights), comparisons(rows)
    else:
        base, compared = digest_of(recipe.model) if with_weights else None, []
        models = [
            PlannedModel(name=BEFORE, role="baseline", weights=base),
            PlannedModel(name=AFTER, role="subject", weights=None),
            *(
                PlannedModel(name=name, role="control", weights=None)
                for name in control_names(recipe.controls)
            ),
        ]
    evaluations = planned_evaluations(recipe, [model.name for model in models])
    suites = {one.suite.key: one.suite for one in evaluations if one.model == models[0].name}
    return PlanFacts(
        models=models,
        evaluations=evaluations,
        seed=recipe.seed,
        grader_sha256=grader_sha256(),
        comparisons=compared,
        sets=data_sets(recipe, suites),
        cutoff=recipe.evidence.cutoff,
        clean_below=largest_threshold(list(suites.values())),
        last_step=_last_step(recipe),
        audit=recipe.evidence.audit,
    )


def _last_step(recipe: Recipe) -> int | None:
    """Of the training whose model is released; None: it ends with its data."""
    if not isinstance(recipe, PipelineConfig):
        return recipe.train.steps
    released = released_stage(recipe)
    stages = [stage for stage in recipe.stages if stage.name == released]
    return next((s.train.steps for s in stages if isinstance(s, RlStageConfig)), None)


def planned_evaluations(recipe: Recipe, models: Sequence[str]) -> list[PlannedEvaluation]:
    """Every suite on every model, the base first; some suites are for the base alone."""
    if isinstance(recipe, PipelineConfig):
        common, stage_of = pipeline_suites(recipe), {m.name: m.stage for m in asked_models(recipe)}
        suites = {name: as_asked(common, recipe, stage_of[name]) for name in models}
    else:
        suites = dict.fromkeys(models, load_suites(recipe))
    return [
        PlannedEvaluation(model=model, suite=suite)
        for number, model in enumerate(models)
        for suite in suites[model]
        if number == 0 or not suite.baseline_only
    ]


# Assembly


def build_dossier(
    run: Path, out: Path | None, progress: Progress, *, is_packed: bool = False
) -> Built:
    """The dossier of a finished run, not sealed; `is_packed` or its recipe: with packed samples.

    UserError where the run holds too little.
    """
    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise RunError(f"{run} is no run folder (it has no recipe.toml): name one that `run` made")
    recipe, _ = load_recipe(folder.recipe)
    released, facts = _released(recipe, folder), plan_facts(recipe, with_weights=False)
    base, models = facts.models[0].name, _models(recipe, folder, released)
    suites = {one.suite.key: one.suite for one in facts.evaluations if one.model == base}
    with progress.task("building the dossier", 1, "dossier") as tick:
        scan = scan_of(recipe, folder, list(suites.values()))
        sources = Sources(
            released=released,
            subject=next(m.name for m in facts.models if m.role == "subject"),
            base=base,
            models=models,
            sets=facts.sets,
            cutoff=facts.cutoff,
            claims=planned_claims(facts),
            rewarded=_rewarded(recipe, released),
            scan=scan,
            prompts=hashed_prompts(recipe, folder, scan),
            texts=texts_of(models) if is_packed or recipe.evidence.packed else None,
            controls=control_folders(folder, recipe),
            region=recipe.evidence.region,
        )
        built = build(folder, sources, out if out is not None else run / DOSSIER)
        tick(1, 1)
    return built


def seal(dossier: Path, key: Key | None) -> Sealed:
    """Seals a dossier as its next version, where something has changed."""
    ledger = Ledger(dossier / "ledger.jsonl")
    ledger.close()
    return seal_dossier(dossier, key, ledger.events)


def finish(run: Path, evidence: EvidenceConfig, progress: Progress) -> Verdict:
    """Builds, seals and verifies the dossier of a run that has just ended, and says what came of
    it. A dossier that does not hold is no failure of the run: it is said.
    """
    key = open_key(evidence.key, run.parent, progress)
    built = build_dossier(run, None, progress)
    version = seal(built.folder, key).version
    verdict = verify(built.folder)
    progress.say(
        f"dossier {built.folder}, version {version}: {claims_hold(built.held, built.tested)}; "
        f"{counted(built.samples, 'sample')}"
    )
    faults = [f for f in verdict.findings if not f.kind.is_note]
    if faults:
        progress.say(f"the dossier does not hold: {faults[0].code}, {faults[0].text}")
    else:
        progress.say("verified: all that can be checked holds")
    return verdict


def _released(recipe: Recipe, run: RunFolder) -> StageFolder:
    """The stage whose model is released. RunError where it has none yet."""
    name = released_stage(recipe) if isinstance(recipe, PipelineConfig) else STAGE
    stages = [stage for stage in run.stages() if stage.stage_name == name]
    subject = name if isinstance(recipe, PipelineConfig) else AFTER
    if not any(s.model.is_dir() or subject in recorded_models([s]) for s in stages):
        raise RunError(f"{run.root} holds no trained model yet: let `pellucid run` finish it first")
    return stages[-1]


def _models(recipe: Recipe, run: RunFolder, released: StageFolder) -> dict[str, Path]:
    """Name -> place of every model that was measured and is on this machine."""
    if isinstance(recipe, PipelineConfig):
        return model_folders(recipe, run)
    base = given_model(recipe.model)
    trained = {AFTER: released.model}
    trained |= {name: control_folder(run, name).model for name in control_names(recipe.controls)}
    here = {name: path for name, path in trained.items() if path.is_dir()}
    return here if base is None else {BEFORE: base, **here}


def control_folders(run: RunFolder, recipe: Recipe) -> list[StageFolder]:
    """Folders of the controls that were run."""
    if isinstance(recipe, PipelineConfig):
        return []
    return [control_folder(run, name) for name in control_names(recipe.controls)]


def _rewarded(recipe: Recipe, released: StageFolder) -> dict[str, Rewarded]:
    """How every stage of reinforcement learning came to its rewards."""
    if not isinstance(recipe, PipelineConfig):
        prefill = get_template(recipe.task.template).prefill
        return {released.stage_name: Rewarded(weights=recipe.reward.terms, prefill=prefill)}
    return {
        stage.name: Rewarded(
            weights=stage.reward.terms,
            prefill=get_template(recipe.template_of(stage.name)).prefill,
        )
        for stage in recipe.stages
        if isinstance(stage, RlStageConfig)
    }


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
