"""The GRPO loop: who produces what, and who waits for whom.

    step s:  Collector.collect(s) ──► PolicyUpdater.update ──► Engine.refresh ──► metrics, rollouts
             engine beside grader     waits for all groups     new weights        then a checkpoint
                                                                                  every N steps

A checkpoint holds weights, optimiser, reference and the lengths of the files written so far.
Everything else is a function of (seed, step), so a run killed at any moment continues from the
last checkpoint and ends with the same bits as a run that was never killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from pellucid.config import RunConfig
from pellucid.errors import Interrupted
from pellucid.protocols import ProgressFn
from pellucid.records import Problem, Rollout, StopReason, Verdict
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.collect import Batch, Collector
from pellucid.train.recorder import Recorder
from pellucid.train.step_errors import named
from pellucid.train.update import PolicyUpdater

MetricGroups = dict[str, dict[str, float]]
"""`rollout`, `train`, `timing`, `memory`, `eval/…` -> name -> value: one line of metrics.jsonl
each."""
StepHook = Callable[[int], MetricGroups]
"""Called after the update of a step: the small evaluation during training."""


@dataclass(slots=True, kw_only=True)
class GrpoRun:
    """The parts of a training stage, wired by the pipeline."""

    config: RunConfig
    collector: Collector
    updater: PolicyUpdater
    checkpoints: Checkpoints
    recorder: Recorder
    refresh: Callable[[], None]
    """Tells the engine that the weights changed, and that memory is its own again."""
    before_update: Callable[[], None] = field(default=lambda: None)
    """Makes room for the update."""
    should_stop: Callable[[], bool] = field(default=lambda: False)
    after_update: StepHook = field(default=lambda step: {})
    memory: Callable[[], dict[str, float]] = field(default=dict)
    """Of the device, since the last step; empty where there is nothing to say."""

    def train(self, progress: ProgressFn | None = None) -> int:
        """Trains from the last good checkpoint to the last step; returns the number of steps done
        now.

        Raises Interrupted after saving when asked to stop; NumericsError, and UserError where
        memory runs out, with the step in their line and the last checkpoint usable.
        """
        first = self._resume()
        every, last = self.config.train.checkpoint_every, self.config.train.steps
        for done in range(first, last):
            if self.should_stop():
                self._save(done)
                raise Interrupted(f"after step {done}")
            with named(done + 1):
                self._one_step(done + 1)
            if (done + 1) % every == 0 or done + 1 == last:
                self._save(done + 1)
            if progress is not None:
                progress(done + 1, last)
        return last - first

    def _one_step(self, step: int) -> None:
        """Step number `step`, counted from 1: metrics of step s are of the policy after s - 1
        updates.
        """
        started = time.perf_counter()
        batch = self.collector.collect(step)
        collected = time.perf_counter()
        rollout = batch_metrics(batch)
        self.before_update()
        trained = self.updater.update(batch.sequences(), step=step)
        self.refresh()
        ended = time.perf_counter()
        timing = {
            "step_s": ended - started,
            "rollout_s": collected - started,
            "grading_wait_s": batch.grading_wait_s,
            "train_s": ended - collected,
            "tokens_per_s": rollout["tokens"] / (ended - started),
        }
        groups = {"rollout": rollout, "train": trained, "timing": timing}
        if memory := self.memory():
            groups["memory"] = memory
        self.recorder.record(step, groups | self.after_update(step), batch)
        self.recorder.metrics.end_step(step, self.config.train.steps)

    def _resume(self) -> int:
        restored = self.checkpoints.load_last(self.updater)
        self.recorder.rewind(restored.offsets if restored else None)
        if restored is None:
            return 0
        self.refresh()
        return restored.step

    def _save(self, step: int) -> None:
        self.checkpoints.save(step, self.updater, self.recorder.offsets(step))


def batch_metrics(batch: Batch) -> dict[str, float]:
    """What metrics.jsonl says of the rollouts of a step. Every skipped sample has a counter."""
    rollouts = [r for group in batch.groups for r in group]
    valid = [r for r in rollouts if not r.masked]
    lengths = [len(r.completion.token_ids) for r in rollouts]
    metrics = {
        "reward_mean": _mean([r.reward for r in valid]),
        **_accuracy(valid),
        "length_mean": _mean([float(n) for n in lengths]),
        "length_max": float(max(lengths)),
        "length_truncated_frac": _share(rollouts, StopReason.LENGTH),
        "masked": float(len(rollouts) - len(valid)),
        "groups_without_advantage": float((batch.advantages == 0).all(dim=1).sum()),
        "groups_resampled": float(batch.num_resampled),
        "tokens": float(sum(lengths)),
    }
    metrics |= _term_statistics(valid) | _shares_of_the_mixture(valid)
    for verdict in Verdict:
        share = _mean([float(r.score.verdict is verdict) for r in rollouts])
        metrics[f"verdict/{verdict.value}"] = share
    return metrics


def _accuracy(valid: list[Rollout]) -> dict[str, float]:
    """Share of correct ones among the graded; no entry where all problems are open."""
    graded = [float(r.score.is_correct) for r in valid if r.score.verdict.is_graded]
    return {"accuracy": _mean(graded)} if graded or not valid else {}


def _term_statistics(valid: list[Rollout]) -> dict[str, float]:
    """Mean, standard deviation and count of each term over the rollouts to which it applied."""
    stats = {}
    for term in sorted({name for r in valid for name in r.terms}):
        values = [r.terms[term] for r in valid if term in r.terms]
        stats[f"reward/{term}"] = fmean(values)
        stats[f"reward/{term}/std"] = pstdev(values)
        stats[f"reward/{term}/count"] = float(len(values))
    return stats


def _shares_of_the_mixture(valid: list[Rollout]) -> dict[str, float]:
    """Accuracy by task and reward by kind of problem, where the step has several."""
    tasks, kinds = _by(valid, lambda r: task_of(r.problem)), _by(valid, lambda r: r.problem.kind)
    stats = {}
    for task, members in tasks.items() if len(tasks) > 1 else ():
        stats |= {f"{name}/{task}": value for name, value in _accuracy(members).items()}
    for kind, members in kinds.items() if len(kinds) > 1 else ():
        stats[f"reward_mean/{kind}"] = fmean(r.reward for r in members)
    return stats


def task_of(problem: Problem) -> str:
    """Name of the task or data set that a problem comes from: its id up to the first slash."""
    return problem.id.partition("/")[0]


def _by(rollouts: list[Rollout], key: Callable[[Rollout], str]) -> dict[str, list[Rollout]]:
    """Rollouts by key, keys in order."""
    parts: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        parts.setdefault(key(rollout), []).append(rollout)
    return dict(sorted(parts.items()))


def _mean(values: list[float]) -> float:
    return fmean(values) if values else 0.0


def _share(rollouts: list[Rollout], reason: StopReason) -> float:
    return _mean([float(r.completion.stop is reason) for r in rollouts])
