"""What all arms share: student, examples, problems, budget, and where each arm works.

problems, screened ── examples of them ── tokens of sft.epochs epochs ──► budget (unless the recipe
                                       └─ some of them ──► warm start     sets one)

stages/07-distill/arms/on-policy/   checkpoints/ · metrics.jsonl · model/ · arm.json, written last
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.artifacts import StageFolder, atomic_write_json, writing
from pellucid.config import ModelConfig, RunConfig
from pellucid.config_stages import DistillConfig
from pellucid.curate.example import CuratedExample, read_examples
from pellucid.data.mixture import Mixture, Part
from pellucid.errors import ConfigError, RunError
from pellucid.model.load import read_outline, resolve
from pellucid.pipeline.curated_sft import EXAMPLES_NAME
from pellucid.pipeline.distill.steps import FineTuning, steps_of_epochs
from pellucid.pipeline.distill.student import check_student
from pellucid.pipeline.distill.warm_start import WARM_START, plan_warm_start
from pellucid.pipeline.plan import check_fit, longest_prompt
from pellucid.pipeline.screening import screen_mixture, screened_mixture
from pellucid.pipeline.sft_stage import tokenize
from pellucid.pipeline.stage import StageContext, common_config, stage_seed
from pellucid.pipeline.workbench import Workbench, open_run_workbench, trained_or_given
from pellucid.records import Problem
from pellucid.rewards.table import OPEN
from pellucid.runlog import read_metrics
from pellucid.tasks.templates import Template, get_template
from pellucid.train.compute import Budget, Compute
from pellucid.train.epochs import keep_fitting
from pellucid.train.sft_data import SftExample

ARMS_FOLDER = "arms"
RESULT_NAME = "arm.json"
SAMPLING = ("on-policy", "iterative-sft")
"""Arms in which the student samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """What a finished arm took. Its model lies beside."""

    compute: Compute
    steps: int
    """Optimiser steps."""
    seconds: float
    """Of sampling, scoring and training, of all processes."""
    stopped: str
    """Why it ended: `budget`, or what it lacked."""

    def behind(self, first: ArmResult | None) -> ArmResult:
        """With what was done before it."""
        if first is None:
            return self
        return replace(
            self,
            compute=first.compute + self.compute,
            steps=first.steps + self.steps,
            seconds=first.seconds + self.seconds,
        )

    def write(self, folder: StageFolder) -> None:
        """Marks the arm as finished."""
        atomic_write_json(folder.root / RESULT_NAME, asdict(self))

    @classmethod
    def read(cls, folder: StageFolder) -> ArmResult | None:
        """None: the arm is not finished. Raises RunError where the file is damaged."""
        path = folder.root / RESULT_NAME
        if not path.is_file():
            return None
        try:
            fields = json.loads(path.read_text())
            return cls(**{**fields, "compute": Compute.from_dict(fields["compute"])})
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} is damaged ({error}): remove it, and the arm ends anew"
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The common ground of the arms."""

    context: StageContext
    config: DistillConfig
    template: Template
    examples: list[SftExample]
    """Of the curated set, as the student reads them; those that fit."""
    max_tokens: int
    """Of an example, prompt and completion."""
    mixture: Mixture
    """Problems of the arms that sample."""
    warm_start: FineTuning | None
    """What all arms start behind."""
    whole: Budget
    """Of each arm, the warm start in it."""

    @property
    def budget(self) -> Budget:
        """What is left to each arm behind the warm start."""
        if self.warm_start is None:
            return self.whole
        return replace(self.whole, tokens=self.whole.tokens - self.warm_start.steps.tokens)

    @property
    def start(self) -> ModelConfig:
        """What every arm starts from: the student, warmed where the recipe asks for it."""
        if self.warm_start is None:
            return self.config.student
        return ModelConfig(id="warmed student", path=str(self.folder(WARM_START).model))

    def folder(self, arm: str) -> StageFolder:
        """Where an arm works, made if need be."""
        folder = StageFolder(self.context.stage.root / ARMS_FOLDER / arm)
        with writing(folder.root):
            folder.root.mkdir(parents=True, exist_ok=True)
        return folder

    def seed(self, name: str) -> int:
        """Of an arm, or of a part of one."""
        return arm_seed(self.context, name)

    def run_config(self, model: ModelConfig, *, seed: int, **sections: Any) -> RunConfig:
        """The common values around a model and sections of the stage."""
        recipe = self.context.recipe
        return common_config(recipe, model, template=self.template.name, seed=seed, **sections)

    def open(self, model: ModelConfig) -> Workbench:
        """A model on the device, with its engine."""
        config = self.run_config(model, seed=self.context.seed, rollout=self.config.rollout)
        return open_run_workbench(config, self.context.progress)


def arm_seed(context: StageContext, name: str) -> int:
    """Seed of an arm of a stage, or of a part of one."""
    return stage_seed(context.seed, name)


def prepare(context: StageContext, config: DistillConfig) -> Setting:
    """Reads examples and problems, and settles the budget: before any model is loaded.

    Raises ConfigError where an arm cannot work with this student, DataError where nothing is left
    to learn from.
    """
    spec = _spec(config.student)
    teacher = 0
    if "on-policy" in config.arms:
        model = context.model_of(config.teacher)
        check_student(context.recipe, config, resolve(model))
        teacher = _spec(model).num_parameters
        if _spec(model).vocab_size < spec.vocab_size:
            raise ConfigError(
                f"stages.{config.name}: student {config.student.id} has {spec.vocab_size} rows of "
                f"logits and its teacher only {_spec(model).vocab_size}: choose another student"
            )
    curated = read_examples(context.inputs[config.data_from].root / EXAMPLES_NAME)
    mixture = _problems(context, config, curated)
    if not config.tasks:  # before any example is counted or chosen
        curated = _of_problems(curated, mixture)
    template = get_template(curated[0].template)
    tokenizer = read_outline(resolve(trained_or_given(config.student))).tokenizer()
    limit = min(config.sft.max_tokens or spec.max_context, spec.max_context)
    examples = keep_fitting(tokenize(curated, template, tokenizer).examples, limit).examples
    if set(SAMPLING) & set(config.arms):
        longest = longest_prompt(mixture.problems, template, tokenizer)
        contexts = [spec.max_context]
        if "on-policy" in config.arms:
            contexts.append(_spec(context.model_of(config.teacher)).max_context)
        check_fit(longest, config.rollout.max_new_tokens, min(contexts))
    if "iterative-sft" in config.arms:
        gradable(mixture, config.name)
    tokens = config.budget_tokens
    if tokens is None:
        tokens = steps_of_epochs(examples, config.sft, seed=arm_seed(context, "sft")).tokens
    seed = arm_seed(context, WARM_START)
    return Setting(
        context=context,
        config=config,
        template=template,
        examples=examples,
        max_tokens=limit,
        mixture=mixture,
        warm_start=plan_warm_start(config, examples, seed=seed, tokens=tokens),
        whole=Budget(tokens=tokens, student=spec.num_parameters, teacher=teacher),
    )


def gradable(mixture: Mixture, stage: str) -> Mixture:
    """The problems of a mixture of which a program knows the answer. ConfigError without any."""
    parts = [
        Part([p for p in part.problems if p.grader != OPEN], part.weight) for part in mixture.parts
    ]
    parts = [part for part in parts if part.problems]
    if not parts:
        raise ConfigError(
            f"stages.{stage}: no problem has an answer that a program can check, which "
            f"iterative-sft keeps its samples by: name others in stages.{stage}.tasks, or take "
            f'"iterative-sft" out of stages.{stage}.arms'
        )
    return Mixture(parts, mixture.seed)


def recorded_seconds(metrics: Path) -> float:
    """Seconds of all steps in a metrics file."""
    records = read_metrics(metrics) if metrics.is_file() else iter(())
    return sum(r.values.get("step_s") or 0.0 for r in records if r.name == "timing")


def _spec(model: ModelConfig) -> Any:
    return read_outline(resolve(trained_or_given(model))).spec


def _problems(
    context: StageContext, config: DistillConfig, examples: Sequence[CuratedExample]
) -> Mixture:
    """Those of the recipe, else the questions of the examples (conversations are left out); as
    every stage's, screened.
    """
    if config.tasks:
        return screened_mixture(context, config.tasks)
    asked: dict[str, Problem] = {}
    for example in examples:
        if isinstance(example.prompt, str):
            asked.setdefault(example.problem.id, example.problem)
    return screen_mixture(context, Mixture.single(list(asked.values()), context.seed))


def _of_problems(examples: Sequence[CuratedExample], mixture: Mixture) -> list[CuratedExample]:
    """Without those whose question was screened out: no arm learns what another may not ask."""
    kept = {problem.id for problem in mixture.problems}
    return [e for e in examples if not isinstance(e.prompt, str) or e.problem.id in kept]
