"""Suites of a recipe, made ready to run: problems loaded, names unique, defaults filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pellucid.config import EvalConfig, SuiteConfig
from pellucid.errors import ConfigError
from pellucid.records import Problem, SamplingParams

LoadProblems = Callable[[str, str, int | None], Sequence[Problem]]
"""Called with (data set or task, split, limit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite that can be run. Example: key="gsm8k-chat-boxed", label="gsm8k (chat-boxed)"."""

    key: str
    """Unique in the recipe, safe in a file name: evals/<arm>-<key>.json; part of the sample ids."""
    label: str
    """Name in tables."""
    problems: tuple[Problem, ...]
    template: str
    params: SamplingParams
    k: int
    pass_at: tuple[int, ...]
    baseline_only: bool
    """True: measured on the base model alone."""
    variant: str = ""
    """The template, where the suite names another than the recipe's; else empty."""

    def arm(self, model: str) -> str:
        """Name of a model's arm in ledger and dossier: one model under two prompts is two arms."""
        return f"{model}-{self.variant}" if self.variant else model


def make_suite(
    config: SuiteConfig, evaluation: EvalConfig, *, default_template: str, load: LoadProblems
) -> Suite:
    """A suite of the recipe with its problems. `load` comes from the pipeline."""
    template = config.template or default_template
    differs = "" if template == default_template else template
    label = config.label or (f"{config.name} ({differs})" if differs else config.name)
    return Suite(
        key=slug(label),
        label=label,
        problems=tuple(load(config.name, config.split, config.limit)),
        template=template,
        params=SamplingParams(
            temperature=evaluation.temperature,
            top_p=evaluation.top_p,
            top_k=evaluation.top_k,
            max_new_tokens=config.max_new_tokens or evaluation.max_new_tokens,
        ),
        k=config.k,
        pass_at=config.pass_at,
        baseline_only=config.baseline_only,
        variant=differs,
    )


def make_suites(
    evaluation: EvalConfig, *, default_template: str, load: LoadProblems
) -> tuple[Suite, ...]:
    """All suites of a recipe, the headline first. ConfigError where two would share their files."""
    suites = tuple(
        make_suite(config, evaluation, default_template=default_template, load=load)
        for config in evaluation.suites
    )
    keys = [suite.key for suite in suites]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"two suites are called {key!r}: give one of them another eval.suites label"
            )
    return suites


def slug(label: str, empty: str = "suite") -> str:
    """Lower case, digits, dots and hyphens only; `empty` where nothing is left."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.") or empty
