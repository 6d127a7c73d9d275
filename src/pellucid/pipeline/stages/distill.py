"""The stage distill: a smaller student taught in several ways at equal compute (paper, 3 and B.4.3;
iterative fine-tuning as its referees asked for).

    examples, problems, teacher ── budget
    student ── warm start ──► sft, on-policy, iterative-sft ──► suites ──► arms.json

Each arm starts from the same student, fine-tuned a little first where the recipe says so, works in
`arms/<name>/`, and ends when its budget is spent. The first arm's model becomes the stage's. A
killed stage goes on in the arm that it was in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

from pellucid.artifacts import StageFolder, atomic_write_json, writing
from pellucid.config_stages import DistillConfig
from pellucid.errors import Interrupted
from pellucid.pipeline.distill.iterative_arm import run_iterative
from pellucid.pipeline.distill.on_policy_arm import run_on_policy
from pellucid.pipeline.distill.setting import ArmResult, Setting, prepare
from pellucid.pipeline.distill.sft_arm import run_sft, run_warm_start
from pellucid.pipeline.distill.table import TABLE_NAME, WARMED, arm_models, build_arms, cost_line
from pellucid.pipeline.distill.warm_start import WARM_START
from pellucid.pipeline.measure import as_asked, pipeline_suites
from pellucid.pipeline.measure_models import ModelMeasurer
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.workbench import free_memory
from pellucid.runlog import MetricsLog, MetricsRecord, read_metrics

PARTS: dict[str, Callable[[Setting, StageFolder], ArmResult]] = {
    WARM_START: run_warm_start,
    "sft": run_sft,
    "on-policy": run_on_policy,
    "iterative-sft": run_iterative,
}


def run(context: StageContext, config: DistillConfig) -> None:
    """Teaches what is left to teach, and measures all arms.

    Raises UserError, NumericsError, or Interrupted with all saved.
    """
    setting = prepare(context, config)
    taken, first = {}, None
    if setting.warm_start is not None:
        taken[WARMED] = first = _finished(setting, WARM_START)
    taken |= {arm: _finished(setting, arm, first).behind(first) for arm in config.arms}
    _promote(setting)
    _merge_metrics(setting)
    _measure(setting, taken)


def _finished(setting: Setting, arm: str, first: ArmResult | None = None) -> ArmResult:
    """What an arm, or the warm start, took by itself; it is run, or continued, where it is not
    finished. `first`: the warm start that it stands behind.
    """
    context, folder = setting.context, setting.folder(arm)
    result = ArmResult.read(folder)
    if result is None:
        if context.should_stop():
            raise Interrupted(f"before {arm}")
        context.progress.say(f"{context.config.name}: {arm}")
        result = PARTS[arm](setting, folder)
        result.write(folder)
        free_memory()
    if not context.recipe.keep_checkpoints:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
    context.progress.say(cost_line(arm, result.behind(first), setting.whole))
    return result


def _promote(setting: Setting) -> None:
    """The first arm's model becomes the stage's; it is there already where a process was killed
    behind this.
    """
    model = setting.context.stage.model
    if not model.is_dir():
        with writing(model):
            setting.folder(setting.config.arms[0]).model.rename(model)


def _merge_metrics(setting: Setting) -> None:
    """The metrics of all arms in the stage's file, groups named after their arm."""
    stage = setting.context.stage
    stage.metrics.unlink(missing_ok=True)
    log = MetricsLog(stage.metrics)
    warmed = () if setting.warm_start is None else (WARM_START,)
    for arm in (*warmed, *setting.config.arms):
        folder = setting.folder(arm)
        offset = 0
        rounds = (folder.root / f"round-{n}" for n in range(1, setting.config.iterative.rounds + 1))
        for path in [folder.metrics, *(StageFolder(root).metrics for root in rounds)]:
            records = list(read_metrics(path)) if path.is_file() else []
            for record in records:
                log.write(
                    MetricsRecord(
                        step=offset + record.step,
                        name=f"{arm}/{record.name}",
                        values=record.values,
                    )
                )
            offset += max((record.step for record in records), default=0)
    log.close()


def _measure(setting: Setting, taken: Mapping[str, ArmResult]) -> None:
    """The student and every arm on the suites of the recipe, as the stage's model is asked."""
    context, config = setting.context, setting.config
    suites = as_asked(pipeline_suites(context.recipe), context.recipe, config.name)
    trained = [suite for suite in suites if not suite.baseline_only]
    measurer = ModelMeasurer(context.recipe, context.diary, context.should_stop)
    models = arm_models(config, context.stage)
    measured = {
        m.name: measurer.measure(config.name, m.model, context.stage, trained, arm=m.measured_as)
        for m in models
    }
    warm_start_tokens = setting.whole.tokens - setting.budget.tokens
    table = build_arms(models, taken, measured, setting.whole, warm_start_tokens)
    atomic_write_json(context.stage.root / TABLE_NAME, table)
