"""Samples of a model on some problems, ungraded: for those who ask no reward for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pellucid.config import RolloutConfig
from pellucid.protocols import Engine, GroupFn, ProgressFn, Tokenizer
from pellucid.records import Completion, Problem, Request, SamplingParams
from pellucid.tasks.templates import Template

IdFn = Callable[[int, Problem, int], int]
"""Place of the problem, problem, number of the sample -> sample id."""


class Group(NamedTuple):
    """One problem's samples."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    completions: list[Completion]

    @property
    def num_fed(self) -> int:
        """Tokens of the prompt, and of all samples."""
        return len(self.prompt_ids) + sum(len(c.token_ids) for c in self.completions)


def draw_groups(
    engine: Engine,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    *,
    template: Template,
    config: RolloutConfig,
    make_id: IdFn,
    seed: int,
    progress: ProgressFn | None = None,
    on_group: GroupFn | None = None,
) -> list[Group]:
    """`config.group_size` samples of each problem, in order. `on_group` and what is raised: as of
    `Engine.generate`.
    """
    requests = [
        Request(
            prompt_ids=template.prompt_ids(problem.question, tokenizer, grader=problem.grader),
            sample_ids=tuple(make_id(place, problem, k) for k in range(config.group_size)),
        )
        for place, problem in enumerate(problems)
    ]
    params = SamplingParams(
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        stop=config.stop or template.stop,
    )
    groups = engine.generate(requests, params, seed=seed, progress=progress, on_group=on_group)
    made = zip(problems, requests, groups, strict=True)
    return [Group(problem, request.prompt_ids, group) for problem, request, group in made]
