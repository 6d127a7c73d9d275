"""Negative controls: the same training from the same base, on a reward that knows no answer.

What a control gains as well was not brought by rewarding right answers (arXiv 2506.10947 found
gains from random rewards). Each has a folder below controls/ in the run and is measured like the
trained model; its checkpoints are no candidates for release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pellucid.artifacts import RunFolder, StageFolder, writing
from pellucid.config import ControlsConfig, RewardConfig, RunConfig
from pellucid.data.mixture import Mixture
from pellucid.evaluate.records import EvalResult
from pellucid.evaluate.suites import Suite
from pellucid.model.load import weights_digest
from pellucid.pipeline.diary import Diary
from pellucid.pipeline.evaluations import Evaluations, Instruments
from pellucid.pipeline.grading import grading_of
from pellucid.pipeline.rl_stage import RlStage
from pellucid.pipeline.workbench import Workbench, free_memory
from pellucid.protocols import StreamGrader

RANDOM, FORMAT = "random-reward", "format-only"
TERMS = {RANDOM: "random", FORMAT: "format"}
"""Control -> the only reward term that it is trained on."""


def control_names(controls: ControlsConfig) -> tuple[str, ...]:
    """The controls that a recipe asks for, in their order."""
    wanted = ((RANDOM, controls.random_reward), (FORMAT, controls.format_only))
    return tuple(name for name, is_on in wanted if is_on)


def control_folder(run: RunFolder, name: str) -> StageFolder:
    """Where a control keeps what it made."""
    number = list(TERMS).index(name) + 1
    return StageFolder(run.root / "controls" / f"{number:02d}-{name}")


def control_config(config: RunConfig, name: str) -> RunConfig:
    """The recipe with the control's reward and number of steps; all else as it is."""
    reward = RewardConfig(
        terms={TERMS[name]: 1.0},
        math_verify=config.reward.math_verify,
        truncated=config.reward.truncated,
    )
    steps = config.controls.steps or config.train.steps
    train = config.train.model_copy(update={"steps": steps, "eval_every": 0})
    return config.model_copy(update={"reward": reward, "train": train})


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRuns:
    """The controls of one run, whose folder is open for writing."""

    config: RunConfig
    mixture: Mixture
    run: RunFolder
    suites: Sequence[Suite]
    diary: Diary
    should_stop: Callable[[], bool]

    def train_and_measure(self, grader: StreamGrader) -> dict[str, dict[str, EvalResult]]:
        """Results by control and suite; what is on the disk is not done again."""
        results = {}
        for name in control_names(self.config.controls):
            results[name] = self._one(name, grader)
            free_memory()  # of its model: the next one needs the room
        return results

    def _one(self, name: str, grader: StreamGrader) -> dict[str, EvalResult]:
        stage = control_folder(self.run, name)
        with writing(stage.root):
            stage.checkpoints.mkdir(parents=True, exist_ok=True)
            stage.evals.mkdir(exist_ok=True)
        evaluations = Evaluations(
            folder=stage.evals,
            seed=self.config.seed,
            grading=grading_of(self.config),
            diary=self.diary,
            should_stop=self.should_stop,
        )
        asked = [suite for suite in self.suites if not suite.baseline_only]
        if all(evaluations.kept(name, suite) for suite in asked) and stage.model.is_dir():
            return evaluations.measure_all(name, asked, _nothing)
        self.diary.progress.say(f"control {name}")
        training = RlStage(
            config=control_config(self.config, name),
            mixture=self.mixture,
            stage=stage,
            diary=self.diary,
            should_stop=self.should_stop,
        )
        training.settle({})
        bench = training.open()
        training.train(bench, grader, lambda step: {})
        training.export(bench)
        trained = Instruments(as_exported(bench, stage.model), grader)
        return evaluations.measure_all(name, asked, lambda: trained)


def as_exported(bench: Workbench, folder: Path) -> Workbench:
    """The same model and engine, said to be of `folder`, where its weights now lie."""
    loaded = replace(bench.loaded, path=folder, digest=weights_digest(folder))
    return replace(bench, loaded=loaded)


def _nothing() -> Instruments:
    raise AssertionError("all results are on the disk")
