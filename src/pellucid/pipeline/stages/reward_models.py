"""The stage reward-models: a helpful and a safety model on the decoder of `start` (paper, Methods).

    PreferenceData ── split ── RewardRun ──► helpful/, safety/ (model folders)
                        └ held-out ── score ──► accuracy.json, beside what length alone tells

Each model starts from the same weights with a head of its own. A killed stage goes on behind
whatever is finished: samples, judgments, checkpoints, model folders.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pellucid.artifacts import StageFolder, atomic_write_json
from pellucid.config_rewards import RewardDataConfig
from pellucid.config_stages import RewardModelsConfig
from pellucid.data.preferences import LabelledResponse, PreferencePair, read_labelled, read_pairs
from pellucid.errors import DataError
from pellucid.evaluate.preference_accuracy import (
    ScoredPair,
    ScoredResponse,
    label_report,
    pair_report,
)
from pellucid.ledger import EventKind
from pellucid.model.load import LoadedModel
from pellucid.model.scalar_head import (
    LoadedReward,
    Loss,
    RewardCard,
    RewardModel,
    View,
    is_reward_model,
    load_reward_model,
    save_reward_model,
)
from pellucid.pipeline.preference_data import PreferenceData
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.workbench import free_memory, resolve_device, resolve_dtype, set_threads
from pellucid.runlog import MetricsLog, MetricsRecord, read_metrics
from pellucid.tasks.templates import get_template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.reward_data import LabelExample, PairExample, RewardReader, score_texts
from pellucid.train.reward_model import RewardExample, RewardRun, RewardUpdater

ACCURACY_NAME = "accuracy.json"
CENTRE_TEXTS = 1024
"""Training texts whose mean reward is the zero of a pairwise model's scale."""
KINDS: dict[str, tuple[Loss, View]] = {
    "helpful": ("pairwise", "summary"),
    "safety": ("pointwise", "response"),
}
Row = PreferencePair | LabelledResponse


def run(context: StageContext, config: RewardModelsConfig) -> None:
    """Trains and measures what the recipe asks for.

    Raises UserError, NumericsError, or Interrupted with all saved.
    """
    set_threads(context.recipe.threads)
    data = PreferenceData(context, config)
    report: dict[str, Any] = {}
    if config.helpful is not None:
        split = data.helpful(config.helpful)
        model = RewardStage(context, config, "helpful")
        report["helpful"] = model.run(split.train, split.held_out, config.helpful, data)
        free_memory()
    if config.safety is not None:
        labels = data.safety(config.safety)
        model = RewardStage(context, config, "safety")
        report["safety"] = model.run(labels.train, labels.held_out, config.safety, data)
        free_memory()
    _merge_metrics(context, list(report))
    atomic_write_json(context.stage.root / ACCURACY_NAME, report)


