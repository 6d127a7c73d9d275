"""The kinds of stages: a module each, with `run(context, config)`, imported when it is needed.

`run` leaves everything in `context.stage`, continues what a killed process left there, and returns
when the stage is finished; the runner then digests the files and writes the manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from pellucid.config_stages import AnyStage
from pellucid.pipeline.stage import StageContext

RunStage = Callable[[StageContext, AnyStage], None]

MODULES: dict[str, str] = {
    "zero": "reinforce",
    "cold-start": "cold_start",
    "reason-rl": "reinforce",
    "reject": "reject",
    "reward-models": "reward_models",
    "general-rl": "general_rl",
    "distill": "distill",
}
"""Kind -> module of this package."""


def find_stage(kind: str) -> RunStage:
    """What runs stages of a kind."""
    run: RunStage = import_module(f"{__name__}.{MODULES[kind]}").run
    return run
