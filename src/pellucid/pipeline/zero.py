"""The R1-Zero job: measure the base model, train it by GRPO on rule-based rewards, measure it
again.

    load ── evals before ── GrpoRun.train ── evals after ── result.json ── manifest ── report.html

Every part that is finished on disk is not done again, so a killed job continues with the same
command.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.algo.presets import Objective, resolve
from pellucid.artifacts import RunFolder, StageFolder, atomic_write_json, open_run, sha256_file
from pellucid.config import RunConfig
from pellucid.config_io import dump_recipe
from pellucid.data.load import load_problems
from pellucid.errors import Interrupted, RunError
from pellucid.evaluate.records import EvalResult
from pellucid.evaluate.suites import Suite
from pellucid.ledger import EventKind, Ledger
from pellucid.manifest import code_state, write_manifest
from pellucid.model.export import export_model
from pellucid.pipeline.measure import kept_result, load_suites, measure, measure_into
from pellucid.pipeline.plan import CHOICES, Settled, check_fit, longest_prompt, settle
from pellucid.pipeline.result import build_result
from pellucid.pipeline.workbench import MODEL_NAME, Workbench, open_run_workbench
from pellucid.protocols import ProgressFn
from pellucid.records import Problem
from pellucid.report.page import write_report
from pellucid.rewards.pool import GraderPool
from pellucid.rewards.terms import check_terms
from pellucid.runlog import Progress
from pellucid.tasks.templates import Template, get_template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.collect import Collector
from pellucid.train.grpo import GrpoRun, MetricGroups
from pellucid.train.memory_plan import MemoryPlan
from pellucid.train.recorder import Recorder
from pellucid.train.update import PolicyUpdater

STAGE = "zero"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What `run` leaves behind."""

    folder: Path
    report: Path
    result: dict[str, Any]


