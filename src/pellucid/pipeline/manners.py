"""How a run's model is asked and graded where nobody says: as its own recipe does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.artifacts import RunFolder
from pellucid.config_io import load_recipe
from pellucid.config_stages import BASE, PipelineConfig
from pellucid.pipeline.grading import Grading, grading_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What the recipe of a run says of asking its model.

    Example: Manners(template="r1-zero-boxed", data_dir=None, sampling={"temperature": 0.6, …}, …)
    """

    template: str
    """Prompt template that the model was trained under."""
    data_dir: str | None
    sampling: Mapping[str, Any]
    """`temperature`, `top_p`, `top_k` and `max_new_tokens` of its evaluations."""
    grading: Grading
    """Settings of its graders."""


def run_manners(model: str) -> Manners | None:
    """The manners of a run folder; None: `model` is none. Raises ConfigError where its recipe
    cannot be read.
    """
    recipe = Path(model) / "recipe.toml"
    if not recipe.is_file():
        return None
    config, _ = load_recipe(recipe)
    if isinstance(config, PipelineConfig):
        stage = RunFolder(Path(model)).last_model()
        template = config.template_of(BASE if stage is None else stage.stage_name)
        data_dir = config.data_dir
    else:
        template, data_dir = config.task.template, config.task.data_dir
    sampling = config.eval.model_dump(include={"temperature", "top_p", "top_k", "max_new_tokens"})
    return Manners(
        template=template, data_dir=data_dir, sampling=sampling, grading=grading_of(config)
    )
