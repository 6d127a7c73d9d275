"""The models of a pipeline on its suites: loaded only where something is not measured yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig
from pellucid.config_stages import PipelineConfig
from pellucid.evaluate.records import EvalResult
from pellucid.evaluate.suites import Suite
from pellucid.pipeline.diary import Diary
from pellucid.pipeline.evaluations import Evaluations, Instruments
from pellucid.pipeline.grading import grading_of, open_grader
from pellucid.pipeline.stage import common_config
from pellucid.pipeline.workbench import free_memory, open_run_workbench


class ModelMeasurer:
    """Measures models into the `evals/` of their stages."""

    def __init__(
        self, recipe: PipelineConfig, diary: Diary, should_stop: Callable[[], bool]
    ) -> None:
        self.recipe = recipe
        self.diary = diary
        self.should_stop = should_stop

    def measure(
        self,
        name: str,
        model: ModelConfig,
        stage: StageFolder,
        suites: Sequence[Suite],
        *,
        arm: str | None = None,
    ) -> dict[str, EvalResult]:
        """Results by suite; all models share the seed, and so the randomness of their samples.
        `arm`: what a stage of several models calls this one; default: the stage's name.
        """
        config = common_config(
            self.recipe,
            model,
            template=self.recipe.template_of(name),
            seed=self.recipe.seed,
        )
        with ExitStack() as stack:

            @cache
            def instruments() -> Instruments:
                grader = stack.enter_context(open_grader(self.recipe))
                return Instruments(open_run_workbench(config, self.diary.progress), grader)

            results = self._evaluations(stage).measure_all(arm or name, suites, instruments)
            instruments.cache_clear()
        free_memory()
        return results

    def kept(self, name: str, stage: StageFolder, suites: Sequence[Suite]) -> dict[str, EvalResult]:
        """What was measured before, by suite."""
        evaluations = self._evaluations(stage)
        found = {suite.key: evaluations.kept(name, suite) for suite in suites}
        return {key: result for key, result in found.items() if result is not None}

    def _evaluations(self, stage: StageFolder) -> Evaluations:
        return Evaluations(
            folder=stage.evals,
            seed=self.recipe.seed,
            grading=grading_of(self.recipe),
            diary=self.diary,
            should_stop=self.should_stop,
        )
