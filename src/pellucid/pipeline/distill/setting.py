"""What all arms share: student, examples, problems, budget, and where each arm works.

examples of `data_from` ── tokens of sft.epochs epochs ──► budget (unless the recipe sets one)

stages/07-distill/arms/on-policy/   checkpoints/ · metrics.jsonl · model/ · arm.json, written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import StageFolder, atomic_write_json, writing
from pellucid.config import ModelConfig, RunConfig, SftConfig
from pellucid.config_stages import DistillConfig
from pellucid.curate.example import CuratedExample, read_examples
from pellucid.data.mixture import Mixture, Part, load_mixture
from pellucid.errors import ConfigError, RunError
from pellucid.model.load import read_outline, resolve
from pellucid.pipeline.curated_sft import EXAMPLES_NAME
from pellucid.pipeline.distill.student import check_student
from pellucid.pipeline.plan import check_fit, longest_prompt
from pellucid.pipeline.sft_stage import tokenize
from pellucid.pipeline.stage import StageContext, common_config, stage_seed
from pellucid.pipeline.workbench import Workbench, open_run_workbench, trained_or_given
from pellucid.records import Problem
from pellucid.rewards.table import OPEN
from pellucid.runlog import read_metrics
from pellucid.tasks.templates import Template, get_template
from pellucid.train.compute import Budget, Compute
from pellucid.train.epochs import epoch_batches, keep_fitting
from pellucid.train.packing import tokens_fed
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


class Steps(NamedTuple):
    """A part of a fine-tuning."""

    number: int
    tokens: int
    """Fed by all of them."""


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
    budget: Budget

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
    template = get_template(curated[0].template)
    tokenizer = read_outline(resolve(trained_or_given(config.student))).tokenizer()
    limit = min(config.sft.max_tokens or spec.max_context, spec.max_context)
    examples = keep_fitting(tokenize(curated, template, tokenizer).examples, limit).examples
    mixture = _problems(context, config, curated)
    if set(SAMPLING) & set(config.arms):
        longest = longest_prompt(mixture.problems, template, tokenizer)
        contexts = [spec.max_context]
        if "on-policy" in config.arms:
            contexts.append(_spec(context.model_of(config.teacher)).max_context)
        check_fit(longest, config.rollout.max_new_tokens, min(contexts))
    if "iterative-sft" in config.arms:
        gradable(mixture, config.name)
    return Setting(
        context=context,
        config=config,
        template=template,
        examples=examples,
        max_tokens=limit,
        mixture=mixture,
        budget=Budget(
            tokens=config.budget_tokens or _default_tokens(context, examples, config.sft),
            student=spec.num_parameters,
            teacher=teacher,
        ),
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


def steps_within(
    examples: Sequence[SftExample], config: SftConfig, *, seed: int, tokens: int
) -> Steps:
    """The steps of a fine-tuning until so many tokens are fed: the last one reaches or passes
    them. None at all where `tokens` is not positive.
    """
    number, fed = 0, 0
    costs = step_costs(examples, config, seed=seed)
    while fed < tokens:
        number, fed = number + 1, fed + next(costs)
    return Steps(number, fed)


def step_costs(examples: Sequence[SftExample], config: SftConfig, *, seed: int) -> Iterator[int]:
    """Tokens that each optimiser step of `SftRun` feeds, epoch after epoch without end."""
    for epoch in count():
        size = config.batch_sequences
        for batch in epoch_batches(len(examples), size, seed=seed, epoch=epoch):
            yield tokens_fed([examples[i] for i in batch], config.tokens_per_pack)


def recorded_seconds(metrics: Path) -> float:
    """Seconds of all steps in a metrics file."""
    records = read_metrics(metrics) if metrics.is_file() else iter(())
    return sum(r.values.get("step_s") or 0.0 for r in records if r.name == "timing")


def _spec(model: ModelConfig) -> Any:
    return read_outline(resolve(trained_or_given(model))).spec


def _default_tokens(
    context: StageContext, examples: Sequence[SftExample], config: SftConfig
) -> int:
    """What the recipe's epochs over the examples take."""
    steps = config.epochs * -(-len(examples) // config.batch_sequences)
    return sum(islice(step_costs(examples, config, seed=arm_seed(context, "sft")), steps))


def _problems(
    context: StageContext, config: DistillConfig, examples: Sequence[CuratedExample]
) -> Mixture:
    """Those of the recipe, else the questions of the examples; conversations are left out."""
    if config.tasks:
        return load_mixture(config.tasks, seed=context.seed, data_dir=context.recipe.data_dir)
    asked: dict[str, Problem] = {}
    for example in examples:
        if isinstance(example.prompt, str):
            asked.setdefault(example.problem.id, example.problem)
    return Mixture.single(list(asked.values()), context.seed)
