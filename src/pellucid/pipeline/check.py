"""What a pipeline's recipe names, looked up before anything costs time."""

from __future__ import annotations

from collections.abc import Collection

from pellucid.algo.presets import resolve as resolve_objective
from pellucid.config import TaskEntry
from pellucid.config_stages import (
    AnyStage,
    DistillConfig,
    GeneralRlConfig,
    PipelineConfig,
    RewardModelsConfig,
    RlStageConfig,
)
from pellucid.curate.general import read_source
from pellucid.data.load import require_sandbox
from pellucid.data.mixture import load_mixture
from pellucid.errors import ConfigError
from pellucid.model.load import read_outline, resolve
from pellucid.pipeline.distill.student import check_student
from pellucid.pipeline.preference_data import check_files
from pellucid.pipeline.probe_problems import MODEL_TERMS, probe_problems, watched_terms
from pellucid.pipeline.stage import stage_seed
from pellucid.pipeline.workbench import trained_or_given
from pellucid.rewards.terms import check_terms
from pellucid.tasks.templates import TEMPLATES, get_template


def check_names(recipe: PipelineConfig) -> None:
    """Templates, reward terms and objectives: what needs no data and no model.

    Raises ConfigError.
    """
    get_template(recipe.template)
    for suite in recipe.eval.suites:
        if suite.template is not None:
            get_template(suite.template)
    for stage in recipe.stages:
        get_template(recipe.template_of(stage.name))
        if isinstance(stage, RlStageConfig):
            check_terms(stage.reward.terms, _scored_terms(recipe, stage))
            resolve_objective(stage.algo)


def check_recipe(recipe: PipelineConfig, chosen: Collection[str] | None) -> None:
    """`check_names`, that the base can be asked with every template, that students can learn from
    their teachers, that the tasks and files of the chosen stages (None: all) are there, and that a
    watch has something to compare.

    Raises ConfigError, ModelError, DataError, or SandboxError where programs cannot be isolated.
    """
    check_names(recipe)
    _check_templates(recipe)
    for stage in recipe.stages:
        if isinstance(stage, DistillConfig) and (chosen is None or stage.name in chosen):
            check_student(recipe, stage, resolve(trained_or_given(recipe.model)))
    entries = [entry for stage in recipe.stages for entry in _entries(stage)]
    named = [entry.name for entry in (*recipe.eval.suites, *entries)]
    require_sandbox(named, unsafe=recipe.unsafe_code)
    for stage in recipe.stages:
        if chosen is None or stage.name in chosen:
            _check_tasks(recipe, stage)
            _check_sources(stage, recipe.data_dir)


def _entries(stage: AnyStage) -> list[TaskEntry]:
    """The tasks of a stage, and those of its watch."""
    watch = getattr(stage, "watch", None)
    return [*getattr(stage, "tasks", ()), *(watch.tasks if watch is not None else ())]


def _check_tasks(recipe: PipelineConfig, stage: AnyStage) -> None:
    """What is trained on, and what the watch asks: both need data that may be missing."""
    tasks = getattr(stage, "tasks", ())
    if not tasks:
        return
    seed = stage_seed(recipe.seed, stage.name)
    mixture = load_mixture(tasks, seed=seed, data_dir=recipe.data_dir)
    if isinstance(stage, GeneralRlConfig) and watched_terms(stage):
        probe_problems(recipe, stage, mixture.problems)


def _check_sources(stage: AnyStage, data_dir: str | None) -> None:
    """What is learnt beside the tasks is read late, behind stages of hours."""
    general = getattr(stage, "general", None)
    for source in general.sources if general is not None else ():
        read_source(source, data_dir)
    if isinstance(stage, RewardModelsConfig):
        check_files(stage, data_dir)


def _check_templates(recipe: PipelineConfig) -> None:
    """A model without a chat template would be found out only where its first stage needs one."""
    tokenizer = read_outline(resolve(trained_or_given(recipe.model))).tokenizer()
    used = {"template": recipe.template}
    own = [s.name for s in recipe.stages if s.kind != "distill"]  # a student is another model
    used |= {f"stages.{name}": recipe.template_of(name) for name in own}
    used |= {f"eval.suites, {s.name}": s.template for s in recipe.eval.suites if s.template}
    for where, name in used.items():
        if get_template(name).is_chat and tokenizer.chat_template is None:
            plain = ", ".join(n for n, t in TEMPLATES.items() if not t.is_chat)
            raise ConfigError(
                f"{where}: template {name!r} needs a chat template and the model "
                f"{recipe.model.id} has none: choose one of {plain}"
            )


def _scored_terms(recipe: PipelineConfig, stage: AnyStage) -> tuple[str, ...]:
    """Terms for which the stage will have a reward model: those that an earlier stage trains."""
    if not isinstance(stage, GeneralRlConfig) or stage.rewards_from is None:
        return ()
    source = recipe.stage(stage.rewards_from)
    return tuple(term for term in MODEL_TERMS if getattr(source, term, None) is not None)
