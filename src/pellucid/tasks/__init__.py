"""What is asked: prompt templates, and procedural tasks that need no download."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from pellucid.records import Problem

ProblemsFn = Callable[[str, int, int], list[Problem]]
"""(split, count, seed) -> problems, a prefix of any longer list. Splits share no structure."""


def _late(module: str) -> ProblemsFn:
    def problems(split: str, count: int, seed: int) -> list[Problem]:
        generate: ProblemsFn = import_module(module).problems
        return generate(split, count, seed)

    return problems


PROCEDURAL: dict[str, ProblemsFn] = {
    name: _late(f"pellucid.tasks.{name}") for name in ("chain", "arithmetic", "countdown")
}
