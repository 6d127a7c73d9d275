"""Samples of a model on a stage's problems, graded and kept chunk by chunk.

    problems ── Engine.generate ── grader, meanwhile ──► candidates.jsonl.zst (a frame a chunk)

A sample is a function of (weights, stage, problem, number), so a killed stage goes on behind its
last whole chunk with the samples that it would have drawn anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pellucid.config_stages import CurateStageConfig
from pellucid.curate.candidate import Candidate, make_candidate
from pellucid.data.mixture import Mixture
from pellucid.errors import Interrupted, RunError
from pellucid.jsonl import ZstdJsonlWriter, read_zstd_jsonl
from pellucid.pipeline.workbench import Workbench
from pellucid.protocols import ProgressFn, StreamGrader
from pellucid.records import Problem, Request, SamplingParams, sample_id
from pellucid.rewards.streamed import StreamedGrades
from pellucid.tasks.templates import Template

CHUNK_SAMPLES = 2048
"""Samples lost at most where a stage is killed; fewer would leave a GPU idle between chunks."""


def stage_problems(mixture: Mixture, count: int) -> list[Problem]:
    """The first `count` positions of a mixture, each problem once."""
    return list({problem.id: problem for problem in mixture.window(0, count)}.values())


class Sampler:
    """The candidates of one stage in one file."""

    def __init__(
        self,
        path: Path,
        config: CurateStageConfig,
        template: Template,
        *,
        seed: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self.path = path
        self.config = config
        self.template = template
        self.seed = seed
        self.should_stop = should_stop

    def read(self) -> list[Candidate]:
        """What the file holds. Raises RunError where it is damaged."""
        if not self.path.exists():
            return []
        return [Candidate.from_dict(record) for record in read_zstd_jsonl(self.path)]

    def missing(self, problems: Sequence[Problem]) -> list[Problem]:
        """Problems that have no candidates yet. Raises RunError where there are others' ones."""
        there = {candidate.problem.id for candidate in self.read()}
        if strangers := sorted(there - {problem.id for problem in problems}):
            raise RunError(
                f"{self.path} holds samples of {strangers[0]}, which this stage does not ask: move "
                "the file away, then run the same command"
            )
        return [problem for problem in problems if problem.id not in there]

    def draw(
        self,
        problems: Sequence[Problem],
        bench: Workbench,
        grader: StreamGrader,
        progress: ProgressFn,
    ) -> None:
        """Samples the problems and appends what it makes of each chunk.

        Raises Interrupted where `should_stop`; the chunk under way is drawn anew then.
        """
        size, done = self.config.samples, 0
        with ZstdJsonlWriter(self.path) as writer:
            for chunk in _chunks(problems, max(1, CHUNK_SAMPLES // size)):
                watch = self._stoppable(progress, done, len(problems) * size)
                candidates = self._draw(chunk, bench, grader, watch)
                writer.append_all(candidate.to_dict() for candidate in candidates)
                done += len(candidates)

    def _draw(
        self,
        problems: Sequence[Problem],
        bench: Workbench,
        grader: StreamGrader,
        progress: ProgressFn,
    ) -> list[Candidate]:
        config, template = self.config, self.template
        tokenizer = bench.loaded.tokenizer
        requests = [
            Request(
                prompt_ids=template.prompt_ids(problem.question, tokenizer, grader=problem.grader),
                sample_ids=tuple(
                    sample_id("curate", config.name, problem.id, k) for k in range(config.samples)
                ),
            )
            for problem in problems
        ]
        params = SamplingParams(
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
            stop=template.stop,
        )
        grades = StreamedGrades(grader, problems, template.response)
        groups = bench.engine.generate(
            requests, params, seed=self.seed, progress=progress, on_group=grades.begin
        )
        asked = [
            (problem, k, completion, template.response(completion.text))
            for problem, group in zip(problems, groups, strict=True)
            for k, completion in enumerate(group)
        ]
        graded = zip(asked, grades.result(), strict=True)
        return [make_candidate(*a, score) for a, score in graded]

    def _stoppable(self, tick: ProgressFn, before: int, total: int) -> ProgressFn:
        def advance(done: int, _: int) -> None:
            if self.should_stop():
                raise Interrupted(f"after {before} of {total} samples")
            tick(before + done, total)

        return advance


def _chunks(problems: Sequence[Problem], size: int) -> Iterator[Sequence[Problem]]:
    for start in range(0, len(problems), size):
        yield problems[start : start + size]