def run(
    config: RunConfig, out: Path, *, set_by_hand: Mapping[str, str], progress: Progress
) -> RunOutcome:
    """Runs a recipe into `out`, or continues it. Raises UserError, NumericsError or Interrupted."""
    plan = make_plan(config)
    with open_run(out, dump_recipe(config, set_by_hand)) as (folder, is_resumed):
        ledger = Ledger(folder.ledger)
        try:
            if _is_finished(folder, ledger):
                progress.say(f"{out} is finished: this is its result (another --out runs it anew)")
                return _finished_outcome(folder)
            ledger.append(
                EventKind.RESUMED if is_resumed else EventKind.RUN_STARTED,
                recipe=sha256_file(folder.recipe),
            )
            return ZeroJob(config, plan, folder, ledger, progress).run()
        finally:
            ledger.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a recipe names, looked up."""

    suites: tuple[Suite, ...]
    problems: list[Problem]
    """To train on."""
    template: Template
    objective: Objective


def make_plan(config: RunConfig) -> Plan:
    """What is missing or misspelt is found here, before a folder is made and a model measured."""
    check_terms(config.reward.terms)
    return Plan(
        template=get_template(config.task.template),
        objective=resolve(config.algo),
        suites=load_suites(config),
        problems=load_problems(
            config.task.name,
            config.task.split,
            limit=config.task.limit,
            data_dir=config.task.data_dir,
            seed=config.seed,
        ),
    )


def _is_finished(folder: RunFolder, ledger: Ledger) -> bool:
    """The ledger ends a run only when all is written; a result changed since then is made again."""
    ended = ledger.last(EventKind.RUN_ENDED)
    if ended is None or not folder.result.is_file():
        return False
    return sha256_file(folder.result) == ended.payload["result"]


def _finished_outcome(folder: RunFolder) -> RunOutcome:
    report = folder.report if folder.report.is_file() else write_report(folder.root)
    return RunOutcome(
        folder=folder.root, report=report, result=json.loads(folder.result.read_text())
    )


class ZeroJob:
    """One R1-Zero stage in a run folder that is open for writing."""

    def __init__(
        self,
        config: RunConfig,
        plan: Plan,
        folder: RunFolder,
        ledger: Ledger,
        progress: Progress,
    ) -> None:
        self.config = config
        self.plan = plan
        self.folder = folder
        self.stage: StageFolder = folder.stage(1, STAGE)
        self.ledger = ledger
        self.progress = progress
        self.started = time.perf_counter()
        self.memory: MemoryPlan | None = None
        self.code = code_state()
        """As loaded now: the checkout may move on while the job runs."""
        self.should_stop: Callable[[], bool] = lambda: False

    def run(self) -> RunOutcome:
        """All parts in order; what is there already is read."""
        with stop_on_sigterm() as self.should_stop:
            return self._run()

    def _run(self) -> RunOutcome:
        self.config, self.memory = self._settle()
        config, suites = self.config, self.plan.suites
        bench = open_run_workbench(config, self.progress, self.memory)
        self._check_fit(bench)
        chosen = {} if self.memory is None else {n: getattr(self.memory, n) for n in CHOICES}
        self.ledger.append(
            EventKind.STAGE_STARTED, stage=STAGE, model=bench.loaded.digest, **chosen
        )
        with GraderPool(math_verify=config.reward.math_verify) as grader:
            before = self._measure_all("before", suites, bench, grader)
            self._train(bench, grader)
            trained = [s for s in suites if not s.baseline_only]
            after = self._measure_all("after", trained, bench, grader)
        return self._finish(bench, suites, before, after)

    def _settle(self) -> Settled:
        """Chooses before anything is loaded; a continued run keeps to its first choices."""
        started = self.ledger.last(EventKind.STAGE_STARTED)
        earlier = {} if started is None else started.payload
        settled = settle(self.config, self.plan.problems, self.plan.template, earlier=earlier)
        if settled.memory is not None:
            self.progress.say(settled.memory.summary())
        return settled

    def _check_fit(self, bench: Workbench) -> None:
        """Training prompts too long for the context are missed before the base is measured."""
        longest = longest_prompt(self.plan.problems, self.plan.template, bench.loaded.tokenizer)
        context = bench.loaded.model.spec.max_context
        check_fit(longest, self.config.rollout.max_new_tokens, context)

    def _measure_all(
        self, arm: str, suites: Sequence[Suite], bench: Workbench, grader: GraderPool
    ) -> dict[str, EvalResult]:
        """Every suite on one arm; what a killed run had finished is read."""
        results = {}
        for suite in suites:
            kept = self._kept(arm, suite)
            results[suite.key] = kept or self._measure(arm, suite, bench, grader)
            estimate = results[suite.key].pass_at_1
            self.progress.say(
                f"{arm}: {suite.label} pass@1 {estimate.value:.1%} "
                f"[{estimate.low:.1%}, {estimate.high:.1%}]"
            )
        return results

    def _kept(self, arm: str, suite: Suite) -> EvalResult | None:
        """What an earlier process measured; a damaged file is named and measured again."""
        path = kept_result(self.stage.evals, arm, suite)
        if not path.exists():
            return None
        try:
            return EvalResult.from_json(path.read_text())
        except (RunError, UnicodeDecodeError) as error:
            self._note(EventKind.ARTEFACT_DAMAGED, artefact=f"{path.name}: {error}")
            return None

    def _measure(self, arm: str, suite: Suite, bench: Workbench, grader: GraderPool) -> EvalResult:
        """Start and end go into the ledger: an attempt that is not reported leaves a trace."""
        facts = {"arm": arm, "suite": suite.key, "problems": len(suite.problems), "k": suite.k}
        self._note(EventKind.EVALUATION_STARTED, **facts)
        with self.progress.task(
            f"{arm}: {suite.label}", len(suite.problems) * suite.k, "samples"
        ) as tick:
            result = measure_into(
                self.stage.evals,
                bench,
                suite,
                grader,
                arm=arm,
                seed=self.config.seed,
                progress=self._stoppable(tick, facts),
            )
        self._note(EventKind.EVALUATION_ENDED, **facts, pass_at_1=result.pass_at_1.value)
        return result

    def _stoppable(self, tick: ProgressFn, facts: Mapping[str, Any]) -> ProgressFn:
        """Progress of an evaluation that SIGTERM aborts: what is measured by halves is not kept."""

        def advance(done: int, total: int) -> None:
            if self.should_stop():
                self._note(EventKind.EVALUATION_ABORTED, **facts, samples=done)
                raise Interrupted(f"after {done} of {total} samples of {facts['suite']}")
            tick(done, total)

        return advance

    def _train(self, bench: Workbench, grader: GraderPool) -> None:
        config, plan = self.config, self.plan
        recorder = Recorder(
            self.stage,
            tokenizer=bench.loaded.tokenizer,
            share=config.train.rollout_share,
            seed=config.seed,
            progress=self.progress,
        )
        bench.engine.release()  # an evaluation may hold more than was planned for training
        updater = PolicyUpdater(bench.loaded.model, config, plan.objective)
        if self.memory is not None:
            bench.loaded.model.checkpointed_blocks = self.memory.checkpointed_blocks
            updater.keep_bytes = self.memory.logits
        job = GrpoRun(
            config=config,
            collector=Collector(
                config,
                plan.problems,
                plan.template,
                bench.engine,
                bench.loaded.tokenizer,
                grader,
                plan.objective.advantage,
            ),
            updater=updater,
            checkpoints=Checkpoints(
                self.stage,
                keep=config.train.keep_checkpoints,
                on_save=lambda step: self._note(EventKind.CHECKPOINT_SAVED, step=step),
                on_damage=lambda line: self._note(EventKind.ARTEFACT_DAMAGED, artefact=line),
            ),
            recorder=recorder,
            refresh=lambda: self._after_update(bench, updater),
            before_update=bench.engine.suspend,
            should_stop=self.should_stop,
            after_update=lambda step: self._small_evaluation(step, plan.suites[0], bench, grader),
        )
        try:
            with self.progress.task("training", config.train.steps, "steps") as tick:
                job.train(tick)
        finally:
            recorder.close()

    def _after_update(self, bench: Workbench, updater: PolicyUpdater) -> None:
        """New weights for the engine; where memory is shared, the room that training took."""
        if self.memory is not None and self.memory.is_time_shared:
            updater.optimizer.release_gradients()
        bench.engine.refresh()

    def _note(self, kind: EventKind, **payload: Any) -> None:
        self.ledger.append(kind, **payload, elapsed_s=round(self._elapsed_s(), 3))
        if kind is EventKind.ARTEFACT_DAMAGED:
            self.progress.say(f"damaged, not used: {payload['artefact']}")

    def _small_evaluation(
        self, step: int, suite: Suite, bench: Workbench, grader: GraderPool
    ) -> MetricGroups:
        """pass@1 on a few held-out problems, every `eval_every` steps."""
        every = self.config.train.eval_every
        if not every or step % every:
            return {}
        few = suite.problems[: self.config.eval.during_limit]
        small = replace(suite, problems=few, k=1, pass_at=())
        result = measure(bench, small, grader, arm=f"step-{step}", seed=self.config.seed)
        return {f"eval/{suite.key}": {"pass_at_1": result.pass_at_1.value}}

    def _finish(
        self,
        bench: Workbench,
        suites: Sequence[Suite],
        before: dict[str, EvalResult],
        after: dict[str, EvalResult],
    ) -> RunOutcome:
        model_folder = self.stage.root / MODEL_NAME
        shutil.rmtree(model_folder, ignore_errors=True)  # of a run killed while it finished
        export_model(bench.loaded.model, bench.loaded.tokenizer, model_folder)
        result = build_result(
            suites, before, after, wall_s=self._wall_s(), device=bench.device_name
        )
        atomic_write_json(self.folder.result, result)
        write_manifest(
            self.stage.manifest,
            stage=STAGE,
            digest=sha256_file(self.folder.recipe),
            inputs={"model": bench.loaded.digest, "recipe": sha256_file(self.folder.recipe)},
            outputs={
                str(path.relative_to(self.stage.root)): sha256_file(path)
                for path in sorted(self.stage.evals.iterdir())
            }
            | {"metrics.jsonl": sha256_file(self.stage.metrics)}
            | {
                f"model/{path.name}": sha256_file(path)
                for path in sorted(model_folder.glob("*.safetensors"))
            },
            seed=self.config.seed,
            device=bench.device_name,
            more={"code": self.code},
        )
        self.ledger.append(EventKind.STAGE_ENDED, stage=STAGE)
        self.ledger.append(EventKind.RUN_ENDED, result=sha256_file(self.folder.result))
        report = write_report(self.folder.root)
        return RunOutcome(folder=self.folder.root, report=report, result=result)

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    def _wall_s(self) -> float:
        """Seconds of work: this process, and of earlier ones what led to a checkpoint or result."""
        earlier, last = 0.0, 0.0
        for event in self.ledger.events:
            if event.kind is EventKind.RESUMED:
                earlier, last = earlier + last, 0.0
            last = event.payload.get("elapsed_s", last)
        return earlier + self._elapsed_s()


@contextmanager
def stop_on_sigterm() -> Iterator[Any]:
    """Yields a function that turns true once SIGTERM arrived: the trainer then saves and stops."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)
