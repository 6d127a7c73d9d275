"""From problems to rollouts with advantages: sample, grade, reward, compare within the group.

    problems ── template ── Engine.generate ── scores, terms of the text ── group advantages
                               │ a group ends    ▲ waits for the last ones
                               └── StreamGrader, ┘ a thread: work while the engine goes on

Which problems belong to a step, and every random choice, is a function of (seed, step) alone:
there is no cursor to save, and a run continued after a kill sees what the uninterrupted run would
have seen.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.algo.advantages import ADVANTAGES
from pellucid.config import RunConfig
from pellucid.data.mixture import Mixture
from pellucid.protocols import (
    Engine,
    ProgressFn,
    ResponseScorer,
    StreamGrader,
    Tokenizer,
)
from pellucid.records import (
    Completion,
    Problem,
    Request,
    Rollout,
    SamplingParams,
    Score,
    StopReason,
    sample_id,
)
from pellucid.rewards.streamed import StreamedGrades
from pellucid.rewards.terms import RewardTable, settle
from pellucid.tasks.templates import Template
from pellucid.train.packing import TrainSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The groups of one step, problem by problem, and their advantages."""

    groups: list[list[Rollout]]
    """P groups of G rollouts."""
    advantages: Tensor
    """[P, G] float32 on the CPU; 0 where masked."""
    num_resampled: int = 0
    """Groups replaced by dynamic sampling."""
    grading_wait_s: float = 0.0
    """What grading and the terms of the text took after the last sample had ended."""

    def sequences(self) -> list[TrainSequence]:
        """What the trainer takes: every unmasked rollout that has a token."""
        return [
            TrainSequence(
                prompt_ids=r.prompt_ids,
                completion_ids=r.completion.token_ids,
                rollout_logprobs=r.completion.logprobs,
                advantage=float(self.advantages[p, g]),
            )
            for p, group in enumerate(self.groups)
            for g, r in enumerate(group)
            if not r.masked and r.completion.token_ids
        ]


class Collector:
    """Collects the batch of a step with the engine, the grader and the reward table of a run."""

    def __init__(
        self,
        config: RunConfig,
        problems: Sequence[Problem] | Mixture,
        template: Template,
        engine: Engine,
        tokenizer: Tokenizer,
        grader: StreamGrader,
        advantage: str,
        scorers: Mapping[str, ResponseScorer] | None = None,
    ) -> None:
        """`scorers`: reward models by the name of their term. Raises ConfigError where one is
        missing, or where no term applies to some of the problems.
        """
        self.config = config
        self.mixture = (
            problems if isinstance(problems, Mixture) else Mixture.single(problems, config.seed)
        )
        self.template = template
        self.engine = engine
        self.tokenizer = tokenizer
        self.grader = grader
        self.advantage = ADVANTAGES[advantage]
        self.rewards = RewardTable(config.reward, steps=config.train.steps, scorers=scorers)
        self.rewards.check_kinds(p.kind for p in self.mixture.problems)
        self._grading_wait_s = 0.0
        rollout = config.rollout
        self.params = SamplingParams(
            temperature=rollout.temperature,
            max_new_tokens=rollout.max_new_tokens,
            stop=rollout.stop or template.stop,
        )

    def collect(self, step: int, progress: ProgressFn | None = None) -> Batch:
        """Groups of a step; with dynamic sampling, groups without advantage are drawn again."""
        size = self.config.rollout.prompts
        first = (step - 1) * size
        problems = self.mixture.window(first, size)
        self._grading_wait_s = 0.0
        groups = self._groups(problems, step, f"{step}", progress)
        resampled = 0
        for attempt in range(1, self.config.rollout.resample_limit + 1):
            flat = [i for i, g in enumerate(groups) if not _has_spread(g)]
            if not flat:
                break
            draw = random.Random(f"resample/{self.config.seed}/{step}/{attempt}")
            fresh = [self.mixture.another(first + i, draw) for i in flat]
            for index, group in zip(
                flat, self._groups(fresh, step, f"{step}.{attempt}", progress), strict=True
            ):
                groups[index] = group
            resampled += len(flat)
        return Batch(
            groups=groups,
            advantages=self._advantages(groups),
            num_resampled=resampled,
            grading_wait_s=self._grading_wait_s,
        )

    def _groups(
        self, problems: Sequence[Problem], step: int, when: str, progress: ProgressFn | None
    ) -> list[list[Rollout]]:
        size = self.config.rollout.group_size
        requests = [
            Request(
                prompt_ids=self.template.prompt_ids(p.question, self.tokenizer, grader=p.grader),
                sample_ids=tuple(sample_id("train", when, slot, p.id, k) for k in range(size)),
            )
            for slot, p in enumerate(problems)
        ]
        grades = StreamedGrades(self.grader, problems, self.template.response)
        texts: dict[int, Future[list[dict[str, float]]]] = {}
        with ThreadPoolExecutor(1, thread_name_prefix="terms") as thread:

            def grade(index: int, group: list[Completion]) -> None:
                grades.begin(index, group)
                responses = [self.template.response(c.text) for c in group]
                asked, ids = [problems[index]] * len(group), requests[index].sample_ids
                texts[index] = thread.submit(self.rewards.text_terms, step, asked, responses, ids)

            completions = self.engine.generate(
                requests, self.params, seed=self.config.seed, progress=progress, on_group=grade
            )
            ended = time.perf_counter()
            scores = grades.result()
            known = [terms for index in range(len(requests)) for terms in texts[index].result()]
        self._grading_wait_s += time.perf_counter() - ended
        repeated = [p for p in problems for _ in range(size)]
        responses = [self.template.response(c.text) for group in completions for c in group]
        ids = [i for request in requests for i in request.sample_ids]
        terms = self.rewards.terms(step, repeated, responses, scores, ids, known)
        rated = iter(zip(scores, terms, strict=True))
        return [
            [
                self._rollout(problem, request.prompt_ids, completion, *next(rated))
                for completion in group
            ]
            for problem, request, group in zip(problems, requests, completions, strict=True)
        ]

    def _rollout(
        self,
        problem: Problem,
        prompt_ids: tuple[int, ...],
        completion: Completion,
        score: Score,
        terms: Mapping[str, float],
    ) -> Rollout:
        rule = self.config.reward
        outcome = settle(
            self.rewards.reward(terms),
            score,
            is_truncated=completion.stop is StopReason.LENGTH,
            rule=rule.truncated,
            num_tokens=len(completion.token_ids),
            max_tokens=self.params.max_new_tokens,
            overlong_buffer=rule.overlong_buffer,
        )
        return Rollout(
            problem=problem,
            prompt_ids=prompt_ids,
            completion=completion,
            score=score,
            terms=terms,
            reward=outcome.reward,
            masked=outcome.masked,
        )

    def _advantages(self, groups: Sequence[Sequence[Rollout]]) -> Tensor:
        rewards = torch.tensor([[r.reward for r in g] for g in groups])
        valid = torch.tensor([[not r.masked for r in g] for g in groups])
        return self.advantage(rewards, valid)


def _has_spread(group: Sequence[Rollout]) -> bool:
    return len({r.reward for r in group if not r.masked}) > 1
