"""The paper's way: the student is fine-tuned on the curated examples (B.4.3)."""

from __future__ import annotations

from pellucid.artifacts import StageFolder
from pellucid.pipeline.distill.setting import ArmResult, Setting, recorded_seconds, steps_within
from pellucid.pipeline.sft_stage import learn
from pellucid.train.compute import Compute


def run_sft(setting: Setting, folder: StageFolder) -> ArmResult:
    """As many epochs, and a part of one, as the budget allows. Raises as `learn` does."""
    config, seed = setting.config, setting.seed("sft")
    steps = steps_within(setting.examples, config.sft, seed=seed, tokens=setting.budget.tokens)
    bench = setting.open(config.student)
    learn(
        setting.context,
        bench,
        setting.examples,
        config.sft,
        folder=folder,
        seed=seed,
        steps=steps.number,
    )
    return ArmResult(
        compute=Compute(trained=steps.tokens),
        steps=steps.number,
        seconds=recorded_seconds(folder.metrics),
        stopped="budget",
    )
