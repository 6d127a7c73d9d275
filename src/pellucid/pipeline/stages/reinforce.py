"""The stages zero and reason-rl: GRPO from the weights of an earlier model.

`reinforce` also serves general-rl, which adds reward models and a watch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pellucid.config_stages import RlStageConfig
from pellucid.ledger import EventKind
from pellucid.pipeline.evaluations import Instruments
from pellucid.pipeline.grading import grading_of, open_grader
from pellucid.pipeline.measure import as_asked, pipeline_suites
from pellucid.pipeline.rl_stage import RlStage
from pellucid.pipeline.screening import screened_mixture
from pellucid.pipeline.small_evaluations import SmallEvaluations
from pellucid.pipeline.stage import StageContext
from pellucid.protocols import ResponseScorer
from pellucid.train.grpo import MetricGroups, StepHook
from pellucid.train.job import Beside

MakeHook = Callable[[RlStage, Instruments], StepHook]
"""Makes what is called after the update of a step, once model and grader are there."""


def run(context: StageContext, config: RlStageConfig) -> None:
    """Trains what is left to train, and exports the model."""
    reinforce(context, config)


def reinforce(
    context: StageContext,
    config: RlStageConfig,
    *,
    scorers: Mapping[str, ResponseScorer] | None = None,
    beside: Beside | None = None,
    make_hook: MakeHook | None = None,
) -> None:
    """`run` with reward models by the name of their term, what they take of the memory, and one
    more hook.

    Raises UserError, NumericsError, or Interrupted with all saved.
    """
    settings = context.run_config(
        config.start,
        rollout=config.rollout,
        reward=config.reward,
        algo=config.algo,
        train=config.train,
    )
    training = RlStage(
        config=settings,
        mixture=screened_mixture(context, config.tasks),
        stage=context.stage,
        diary=context.diary,
        should_stop=context.should_stop,
        scorers=scorers or {},
        beside=beside,
    )
    choices = training.settle(earlier_choices(context))
    bench = training.open()
    context.note(
        EventKind.MEMORY_PLANNED, address=context.address, model=bench.loaded.digest, **choices
    )
    with open_grader(settings) as grader:
        instruments = Instruments(bench, grader)
        hooks = [_small_evaluations(context, training, instruments)]
        if make_hook is not None:
            hooks.append(make_hook(training, instruments))
        training.train(bench, grader, lambda step: _merged(hook(step) for hook in hooks))
    training.export(bench)


def _merged(parts: Iterable[MetricGroups]) -> MetricGroups:
    return {name: values for groups in parts for name, values in groups.items()}


def earlier_choices(context: StageContext) -> dict[str, object]:
    """What a killed process chose for this very stage: other packs would end in other bits."""
    for event in reversed(context.ledger.events):
        is_own = event.payload.get("address") == context.address
        if event.kind is EventKind.MEMORY_PLANNED and is_own:
            return dict(event.payload)
    return {}


def _small_evaluations(
    context: StageContext, training: RlStage, instruments: Instruments
) -> StepHook:
    """pass@1 on the first suite, every `eval_every` steps."""
    every, recipe = training.config.train.eval_every, context.recipe
    if not every:
        return lambda step: {}
    looks = SmallEvaluations(
        stage=context.stage,
        suite=as_asked(pipeline_suites(recipe), recipe, context.config.name)[0],
        every=every,
        limit=recipe.eval.during_limit,
        seed=recipe.seed,
        grading=grading_of(training.config),
        diary=context.diary,
    )
    return lambda step: looks.after_update(step, instruments)
