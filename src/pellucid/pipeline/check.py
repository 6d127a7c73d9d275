"""What a pipeline's recipe names, looked up before anything costs time."""

from __future__ import annotations

from collections.abc import Collection

from pellucid.algo.presets import resolve
from pellucid.config_stages import AnyStage, GeneralRlConfig, PipelineConfig, RlStageConfig
from pellucid.data.mixture import load_mixture
from pellucid.pipeline.stage import stage_seed
from pellucid.rewards.terms import check_terms
from pellucid.tasks.templates import get_template

MODEL_TERMS = ("helpful", "safety")
"""Reward terms that reward models serve."""


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
            check_terms(stage.reward.terms, _scored_terms(stage))
            resolve(stage.algo)


def check_recipe(recipe: PipelineConfig, chosen: Collection[str] | None) -> None:
    """`check_names`, and that the tasks of the chosen stages (None: all) are there.

    Raises ConfigError or DataError.
    """
    check_names(recipe)
    for stage in recipe.stages:
        tasks = getattr(stage, "tasks", ())
        if tasks and (chosen is None or stage.name in chosen):
            seed = stage_seed(recipe.seed, stage.name)
            load_mixture(tasks, seed=seed, data_dir=recipe.data_dir)


def _scored_terms(stage: AnyStage) -> tuple[str, ...]:
    """Terms for which the stage will have a reward model."""
    has_models = isinstance(stage, GeneralRlConfig) and stage.rewards_from is not None
    return MODEL_TERMS if has_models else ()
