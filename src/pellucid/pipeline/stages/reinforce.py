"""The stages zero, reason-rl and general-rl: GRPO from the weights of an earlier model."""

from __future__ import annotations

from pellucid.config_stages import RlStageConfig
from pellucid.data.mixture import load_mixture
from pellucid.ledger import EventKind
from pellucid.pipeline.evaluations import small_evaluation
from pellucid.pipeline.measure import as_asked, pipeline_suites
from pellucid.pipeline.rl_stage import RlStage
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.workbench import Workbench
from pellucid.rewards.pool import GraderPool
from pellucid.train.grpo import MetricGroups, StepHook


def run(context: StageContext, config: RlStageConfig) -> None:
    """Trains what is left to train, and exports the model."""
    settings = context.run_config(
        config.start,
        rollout=config.rollout,
        reward=config.reward,
        algo=config.algo,
        train=config.train,
    )
    training = RlStage(
        config=settings,
        mixture=load_mixture(config.tasks, seed=settings.seed, data_dir=context.recipe.data_dir),
        stage=context.stage,
        diary=context.diary,
        should_stop=context.should_stop,
    )
    choices = training.settle(_earlier_choices(context))
    bench = training.open()
    context.note(
        EventKind.MEMORY_PLANNED, address=context.address, model=bench.loaded.digest, **choices
    )
    with GraderPool(math_verify=config.reward.math_verify) as grader:
        training.train(bench, grader, _small_evaluations(context, training, bench, grader))
    training.export(bench)


def _earlier_choices(context: StageContext) -> dict[str, object]:
    """What a killed process chose for this very stage: other packs would end in other bits."""
    for event in reversed(context.ledger.events):
        is_own = event.payload.get("address") == context.address
        if event.kind is EventKind.MEMORY_PLANNED and is_own:
            return dict(event.payload)
    return {}


def _small_evaluations(
    context: StageContext, training: RlStage, bench: Workbench, grader: GraderPool
) -> StepHook:
    """pass@1 on the first suite, every `eval_every` steps."""
    every, recipe = training.config.train.eval_every, context.recipe
    if not every:
        return lambda step: {}
    suite = as_asked(pipeline_suites(recipe), recipe, context.config.name)[0]

    def after_update(step: int) -> MetricGroups:
        if step % every:
            return {}
        limit = recipe.eval.during_limit
        return small_evaluation(step, suite, bench, grader, limit=limit, seed=recipe.seed)

    return after_update
