"""Iterative fine-tuning: rounds in which the student learns what it got right by itself (STaR,
2203.14465; rejection fine-tuning, 2308.01825), as the referees of the paper asked for.

    problems ── student samples ── grader ── filters ──► right ones ── SftRun ──► the next student

A round goes on from the weights of the round before. Its samples, metrics and result lie in
`round-N/`; a killed arm goes on behind the last whole chunk of samples or the last checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pellucid.artifacts import StageFolder, atomic_write_json, writing
from pellucid.config import ModelConfig
from pellucid.curate.candidate import Candidate, make_candidate
from pellucid.curate.filters import apply_filters
from pellucid.data.mixture import Mixture
from pellucid.errors import Interrupted
from pellucid.jsonl import ZstdJsonlWriter, read_zstd_jsonl
from pellucid.model.export import export_model
from pellucid.pipeline.curated_sft import CANDIDATES_NAME, FILTERS_NAME
from pellucid.pipeline.distill.setting import ArmResult, Setting, gradable, recorded_seconds
from pellucid.pipeline.distill.steps import steps_within
from pellucid.pipeline.grading import open_grader
from pellucid.pipeline.sft_stage import learn
from pellucid.pipeline.workbench import Workbench, free_memory
from pellucid.protocols import StreamGrader
from pellucid.records import Completion, Problem, sample_id
from pellucid.rewards.streamed import StreamedGrades
from pellucid.runlog import MetricsLog, MetricsRecord
from pellucid.train.compute import TRAINED, Compute
from pellucid.train.draw import draw_groups
from pellucid.train.sft_data import ExampleMaker, SftExample

SAMPLING_NAME = "sampling.jsonl"
"""Of a round: what each chunk of samples was like."""
NOTHING_RIGHT = "nothing right to learn"


def run_iterative(setting: Setting, folder: StageFolder) -> ArmResult:
    """All rounds. Raises UserError, NumericsError, or Interrupted with all saved."""
    return IterativeArm(setting, folder).run()


class IterativeArm:
    """The rounds in one folder."""

    def __init__(self, setting: Setting, folder: StageFolder) -> None:
        self.setting = setting
        self.folder = folder
        self.config = setting.config
        self.mixture: Mixture = gradable(setting.mixture, setting.config.name)
        self.num_chunks = 0
        """Of all rounds so far: where in the mixture the next one starts."""

    def run(self) -> ArmResult:
        """Leaves the last round's model in the arm's `model/`."""
        model, compute, steps, seconds = self.setting.start, Compute(), 0, 0.0
        for number in range(1, self.config.iterative.rounds + 1):
            place = self._place(number)
            done = ArmResult.read(place)
            if done is None:
                done = self._round(number, place, model, compute)
                done.write(place)
            if not self.setting.context.recipe.keep_checkpoints:
                place.prune_checkpoints(0)
            self.num_chunks += len(_read(place)) // self.chunk_samples
            compute, steps, seconds = (
                compute + done.compute,
                steps + done.steps,
                seconds + done.seconds,
            )
            if place.model.is_dir():
                model = ModelConfig(id=f"round-{number}", path=str(place.model))
        self._finish(model)
        is_spent = self.setting.budget.share(compute) >= 1.0
        stopped = "budget" if is_spent else NOTHING_RIGHT
        return ArmResult(compute=compute, steps=steps, seconds=seconds, stopped=stopped)

    @property
    def chunk_prompts(self) -> int:
        return self.config.iterative.prompts or self.config.rollout.prompts

    @property
    def chunk_samples(self) -> int:
        return self.chunk_prompts * self.config.rollout.group_size

    def _place(self, number: int) -> StageFolder:
        place = StageFolder(self.folder.root / f"round-{number}")
        with writing(place.root):
            place.root.mkdir(exist_ok=True)
        return place

    def _round(
        self, number: int, place: StageFolder, model: ModelConfig, spent: Compute
    ) -> ArmResult:
        """One round; it leaves a model unless the student got nothing right."""
        setting, config = self.setting, self.config
        goal = setting.budget.units * number // config.iterative.rounds
        bench = setting.open(model)
        for_sampling = config.iterative.sampling_share * (goal - spent.units)
        candidates = self._sample(number, place, bench, for_sampling)
        kept, counts = apply_filters(candidates, config.iterative.filters)
        atomic_write_json(place.root / FILTERS_NAME, counts.to_dict())
        compute = Compute(generated=self._num_fed(candidates, bench))
        examples = self._examples(kept, bench)
        seed = setting.seed(f"iterative-sft/{number}")
        left = goal - spent.units - compute.units
        tokens = -(-left // TRAINED) if examples else 0
        steps = steps_within(examples, config.sft, seed=seed, tokens=tokens)
        setting.context.progress.say(
            f"round {number}: {len(examples)} of {len(candidates)} samples to learn from, "
            f"{steps.number} steps"
        )
        if steps.number:
            learn(
                setting.context,
                bench,
                examples,
                config.sft,
                folder=place,
                seed=seed,
                steps=steps.number,
            )
        del bench
        free_memory()
        return ArmResult(
            compute=compute + Compute(trained=steps.tokens),
            steps=steps.number,
            seconds=recorded_seconds(place.metrics) + recorded_seconds(place.root / SAMPLING_NAME),
            stopped="budget" if examples else NOTHING_RIGHT,
        )

    # Samples

    def _sample(
        self, number: int, place: StageFolder, bench: Workbench, allowance: float
    ) -> list[Candidate]:
        """Chunks of samples until they cost `allowance`; those that are there are not drawn again.

        Raises Interrupted where `should_stop`; the chunk under way is drawn anew then.
        """
        context = self.setting.context
        candidates = _read(place)
        metrics = MetricsLog(place.root / SAMPLING_NAME)
        label = f"round {number}: sampling"
        pool = open_grader(context.recipe, math_verify=self.config.math_verify)
        try:
            with (
                pool as grader,
                ZstdJsonlWriter(place.root / CANDIDATES_NAME) as writer,
                context.progress.task(label, int(allowance), "tokens read") as tick,
            ):
                while (cost := self._num_fed(candidates, bench)) < allowance:
                    tick(cost)
                    chunk = len(candidates) // self.chunk_samples
                    fresh, facts = self._chunk(number, chunk, bench, grader)
                    writer.append_all(candidate.to_dict() for candidate in fresh)
                    candidates += fresh
                    for name, values in facts.items():
                        metrics.write(MetricsRecord(step=chunk + 1, name=name, values=values))
        finally:
            metrics.close()
        bench.engine.release()
        return candidates

    def _chunk(
        self, number: int, chunk: int, bench: Workbench, grader: StreamGrader
    ) -> tuple[list[Candidate], dict[str, dict[str, float]]]:
        """The next problems of the mixture, sampled and graded; and what they were like."""
        started = time.perf_counter()
        config, template = self.config.rollout, self.setting.template

        def make_id(place: int, problem: Problem, k: int) -> int:
            return sample_id("iterative", number, chunk, place, problem.id, k)

        def stop(done: int, total: int) -> None:
            if self.setting.context.should_stop():
                raise Interrupted(f"after {chunk * self.chunk_samples} samples of round {number}")

        first = (self.num_chunks + chunk) * self.chunk_prompts
        problems = self.mixture.window(first, self.chunk_prompts)
        grades = StreamedGrades(grader, problems, template.response)
        groups = draw_groups(
            bench.engine,
            bench.loaded.tokenizer,
            problems,
            template=template,
            config=config,
            make_id=make_id,
            seed=self.setting.seed("iterative-sft"),
            progress=stop,
            on_group=grades.begin,
        )
        asked = [
            (group.problem, k, completion, template.response(completion.text))
            for group in groups
            for k, completion in enumerate(group.completions)
        ]
        scores = grades.result()
        made = [make_candidate(*a, score) for a, score in zip(asked, scores, strict=True)]
        facts = {
            "rollout": {
                "accuracy": fmean(score.is_correct for score in scores),
                "length_mean": fmean(len(a[2].token_ids) for a in asked),
            },
            "timing": {"step_s": time.perf_counter() - started},
        }
        return made, facts

    def _num_fed(self, candidates: Sequence[Candidate], bench: Workbench) -> int:
        """Tokens that sampling fed: each prompt once for its group, and all that was sampled."""
        template, tokenizer = self.setting.template, bench.loaded.tokenizer
        asked = [c.problem for c in candidates[:: self.config.rollout.group_size]]
        prompts = (template.prompt_ids(p.question, tokenizer, grader=p.grader) for p in asked)
        return sum(map(len, prompts)) + sum(len(c.token_ids) for c in candidates)

    def _examples(self, kept: Sequence[Candidate], bench: Workbench) -> list[SftExample]:
        """The right samples, token for token; those that fine-tuning takes."""
        maker = ExampleMaker(self.setting.template, bench.loaded.tokenizer)
        examples = [
            maker.from_completion(
                candidate.problem.question,
                Completion(
                    sample_id=0,
                    token_ids=candidate.token_ids,
                    logprobs=(0.0,) * len(candidate.token_ids),
                    stop=candidate.stop,
                    text=candidate.response,
                ),
                grader=candidate.problem.grader,
                where=candidate.id,
            )
            for candidate in kept
        ]
        return [e for e in examples if e.num_tokens <= self.setting.max_tokens]

    def _finish(self, model: ModelConfig) -> None:
        """The last round's model becomes the arm's; a student that learnt nothing stays as it
        was. Once `model/` is there, it is that of the last round.
        """
        if not self.folder.model.is_dir():
            if model == self.setting.start:
                loaded = self.setting.open(model).loaded
                export_model(loaded.model, loaded.tokenizer, self.folder.model)
            else:
                with writing(self.folder.model):
                    Path(str(model.path)).rename(self.folder.model)
        for number in range(1, self.config.iterative.rounds + 1):
            shutil.rmtree(self._place(number).model, ignore_errors=True)


def _read(place: StageFolder) -> list[Candidate]:
    """Samples of a round so far. Raises RunError where their file is damaged."""
    path = place.root / CANDIDATES_NAME
    if not path.exists():
        return []
    return [Candidate.from_dict(record) for record in read_zstd_jsonl(path)]
