"""Cold start and rejection sampling: sample a model, keep what is worth it, fine-tune another.

    sampler ── Sampler ── filters ── select ── form ── teacher ── review ──┐
    general data ──────────────────────────────────────────────────────────┴─► examples.jsonl
    start ── SftRun on them ──► model/

Everything a step needs lies in the stage's folder: candidates.jsonl.zst, teacher.jsonl, review.md,
filters.json (where every sample went), examples.jsonl. The same command goes on behind whatever is
there. Left out: what is kept and why (`pellucid.curate`), how it is learnt (`sft_stage`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from pellucid.artifacts import atomic_write_json, sha256_file
from pellucid.config_stages import ColdStartConfig, RejectConfig
from pellucid.curate.candidate import Candidate, DropReason
from pellucid.curate.editors import open_editor
from pellucid.curate.example import CuratedExample, make_examples, read_examples, write_examples
from pellucid.curate.filters import FilterCounts, apply_filters
from pellucid.curate.general import load_general, most_general, read_source, to_example
from pellucid.curate.review import read_queue, write_queue
from pellucid.curate.select import select
from pellucid.curate.teacher import edit_all, regrade
from pellucid.curate.untagged import ToldApart, tell_apart
from pellucid.errors import RunError
from pellucid.pipeline.grading import open_grader
from pellucid.pipeline.sampling import Sampler, stage_problems
from pellucid.pipeline.screening import screened_mixture
from pellucid.pipeline.sft_stage import fine_tune
from pellucid.pipeline.stage import StageContext
from pellucid.protocols import Grader, StreamGrader
from pellucid.tasks.templates import get_template

CANDIDATES_NAME = "candidates.jsonl.zst"
EXAMPLES_NAME = "examples.jsonl"
FILTERS_NAME = "filters.json"
REVIEW_NAME = "review.md"
TEACHER_NAME = "teacher.jsonl"


class CuratedSft:
    """One such stage in its folder."""

    def __init__(self, context: StageContext, config: ColdStartConfig | RejectConfig) -> None:
        """Raises ConfigError on an unknown template, DataError where general data is missing or
        has a bad row: before anything is sampled.
        """
        self.context = context
        self.config = config
        self.source = get_template(
            config.sample_template or context.recipe.template_of(config.sampler)
        )
        self.target = get_template(config.template)
        self.root: Path = context.stage.root
        for source in config.general.sources if config.general else ():
            read_source(source, context.recipe.data_dir)

    def run(self) -> None:
        """All parts in order; what an earlier process finished is read."""
        examples = self._finished_examples()
        if examples is None:
            recipe = self.context.recipe
            with open_grader(recipe, math_verify=self.config.math_verify) as grader:
                examples = self.curate(self.sample(grader), grader)
        fine_tune(self.context, self.context.open(self.config.start), examples, self.config.sft)

    def sample(self, grader: StreamGrader) -> list[Candidate]:
        """All candidates; the model is loaded only where some are missing."""
        context, config = self.context, self.config
        mixture = screened_mixture(context, config.tasks)
        problems = stage_problems(mixture, config.problems)
        sampler = Sampler(
            self.root / CANDIDATES_NAME,
            config,
            self.source,
            seed=context.seed,
            should_stop=context.should_stop,
        )
        if missing := sampler.missing(problems):
            bench = context.open(config.sampler)
            total = len(missing) * config.samples
            with context.progress.task(f"sampling {config.sampler}", total, "samples") as tick:
                sampler.draw(missing, bench, grader, tick)
            bench.engine.release()
            del bench
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the model to train comes next
        return sampler.read()

    def curate(self, candidates: Sequence[Candidate], grader: Grader) -> list[CuratedExample]:
        """The set to learn, written to examples.jsonl; filters.json says where the rest went.

        Raises DataError where nothing is left, EndpointError, and RunError where a person is to
        review first.
        """
        config = self.config
        is_translated = config.teacher is not None and config.teacher.translate
        waiting = (DropReason.LANGUAGE,) if is_translated else ()
        told = ToldApart(list(candidates), frozenset())
        if config.split_untagged:
            told = tell_apart(candidates, self.source)
        kept, counts = apply_filters(told.candidates, config.filters, waiting=waiting)
        self._write_counts(counts)
        chosen = select(kept, config.select, keep=config.keep, seed=self.context.seed)
        counts.drop(DropReason.SELECTION, len(kept) - len(chosen))
        examples = self._in_form(chosen, told.rewritten, grader, counts)
        examples = self._taught(examples, grader, counts)
        examples, review = self._reviewed(examples, counts)
        sampled = len(examples)
        examples += self._general(sampled)
        digest = write_examples(self.root / EXAMPLES_NAME, examples)
        facts = {"sampled": sampled, "general": len(examples) - sampled, "review": review}
        facts["split_untagged"] = len(told.rewritten)
        self._write_counts(counts, facts | {"examples_sha256": digest})
        return examples

    def _in_form(
        self,
        chosen: Sequence[Candidate],
        rewritten: Collection[str],
        grader: Grader,
        counts: FilterCounts,
    ) -> list[CuratedExample]:
        """Examples as the target's template writes them; what changed must still be right."""
        made = make_examples(chosen, self.source, self.target, rewritten=rewritten)
        counts.drop(DropReason.FORMAT, made.num_formless)
        examples = made.examples
        if self.config.filters.correct and made.changed:
            names = {candidate.id for candidate in made.changed}
            right, num_wrong = regrade([e for e in examples if e.id in names], grader)
            counts.drop(DropReason.REWRITTEN, num_wrong)
            still = {example.id for example in right}
            examples = [e for e in examples if e.id not in names or e.id in still]
        self._check(counts)
        return examples

    def _taught(
        self, examples: list[CuratedExample], grader: Grader, counts: FilterCounts
    ) -> list[CuratedExample]:
        config, context = self.config, self.context
        if config.teacher is None:
            return examples
        record = self.root / TEACHER_NAME
        with open_editor(
            config.teacher, record, progress=context.progress, should_stop=context.should_stop
        ) as editor:
            examples = edit_all(
                examples, editor, config.teacher, config.filters, self.target, grader, counts
            )
        self._check(counts)
        return examples

    def _reviewed(
        self, examples: list[CuratedExample], counts: FilterCounts
    ) -> tuple[list[CuratedExample], dict[str, Any] | None]:
        """The examples after a person's decisions, and their number for the record."""
        rule, path = self.config.review, self.root / REVIEW_NAME
        if rule.mode == "none":
            return examples, None
        queue, rest = examples[: rule.limit], examples[rule.limit :]
        if not path.exists():
            write_queue(path, queue)
            if rule.mode == "wait":
                raise RunError(
                    f"{len(queue)} examples wait in {path}: review them, then run the same command"
                )
        kept, num_dropped, num_edited = read_queue(path, queue, self.target)
        counts.drop(DropReason.REVIEW, num_dropped)
        self._check(counts)
        facts = {"sha256": sha256_file(path), "dropped": num_dropped, "edited": num_edited}
        return [*kept, *rest], facts

    def _general(self, num_sampled: int) -> list[CuratedExample]:
        rule = self.config.general
        if rule is None:
            return []
        rows = load_general(
            rule.sources,
            most_general(num_sampled, rule.share),
            seed=self.context.seed,
            data_dir=self.context.recipe.data_dir,
        )
        return [to_example(row, self.target) for row in rows]

    def _check(self, counts: FilterCounts) -> None:
        """The counts are on disk before their emptiness ends the stage."""
        self._write_counts(counts)
        counts.check_not_empty(self.config.name)

    def _write_counts(self, counts: FilterCounts, facts: dict[str, Any] | None = None) -> None:
        atomic_write_json(self.root / FILTERS_NAME, counts.to_dict() | (facts or {}))

    def _finished_examples(self) -> list[CuratedExample] | None:
        """What an earlier process curated, unless the review was edited since."""
        examples, filters = self.root / EXAMPLES_NAME, self.root / FILTERS_NAME
        review = self.root / REVIEW_NAME
        if not (examples.is_file() and filters.is_file()):
            return None
        facts = json.loads(filters.read_text())
        read = (facts.get("review") or {}).get("sha256")
        if read != (sha256_file(review) if review.is_file() else None):
            return None
        if facts.get("examples_sha256") != sha256_file(examples):
            return None
        return read_examples(examples)
