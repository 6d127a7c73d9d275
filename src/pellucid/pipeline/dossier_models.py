"""The models of a recipe as its dossier names them: who is asked, what is claimed of whom.

Of a pipeline these are the base and the model of every stage in their order, and behind each stage
of distillation its student as it was given and the models of its further arms, as in the stage
table. What the pipeline releases is its last model that is no student; students stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from pellucid.artifacts import RunFolder, StageFolder
from pellucid.config import ModelConfig
from pellucid.config_stages import BASE, DistillConfig, PipelineConfig
from pellucid.errors import ModelError, RunError
from pellucid.evidence.claims import Comparison
from pellucid.evidence.plan import PlannedModel, Role
from pellucid.evidence.weights import weights_root
from pellucid.model.load import read_outline, resolve
from pellucid.pipeline.distill.table import UNTAUGHT, ArmModel, arm_models
from pellucid.pipeline.workbench import trained_or_given

NO_MODEL = ("reward-models",)
"""Stages that end with no model which is asked the recipe's suites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """A row of the stage table. Example: name="zero", stage="zero", role="rival", given=None"""

    name: str
    """As evaluations are called."""
    stage: str
    """Whose prompt template it is asked with; `base` for the base."""
    role: Role
    given: ModelConfig | None = None
    """Where it was not trained by the run."""
    student: str | None = None
    """Of a distilled model, the student that it was."""


def asked_models(recipe: PipelineConfig) -> list[AskedModel]:
    """All rows of the stage table, the base first."""
    rows = [AskedModel(name=BASE, stage=BASE, role="baseline", given=recipe.model)]
    subject = released_stage(recipe)
    for stage in recipe.stages:
        if stage.kind in NO_MODEL:
            continue
        student = f"{stage.name}.{UNTAUGHT}" if isinstance(stage, DistillConfig) else None
        role: Role = "subject" if stage.name == subject else "rival"
        rows.append(AskedModel(name=stage.name, stage=stage.name, role=role, student=student))
        for arm in _arms(stage, StageFolder(Path())):  # their names alone are asked for here
            if arm.measured_as != stage.name:
                is_given = arm.name == UNTAUGHT
                rows.append(
                    AskedModel(
                        name=arm.measured_as,
                        stage=stage.name,
                        role="rival",
                        given=arm.model if is_given else None,
                        student=None if is_given else student,
                    )
                )
    return rows


def _arms(stage: object, folder: StageFolder) -> list[ArmModel]:
    return arm_models(stage, folder) if isinstance(stage, DistillConfig) else []


def released_stage(recipe: PipelineConfig) -> str:
    """The last stage whose model is no student; of a pipeline of students alone, the last one.

    Raises RunError where no stage trains a model that is asked.
    """
    trained = [stage for stage in recipe.stages if stage.kind not in NO_MODEL]
    if not trained:
        raise RunError("no stage of this recipe trains a model that answers: there is no claim")
    own = [stage for stage in trained if not isinstance(stage, DistillConfig)]
    return (own or trained)[-1].name


def planned_models(rows: Sequence[AskedModel], *, with_weights: bool) -> list[PlannedModel]:
    """`with_weights`: with the digests of what is given; ModelError where that is not here."""
    return [
        PlannedModel(
            name=row.name,
            role=row.role,
            weights=digest_of(row.given) if with_weights and row.given is not None else None,
        )
        for row in rows
    ]


def digest_of(model: ModelConfig) -> str:
    """Root of a model's files. Raises ModelError or RunError where it cannot be found."""
    return weights_root(resolve(trained_or_given(model)))


def comparisons(rows: Sequence[AskedModel]) -> list[Comparison]:
    """Students against what they were, which is claimed; every row against the base and the row
    above it, as the stage table prints them.
    """
    found = [
        Comparison(model=row.name, over=row.student, is_claimed=True)
        for row in rows
        if row.student is not None
    ]
    for above, row in pairwise(rows):
        for over in dict.fromkeys((rows[0].name, above.name)):
            is_new = all((c.model, c.over) != (row.name, over) for c in found)
            if is_new and not (row.role == "subject" and over == rows[0].name):
                found.append(Comparison(model=row.name, over=over, is_claimed=False))
    return found


def model_folders(recipe: PipelineConfig, run: RunFolder) -> dict[str, Path]:
    """Name -> folder or file of every model of a run that is on this machine."""
    stages = {stage.stage_name: stage for stage in run.stages()}
    found: dict[str, Path] = {}
    for row in asked_models(recipe):
        if row.given is not None:
            path = given_model(row.given)
        elif row.stage in stages:
            path = _trained(recipe, row, stages[row.stage])
        else:
            path = None
        if path is not None and path.exists():
            found[row.name] = path
    return found


def _trained(recipe: PipelineConfig, row: AskedModel, folder: StageFolder) -> Path | None:
    if row.name == row.stage:
        return folder.model
    arms = _arms(recipe.stage(row.stage), folder)
    return next((Path(a.model.path) for a in arms if a.measured_as == row.name and a.model.path),
                None)  # fmt: skip


def texts_of(models: Mapping[str, Path]) -> Callable[[str], Mapping[int, bytes]]:
    """Name of a model -> token id -> the token's bytes; nothing where they are not known."""

    @lru_cache(maxsize=1)  # a vocabulary takes some ten megabytes
    def texts(path: Path) -> Mapping[int, bytes]:
        return dict(enumerate(read_outline(path).tokenizer().token_bytes() or ()))

    return lambda name: texts(models[name]) if name in models else {}


def given_model(model: ModelConfig) -> Path | None:
    """Where a model that was not trained here lies; None: not on this machine any more."""
    try:
        return resolve(trained_or_given(model))
    except (ModelError, RunError):
        return None
