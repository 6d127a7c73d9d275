"""Which problems the watch of general-rl asks again and again: known before the stage starts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from pellucid.config_stages import GeneralRlConfig, PipelineConfig
from pellucid.data.load import load_problems
from pellucid.data.mixture import load_mixture
from pellucid.errors import ConfigError
from pellucid.pipeline.measure import SUITE_SEED
from pellucid.pipeline.stage import stage_seed
from pellucid.records import Problem
from pellucid.rewards.table import OPEN

MODEL_TERMS = ("helpful", "safety")
"""Reward terms that reward models serve, and kinds of the problems that they score."""


class ProbeProblems(NamedTuple):
    """What a probe asks."""

    graded: list[Problem]
    """With a right answer."""
    scored: list[Problem]
    """General ones, for the reward models; at least one of each kind that there is."""


def watched_terms(config: GeneralRlConfig) -> tuple[str, ...]:
    """Terms whose reward models are watched; none where there is no watch, or no such model."""
    if config.rewards_from is None or not config.watch.every:
        return ()
    return tuple(term for term in MODEL_TERMS if term in config.reward.terms)


def probe_problems(
    recipe: PipelineConfig, config: GeneralRlConfig, trained_on: Sequence[Problem]
) -> ProbeProblems:
    """With a gold: of `watch.tasks`, else of the first suite, never those trained on. General ones:
    of the same, and where it has none of a kind, of the training.

    Raises ConfigError where there is nothing to compare, DataError where data is missing.
    """
    options, kinds = config.watch, watched_terms(config)
    if options.tasks:
        seed = stage_seed(recipe.seed, config.name)
        found = load_mixture(options.tasks, seed=seed, data_dir=recipe.data_dir).problems
    else:
        suite = recipe.eval.suites[0]
        found = load_problems(
            suite.name, suite.split, limit=suite.limit, data_dir=recipe.data_dir, seed=SUITE_SEED
        )
    graded = [p for p in found if p.grader != OPEN]
    by_kind = [_of_kind(kind, found) or _of_kind(kind, trained_on) for kind in kinds]
    # Kinds in turn: a limit must not leave one of the reward models unwatched.
    scored = [p for turn in zip_longest(*by_kind) for p in turn if p is not None]
    if not graded or not scored:
        missing = "with a right answer" if scored else "that a reward model scores"
        raise ConfigError(
            f"stages.{config.name}.watch has no problems {missing}: name some in "
            "watch.tasks, or set watch.every = 0"
        )
    num_kinds = sum(bool(problems) for problems in by_kind)
    return ProbeProblems(graded[: options.limit], scored[: max(options.limit, num_kinds)])


def _of_kind(kind: str, problems: Sequence[Problem]) -> list[Problem]:
    return [p for p in problems if p.kind == kind]
