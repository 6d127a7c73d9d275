"""A command for each kind of stage of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from pellucid.cli.run import (
    AcceptCode,
    DryRun,
    Json,
    Options,
    Out,
    Overrides,
    RecipeName,
    Unsafe,
    launch,
    with_unsafe,
)
from pellucid.config_io import load_recipe
from pellucid.config_stages import KINDS, PipelineConfig
from pellucid.errors import ConfigError

HELP = {
    "zero": "R1-Zero: reinforcement learning from the base.",
    "cold-start": "Sample a model, keep what is right and readable, fine-tune the base on it.",
    "reason-rl": "Reinforcement learning on reasoning, with a reward for one language.",
    "reject": "Rejection sampling, general data beside it, and a base fine-tuned on both.",
    "reward-models": "Train a helpful and a safety reward model.",
    "general-rl": "Reinforcement learning on reasoning and general prompts with reward models.",
    "distill": "Teach a smaller student the curated data, beside other ways of equal cost.",
}
_ALONE = "This stage of a recipe alone; what it builds on must be finished in the run folder."


def add_commands(app: typer.Typer) -> None:
    """One per kind, named as in recipes."""
    for kind in KINDS:
        app.command(kind, help=f"{HELP[kind]}\n\n{_ALONE}")(_command(kind))


def _command(kind: str) -> Callable[..., None]:
    def run_stage(
        recipe: RecipeName,
        overrides: Overrides = None,
        out: Out = None,
        stage: Annotated[
            str | None, typer.Option(help="Name of one stage; default: all of this kind.")
        ] = None,
        dry_run: DryRun = False,
        accept_code: AcceptCode = False,
        unsafe: Unsafe = False,
        json: Json = False,
    ) -> None:
        config, set_by_hand = load_recipe(recipe, with_unsafe(overrides, unsafe))
        names = None
        if isinstance(config, PipelineConfig):
            names = stages_of(config, kind, stage)
        elif kind != "zero" or stage is not None:
            raise ConfigError(
                f"{recipe} has no stages: `pellucid {kind}` takes a recipe with [[stages]]"
            )
        launch(config, set_by_hand, Options(out, dry_run, accept_code, json), names)

    return run_stage


def stages_of(config: PipelineConfig, kind: str, name: str | None = None) -> list[str]:
    """Names of the stages of a kind, or of the one called `name`. Raises ConfigError."""
    names = [s.name for s in config.stages if s.kind == kind]
    if not names:
        kinds = ", ".join(dict.fromkeys(s.kind for s in config.stages))
        raise ConfigError(f"the recipe has no stage of kind {kind}: its kinds are {kinds}")
    if name is None:
        return names
    if name not in names:
        raise ConfigError(
            f"no stage of kind {kind} is called {name!r}: there is {', '.join(names)}"
        )
    return [name]
