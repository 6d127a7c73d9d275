"""On-policy distillation in a pipeline: teacher and student on one device, memory, checkpoints.

The loop itself is `train.on_policy`.
"""

from __future__ import annotations

import shutil
from typing import Any

from pellucid.algo.presets import resolve as resolve_objective
from pellucid.artifacts import StageFolder
from pellucid.config import AlgoConfig, RunConfig, TrainConfig
from pellucid.ledger import EventKind
from pellucid.model.export import export_model
from pellucid.model.load import load_model
from pellucid.model.transformer import Decoder
from pellucid.pipeline.distill.setting import ArmResult, Setting, recorded_seconds
from pellucid.pipeline.plan import choices_of, settle
from pellucid.pipeline.sft_stage import stage_checkpoints
from pellucid.pipeline.stages.reinforce import earlier_choices
from pellucid.pipeline.workbench import (
    open_run_workbench,
    resolve_device,
    resolve_dtype,
    set_threads,
)
from pellucid.runlog import MetricsLog
from pellucid.train.job import Beside
from pellucid.train.on_policy import OnPolicyRun
from pellucid.train.reverse_kl import ReverseKlUpdater
from pellucid.train.update import PolicyUpdater

ALGO = AlgoConfig(preset="dapo")
"""Mean over the tokens, no reference: on-policy the ratio is 1 and nothing is clipped."""


def run_on_policy(setting: Setting, folder: StageFolder) -> ArmResult:
    """Until the budget is spent. Raises UserError, NumericsError, or Interrupted with all saved."""
    context, config = setting.context, setting.config
    set_threads(context.recipe.threads)
    teacher = load_teacher(setting)  # before memory is planned: it takes some of it
    wanted = setting.run_config(
        setting.start,
        seed=setting.seed("on-policy"),
        rollout=config.rollout,
        algo=ALGO,
        train=train_config(setting),
    )
    settings, memory = settle(
        wanted,
        setting.mixture.problems,
        setting.template,
        earlier=earlier_choices(context),
        beside=Beside(
            specs=(teacher.spec,),
            element=teacher.embedding.weight.element_size(),
            is_teacher=True,
            is_compared_whole=config.on_policy.estimate == "vocabulary",
        ),
    )
    choices = choices_of(memory) if memory is not None else {}
    bench = open_run_workbench(settings, context.progress, memory)
    context.note(
        EventKind.MEMORY_PLANNED, address=context.address, model=bench.loaded.digest, **choices
    )
    updater = make_updater(setting, bench.loaded.model, settings, teacher)
    if memory is not None:
        context.progress.say(memory.summary())
        bench.loaded.model.checkpointed_blocks = memory.checkpointed_blocks
        updater.keep_bytes = memory.logits

    def refresh() -> None:
        if memory is not None and memory.is_time_shared:
            updater.optimizer.release_gradients()
        bench.engine.refresh()

    metrics = MetricsLog(folder.metrics, context.progress)
    try:
        run = OnPolicyRun(
            config=settings,
            sft=config.sft,
            budget=setting.budget,
            coefficient=config.on_policy.coefficient,
            mixture=setting.mixture,
            template=setting.template,
            engine=bench.engine,
            tokenizer=bench.loaded.tokenizer,
            updater=updater,
            teacher=teacher if config.on_policy.estimate == "token" else None,
            checkpoints=stage_checkpoints(context, folder, keep=config.sft.keep_checkpoints),
            metrics=metrics,
            refresh=refresh,
            before_update=bench.engine.suspend,
            should_stop=context.should_stop,
        )
        units = setting.budget.units
        with context.progress.task("on-policy distillation", units, "tokens read") as tick:
            steps = run.train(tick)
    finally:
        metrics.close()
    shutil.rmtree(folder.model, ignore_errors=True)  # of a process killed while it finished
    export_model(bench.loaded.model, bench.loaded.tokenizer, folder.model)
    return ArmResult(
        compute=run.compute,
        steps=steps,
        seconds=recorded_seconds(folder.metrics),
        stopped="budget",
    )


def make_updater(
    setting: Setting, student: Decoder, settings: RunConfig, teacher: Decoder
) -> PolicyUpdater:
    """What learns from the samples, as `on_policy.estimate` says."""
    objective, options = resolve_objective(settings.algo), setting.config.on_policy
    if options.estimate == "token":
        return PolicyUpdater(student, settings, objective)
    return ReverseKlUpdater(
        student, settings, objective, teacher=teacher, coefficient=options.coefficient
    )


def load_teacher(setting: Setting) -> Decoder:
    """The teacher on the device, to be read from only."""
    recipe = setting.context.recipe
    device = resolve_device(recipe.device)
    loaded = load_model(
        setting.context.model_of(setting.config.teacher),
        dtype=resolve_dtype(recipe.dtype, device),
        device=device,
    )
    return loaded.model.requires_grad_(False)


def train_config(setting: Setting) -> TrainConfig:
    """The optimiser of `sft`; how many steps there are, the budget says."""
    sft = setting.config.sft
    shared: dict[str, Any] = sft.model_dump(
        include={"betas", "weight_decay", "adam_eps", "grad_clip", "checkpoint_every"}
    )
    rate = setting.config.on_policy.learning_rate or sft.learning_rate
    return TrainConfig(learning_rate=rate, keep_checkpoints=sft.keep_checkpoints, **shared)