class RewardStage:
    """One of the two models."""

    def __init__(self, context: StageContext, config: RewardModelsConfig, name: str) -> None:
        self.context = context
        self.config = config
        self.name = name
        self.loss, self.sees = KINDS[name]
        self.template = context.recipe.template_of(config.start)
        self.device = resolve_device(context.recipe.device)
        self.dtype = resolve_dtype(context.recipe.dtype, self.device)
        self.folder: Path = context.stage.root / name

    def run(
        self,
        train: Sequence[Row],
        held_out: Sequence[Row],
        config: RewardDataConfig,
        data: PreferenceData,
    ) -> dict[str, Any]:
        """Trains, exports and measures; returns what accuracy.json says of it."""
        if not is_reward_model(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)  # of a process killed while it wrote
            self._train(train)
            free_memory()
        loaded = load_reward_model(self.folder, dtype=self.dtype, device=self.device)
        report = {"held-out": self._measure(loaded, held_out)}
        read = read_pairs if self.loss == "pairwise" else read_labelled
        for source in config.measure_on:
            rows = read(data.path_of(source)).rows[: config.limit]
            report[source] = self._measure(loaded, rows)
        estimate = report["held-out"]["accuracy"]
        low, high = estimate["ci95"]
        self.context.progress.say(
            f"{self.name}: held-out accuracy {estimate['value']:.1%} [{low:.1%}, {high:.1%}], "
            f"{_baseline(report['held-out'])}"
        )
        return {"trained_on": len(train), "head_sha256": loaded.digest} | report

    def _train(self, rows: Sequence[Row]) -> None:
        context, settings = self.context, self.config.train
        base = self._base()
        model = RewardModel(base.model, seed=context.seed % 2**32)
        reader = RewardReader(get_template(self.template), base.tokenizer, self.sees)
        examples = [e for e in (_example(reader, row) for row in rows) if e is not None]
        if not examples:
            raise DataError(
                f"none of {len(rows)} examples shows the {self.name} model anything: responses "
                "need a summary behind their thinking"
            )
        folder = self._training_folder()
        metrics = MetricsLog(folder.metrics, context.progress)
        try:
            run = RewardRun(
                config=settings,
                seed=context.seed,
                examples=examples,
                updater=RewardUpdater(model, settings, self.loss),
                checkpoints=Checkpoints(
                    folder,
                    keep=settings.keep_checkpoints,
                    on_save=lambda step: context.note(
                        EventKind.CHECKPOINT_SAVED, step=step, model=self.name
                    ),
                    on_damage=self._damaged,
                ),
                metrics=metrics,
                should_stop=context.should_stop,
            )
            with context.progress.task(f"training {self.name}", run.num_steps, "steps") as tick:
                run.train(tick)
        finally:
            metrics.close()
        texts = [text for example in run.examples for text in example.texts][:CENTRE_TEXTS]
        rewards = score_texts(model, texts, tokens_per_pack=settings.tokens_per_pack)
        card = RewardCard(
            name=self.name,
            loss=self.loss,
            sees=self.sees,
            template=self.template,
            centre=fmean(rewards) if self.loss == "pairwise" else 0.0,
        )
        save_reward_model(model, base.tokenizer, card, self.folder)

    def _base(self) -> LoadedModel:
        loaded = self.context.open(self.config.start).loaded
        loaded.model.exact = False  # nothing is compared with a rollout
        return loaded

    def _training_folder(self) -> StageFolder:
        """Apart from the stage's outputs: whatever it holds is needed only until it is done."""
        folder = StageFolder(self.context.stage.checkpoints / self.name)
        folder.root.mkdir(parents=True, exist_ok=True)
        return folder

    def _damaged(self, line: str) -> None:
        self.context.note(EventKind.ARTEFACT_DAMAGED, artefact=line)
        self.context.progress.say(f"damaged, not used: {line}")

    def _measure(self, loaded: LoadedReward, rows: Sequence[Row]) -> dict[str, Any]:
        """Accuracy with intervals; what does not fit the model's context, or shows nothing, is
        counted. Raises DataError where nothing is left.
        """
        reader = RewardReader(get_template(loaded.card.template), loaded.tokenizer, self.sees)
        context = loaded.model.spec.max_context
        made = [(row, _example(reader, row)) for row in rows]
        shown = [(row, e) for row, e in made if e is not None]
        fitting = [(row, e) for row, e in shown if e.num_tokens <= context]
        if not fitting:
            raise DataError(
                f"none of {len(rows)} held-out examples fits the model's context of {context} "
                f"tokens: leave that file out of {self.name}.measure_on"
            )
        texts = [text for _, e in fitting for text in e.texts]
        capacity = self.config.train.tokens_per_pack
        rewards = score_texts(loaded.model, texts, tokens_per_pack=capacity)
        if self.loss == "pairwise":
            report = pair_report(_scored_pairs(fitting, rewards))
        else:
            report = label_report(_scored_responses(fitting, rewards))
        return report | {
            "nothing_visible": len(made) - len(shown),
            "overlong": len(shown) - len(fitting),
        }


def _example(reader: RewardReader, row: Row) -> RewardExample | None:
    return reader.pair(row) if isinstance(row, PreferencePair) else reader.labelled(row)


def _scored_pairs(
    made: Sequence[tuple[Row, RewardExample]], rewards: Sequence[float]
) -> list[ScoredPair]:
    scored = []
    for (row, example), chosen, rejected in zip(made, rewards[::2], rewards[1::2], strict=True):
        assert isinstance(example, PairExample), "pairs are measured as pairs"
        scored.append(
            ScoredPair(
                chosen=chosen,
                rejected=rejected,
                chosen_length=len(example.chosen.completion_ids),
                rejected_length=len(example.rejected.completion_ids),
                cluster=row.cluster,
                subset=row.subset,
            )
        )
    return scored


def _scored_responses(
    made: Sequence[tuple[Row, RewardExample]], rewards: Sequence[float]
) -> list[ScoredResponse]:
    scored = []
    for (row, example), reward in zip(made, rewards, strict=True):
        assert isinstance(example, LabelExample), "labels are measured as labels"
        scored.append(
            ScoredResponse(
                reward=reward,
                label=example.label,
                length=len(example.text.completion_ids),
                cluster=row.cluster,
                subset=row.subset,
            )
        )
    return scored


def _baseline(report: dict[str, Any]) -> str:
    """What needs no model, in words."""
    if "length_only" in report:
        return f"the longer answer alone {report['length_only']['value']:.1%}"
    return f"the commoner label alone {report['majority_only']:.1%}"


def _merge_metrics(context: StageContext, names: Sequence[str]) -> None:
    """The metrics of both trainings in the stage's file, groups named after their model; then what
    training kept for itself goes.
    """
    stage = context.stage
    folders = {name: StageFolder(stage.checkpoints / name) for name in names}
    if not all(folder.metrics.is_file() for folder in folders.values()):
        return  # a process before this one merged them
    stage.metrics.unlink(missing_ok=True)
    log = MetricsLog(stage.metrics)
    for name, folder in folders.items():
        for record in read_metrics(folder.metrics):
            log.write(
                MetricsRecord(step=record.step, name=f"{name}/{record.name}", values=record.values)
            )
    log.close()
    if not context.recipe.keep_checkpoints:
        for folder in folders.values():
            shutil.rmtree(folder.root)
