"""The dossier of an evaluation alone: models as they are, without a training that made them."""

from __future__ import annotations

from pathlib import Path

from pellucid.artifacts import RunFolder
from pellucid.config_io import load_recipe
from pellucid.errors import RunError
from pellucid.evaluate.suites import Suite
from pellucid.evidence.build import Built, Sources, build
from pellucid.evidence.core.schema_training import Scan
from pellucid.evidence.plan import planned_claims
from pellucid.pipeline.dossier import DOSSIER, scan_of
from pellucid.pipeline.dossier_models import given_model, texts_of
from pellucid.pipeline.evaluation import plan_facts
from pellucid.pipeline.evaluation_options import NAME, EvaluationFolder, Options, read_options
from pellucid.pipeline.measure import load_suites
from pellucid.runlog import Progress


def is_evaluation(folder: Path) -> bool:
    """Whether `pellucid eval` made it."""
    return (folder / NAME).is_file()


def build_evaluation_dossier(
    evaluation: Path, out: Path | None, progress: Progress, *, is_packed: bool = False
) -> Built:
    """The dossier of a finished evaluation, not sealed; `is_packed`: with packed samples.

    UserError where it holds too little.
    """
    options, folder = read_options(evaluation), EvaluationFolder(evaluation)
    if not folder.result.is_file():
        raise RunError(f"{evaluation} is not finished: let `pellucid eval` continue it first")
    suites = {model.name: load_suites(model.config) for model in options.models}
    facts = plan_facts(options, suites)
    with progress.task("building the dossier", 1, "dossier") as tick:
        sources = Sources(
            released=None,
            subject="",
            base="",
            sets=facts.sets,
            cutoff=facts.cutoff,
            claims=planned_claims(facts),
            scan=_scan(options, [s for own in suites.values() for s in own]),
            texts=texts_of(_models(options)) if is_packed else None,
            is_evaluation=True,
        )
        built = build(folder, sources, out if out is not None else evaluation / DOSSIER)
        tick(1, 1)
    return built


def _models(options: Options) -> dict[str, Path]:
    """Name -> place of those that are on this machine."""
    places = {model.name: given_model(model.config.model) for model in options.models}
    return {name: path for name, path in places.items() if path is not None}


def _scan(options: Options, suites: list[Suite]) -> Scan | None:
    """The suites against what the last run among the models was trained on; None: all models are
    strangers, whose training nobody here knows.
    """
    runs = [Path(model.config.model.id) for model in options.models]
    known = [run for run in runs if (run / "recipe.toml").is_file()]
    if not known:
        return None
    recipe, _ = load_recipe(known[-1] / "recipe.toml")
    return scan_of(recipe, RunFolder(known[-1]), list({s.key: s for s in suites}.values()))
