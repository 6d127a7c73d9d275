"""One stage of reinforcement learning: settle the memory, open, train, export.

Serves the recipe of one stage (`zero`) and the RL stages of a pipeline (`stages.reinforce`) alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.algo.presets import Objective, resolve
from pellucid.artifacts import SEAL_NAME, StageFolder, sha256_file
from pellucid.config import RunConfig
from pellucid.data.mixture import Mixture
from pellucid.ledger import EventKind
from pellucid.model.export import export_model
from pellucid.pipeline.diary import Diary
from pellucid.pipeline.plan import check_fit, choices_of, longest_prompt, settle
from pellucid.pipeline.workbench import Workbench, open_run_workbench
from pellucid.protocols import Grader, ResponseScorer
from pellucid.tasks.templates import Template, get_template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.collect import Collector
from pellucid.train.grpo import GrpoRun, MetricGroups, StepHook
from pellucid.train.job import Beside
from pellucid.train.memory_plan import MemoryPlan
from pellucid.train.peak_memory import PeakMemory
from pellucid.train.recorder import Recorder
from pellucid.train.update import PolicyUpdater


@dataclass(slots=True, kw_only=True)
class RlStage:
    """GRPO in a stage's folder that is open for writing."""

    config: RunConfig
    mixture: Mixture
    """To train on."""
    stage: StageFolder
    diary: Diary
    should_stop: Callable[[], bool]
    scorers: Mapping[str, ResponseScorer] = field(default_factory=dict)
    """Reward models by the name of their term."""
    beside: Beside | None = None
    """These models' memory, which they have already; None without any."""
    memory: MemoryPlan | None = None
    """None: not planned."""

    @property
    def template(self) -> Template:
        return get_template(self.config.task.template)

    @property
    def objective(self) -> Objective:
        return resolve(self.config.algo)

    def settle(self, earlier: Mapping[str, Any]) -> dict[str, int]:
        """Chooses what the recipe leaves open before anything is loaded, `earlier` choices of the
        same stage first; returns the choices. Raises ConfigError where nothing fits.
        """
        problems = self.mixture.problems
        self.config, self.memory = settle(
            self.config, problems, self.template, earlier=earlier, beside=self.beside
        )
        if self.memory is None:
            return {}
        self.diary.progress.say(self.memory.summary())
        return choices_of(self.memory)

    def open(self) -> Workbench:
        """The model to train. ConfigError where prompts are too long for its context: before any
        work is done.
        """
        bench = open_run_workbench(self.config, self.diary.progress, self.memory)
        longest = longest_prompt(self.mixture.problems, self.template, bench.loaded.tokenizer)
        context = bench.loaded.model.spec.max_context
        check_fit(longest, self.config.rollout.max_new_tokens, context)
        return bench

    def train(self, bench: Workbench, grader: Grader, after_update: StepHook) -> None:
        """All steps that are not done yet."""
        config, objective = self.config, self.objective
        recorder = Recorder(
            self.stage,
            tokenizer=bench.loaded.tokenizer,
            share=config.train.rollout_share,
            seed=config.seed,
            progress=self.diary.progress,
        )
        bench.engine.release()  # an evaluation may hold more than was planned for training
        updater = PolicyUpdater(bench.loaded.model, config, objective)
        if self.memory is not None:
            bench.loaded.model.checkpointed_blocks = self.memory.checkpointed_blocks
            updater.keep_bytes = self.memory.logits
        planned = self.memory.peak if self.memory is not None else None
        peak = PeakMemory(bench.loaded.model.embedding.weight.device, planned)

        def make_room() -> None:
            peak.look()
            bench.engine.suspend()

        def after_weights_changed() -> None:
            peak.look()
            self._after_update(bench, updater)

        def look_at_the_policy(step: int) -> MetricGroups:
            found = after_update(step)
            peak.forget()
            return found

        job = GrpoRun(
            config=config,
            collector=Collector(
                config,
                self.mixture,
                self.template,
                bench.engine,
                bench.loaded.tokenizer,
                grader,
                objective.advantage,
                self.scorers,
            ),
            updater=updater,
            checkpoints=self._checkpoints(),
            recorder=recorder,
            refresh=after_weights_changed,
            before_update=make_room,
            should_stop=self.should_stop,
            after_update=look_at_the_policy,
            memory=peak.take,
        )
        try:
            window = self.diary.window("training", self.stage.stage_name)
            task = self.diary.progress.task("training", config.train.steps, "steps")
            with window, task as tick:
                job.train(tick)
        finally:
            recorder.close()
        if line := peak.summary():
            self.diary.progress.say(line)

    def _checkpoints(self) -> Checkpoints:
        note = self.diary.note
        return Checkpoints(
            self.stage,
            keep=self.config.train.keep_checkpoints,
            on_save=self._note_save,
            on_damage=lambda line: note(EventKind.ARTEFACT_DAMAGED, artefact=line),
        )

    def _note_save(self, step: int) -> None:
        """The ledger names the bytes too: a checkpoint may be pruned, but not exchanged."""
        state = sha256_file(self.stage.checkpoint(step) / SEAL_NAME)
        stage = self.stage.stage_name or self.stage.name
        self.diary.note(EventKind.CHECKPOINT_SAVED, step=step, stage=stage, weights=state)

    def _after_update(self, bench: Workbench, updater: PolicyUpdater) -> None:
        """New weights for the engine; where memory is shared, the room that training took."""
        if self.memory is not None and self.memory.is_time_shared:
            updater.optimizer.release_gradients()
        bench.engine.refresh()

    def export(self, bench: Workbench) -> None:
        """The trained model into the stage's folder."""
        shutil.rmtree(self.stage.model, ignore_errors=True)  # of a run killed while it finished
        export_model(bench.loaded.model, bench.loaded.tokenizer, self.stage.model)
