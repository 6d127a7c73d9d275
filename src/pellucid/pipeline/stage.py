"""What a stage of a pipeline is given: its folder, verified inputs, the run's diary."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig, RunConfig, TaskConfig
from pellucid.config_stages import BASE, AnyStage, PipelineConfig
from pellucid.errors import ConfigError, RunError
from pellucid.ledger import EventKind, Ledger
from pellucid.pipeline.diary import Diary
from pellucid.pipeline.workbench import Workbench, open_run_workbench, trained_or_given
from pellucid.runlog import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Everything around one stage that runs.

    Example: context.open("base") is the base on the device; context.inputs["zero"].model its heir.
    """

    recipe: PipelineConfig
    config: AnyStage
    stage: StageFolder
    """Where the stage keeps what it makes. All of it, checkpoints and evals aside, is digested."""
    inputs: Mapping[str, StageFolder]
    """Earlier stages that this one names, by name; their files are what their manifests say."""
    address: str
    ledger: Ledger
    progress: Progress
    should_stop: Callable[[], bool]
    """True once SIGTERM arrived: save, then raise Interrupted."""
    started: float = field(default_factory=time.perf_counter)
    """When the process began its work."""

    @property
    def seed(self) -> int:
        """The stage's own seed."""
        return stage_seed(self.recipe.seed, self.config.name)

    def model_of(self, name: str) -> ModelConfig:
        """`base`, or the model that an input stage trained. Raises RunError where it has none."""
        if name == BASE:
            return trained_or_given(self.recipe.model)
        if name not in self.inputs:
            raise ConfigError(f"stage {self.config.name} does not build on {name!r}: name it there")
        return model_of_stage(name, self.inputs[name])

    def run_config(self, model: str, **sections: object) -> RunConfig:
        """The common values around a model (`base` or an input) and sections of a stage."""
        return common_config(
            self.recipe,
            self.model_of(model),
            template=self.recipe.template_of(self.config.name),
            seed=self.seed,
            **sections,
        )

    def open(self, name: str, config: RunConfig | None = None) -> Workbench:
        """`base` or an input's model on the device, with its engine."""
        return open_run_workbench(config or self.run_config(name), self.progress)

    @property
    def diary(self) -> Diary:
        """The ledger, with the seconds of the process."""
        return Diary(ledger=self.ledger, progress=self.progress, started=self.started)

    def note(self, kind: EventKind, /, **payload: object) -> None:
        """An event of this stage in the run's ledger."""
        self.diary.note(kind, stage=self.config.name, **payload)


def common_config(
    recipe: PipelineConfig, model: ModelConfig, *, template: str, seed: int, **sections: object
) -> RunConfig:
    """What a recipe of one stage would say of a model on this recipe's device."""
    return RunConfig(
        name=recipe.name,
        seed=seed,
        device=recipe.device,
        dtype=recipe.dtype,
        exact=recipe.exact,
        threads=recipe.threads,
        unsafe_code=recipe.unsafe_code,
        code_timeout_s=recipe.code_timeout_s,
        math_verify_timeout_s=recipe.math_verify_timeout_s,
        model=model,
        task=TaskConfig(template=template, data_dir=recipe.data_dir),
        eval=recipe.eval,
        **sections,
    )


def model_of_stage(name: str, stage: StageFolder) -> ModelConfig:
    """What a finished stage trained. Raises RunError where that is no model."""
    if not stage.model.is_dir():
        raise RunError(f"stage {name} made no model ({stage.model} is missing): name another one")
    return ModelConfig(id=name, path=str(stage.model))


def stage_seed(seed: int, name: str) -> int:
    """The seed of a stage: a function of the recipe's and the stage's name, so that no two stages
    share their random numbers.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
