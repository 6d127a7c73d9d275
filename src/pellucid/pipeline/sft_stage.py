"""Fine-tunes a model on curated examples in a stage's folder, and exports it.

Serves the cold start, rejection sampling and a student alike; a killed process goes on from the
last checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import NamedTuple

from pellucid.artifacts import StageFolder
from pellucid.config import SftConfig
from pellucid.curate.example import CuratedExample
from pellucid.ledger import EventKind
from pellucid.model.export import export_model
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.workbench import Workbench
from pellucid.protocols import Tokenizer
from pellucid.records import Completion, StopReason
from pellucid.runlog import MetricsLog
from pellucid.tasks.templates import Template, get_template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.sft import SftRun, SftUpdater
from pellucid.train.sft_data import ExampleMaker, SftExample


class Tokenized(NamedTuple):
    """Examples as a model learns them."""

    examples: list[SftExample]
    num_as_sampled: int
    """Their completion is the sampled tokens; that of the others is encoded text."""


def tokenize(
    examples: Sequence[CuratedExample], template: Template, tokenizer: Tokenizer
) -> Tokenized:
    """Prompts as in a rollout; sampled tokens as they were sampled, where this tokenizer has them.

    Raises DataError naming an example that cannot be learnt.
    """
    maker = ExampleMaker(template, tokenizer)
    made, num_as_sampled = [], 0
    for example in examples:
        sampled = _sampled(example, template, tokenizer)
        prompt, grader, where = example.prompt, example.grader, example.id
        if sampled is None:
            made.append(maker.from_text(prompt, example.response, grader=grader, where=where))
        else:
            made.append(maker.from_completion(prompt, sampled, grader=grader, where=where))
            num_as_sampled += 1
    return Tokenized(made, num_as_sampled)


def _sampled(
    example: CuratedExample, template: Template, tokenizer: Tokenizer
) -> Completion | None:
    """The sampled tokens, where they still spell the response: a stop string may have ended inside
    of a token, and a student has other tokens.
    """
    ids = example.token_ids
    if ids is None or template.prefill + tokenizer.decode(ids) != example.response:
        return None
    return Completion(
        sample_id=0,
        token_ids=ids,
        logprobs=(0.0,) * len(ids),
        stop=StopReason.EOS,
        text=example.response,
    )


def fine_tune(
    context: StageContext, bench: Workbench, examples: Sequence[CuratedExample], config: SftConfig
) -> None:
    """Trains the model on the bench on all examples, and leaves it in the stage's `model/`.

    Raises DataError where none fits, Interrupted after saving, NumericsError; see `SftRun`.
    """
    template = get_template(examples[0].template)
    tokenized = tokenize(examples, template, bench.loaded.tokenizer)
    context.progress.say(
        f"{context.config.name}: {len(examples)} examples to learn from, "
        f"{tokenized.num_as_sampled} of them token for token as sampled"
    )
    learn(context, bench, tokenized.examples, config, folder=context.stage, seed=context.seed)


def learn(
    context: StageContext,
    bench: Workbench,
    examples: Sequence[SftExample],
    config: SftConfig,
    *,
    folder: StageFolder,
    seed: int,
    steps: int | None = None,
) -> None:
    """`fine_tune` with metrics, checkpoints and `model/` in any folder, and for so many steps."""
    loaded = bench.loaded
    loaded.model.exact = False  # nothing is compared with a rollout
    metrics = MetricsLog(folder.metrics, context.progress)
    try:
        run = SftRun(
            config=config,
            seed=seed,
            examples=examples,
            updater=SftUpdater(loaded.model, config),
            checkpoints=stage_checkpoints(context, folder, keep=config.keep_checkpoints),
            metrics=metrics,
            should_stop=context.should_stop,
            steps=steps,
        )
        with context.progress.task("fine-tuning", run.num_steps, "steps") as tick:
            run.train(tick)
    finally:
        metrics.close()
    shutil.rmtree(folder.model, ignore_errors=True)  # of a process killed while it finished
    export_model(loaded.model, loaded.tokenizer, folder.model)


def stage_checkpoints(context: StageContext, folder: StageFolder, *, keep: int) -> Checkpoints:
    """Checkpoints in a folder that the stage's diary tells of."""

    def damaged(line: str) -> None:
        context.note(EventKind.ARTEFACT_DAMAGED, artefact=line)
        context.progress.say(f"damaged, not used: {line}")

    return Checkpoints(
        folder,
        keep=keep,
        on_save=lambda step: context.note(EventKind.CHECKPOINT_SAVED, step=step),
        on_damage=damaged,
    )
