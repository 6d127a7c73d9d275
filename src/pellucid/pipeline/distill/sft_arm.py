"""The paper's way: the student is fine-tuned on the curated examples (B.4.3); and, in the same way
on a few of them, the warm start of all arms.
"""

from __future__ import annotations

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig
from pellucid.pipeline.distill.setting import ArmResult, Setting, recorded_seconds
from pellucid.pipeline.distill.steps import FineTuning, steps_within
from pellucid.pipeline.sft_stage import learn
from pellucid.train.compute import Compute


def run_sft(setting: Setting, folder: StageFolder) -> ArmResult:
    """As many epochs, and a part of one, as the budget allows. Raises as `learn` does."""
    examples, config, seed = setting.examples, setting.config.sft, setting.seed("sft")
    steps = steps_within(examples, config, seed=seed, tokens=setting.budget.tokens)
    plan = FineTuning(examples=examples, config=config, seed=seed, steps=steps)
    return _fine_tune(setting, folder, setting.start, plan)


def run_warm_start(setting: Setting, folder: StageFolder) -> ArmResult:
    """From the student as it is, before any arm. Raises as `learn` does."""
    assert setting.warm_start is not None, "the recipe asks for a warm start"
    return _fine_tune(setting, folder, setting.config.student, setting.warm_start)


def _fine_tune(
    setting: Setting, folder: StageFolder, model: ModelConfig, plan: FineTuning
) -> ArmResult:
    learn(
        setting.context,
        setting.open(model),
        plan.examples,
        plan.config,
        folder=folder,
        seed=plan.seed,
        steps=plan.steps.number,
    )
    return ArmResult(
        compute=Compute(trained=plan.steps.tokens),
        steps=plan.steps.number,
        seconds=recorded_seconds(folder.metrics),
        stopped="budget",
    )
