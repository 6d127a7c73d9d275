"""The fine-tuning that all arms start behind: on which examples, and what it costs each of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pellucid.config_stages import DistillConfig
from pellucid.errors import ConfigError
from pellucid.pipeline.distill.steps import FineTuning, steps_of_epochs
from pellucid.train.sft_data import SftExample

WARM_START = "warm-start"
"""Its folder beside those of the arms, its name in the metrics and in seeds."""


def plan_warm_start(
    config: DistillConfig, examples: Sequence[SftExample], *, seed: int, tokens: int
) -> FineTuning | None:
    """Draws from `examples`; None where the recipe asks for no warm start. `tokens`: the budget.

    Raises ConfigError where there are too few examples, or it leaves nothing of the budget.
    """
    wanted, name = config.warm_start, config.name
    if not wanted.examples:
        return None
    if wanted.examples > len(examples):
        raise ConfigError(
            f"stages.{name}.warm_start.examples = {wanted.examples}, and of stage "
            f"{config.data_from} the student can read only {len(examples)}: lower it"
        )
    drawn = random.Random(f"{WARM_START}/{seed}").sample(range(len(examples)), wanted.examples)
    chosen = [examples[i] for i in sorted(drawn)]
    sft = config.sft.model_copy(update={"epochs": wanted.epochs})
    steps = steps_of_epochs(chosen, sft, seed=seed)
    if steps.tokens >= tokens:
        raise ConfigError(
            f"stages.{name}: the warm start takes {steps.tokens} tokens, and the whole budget is "
            f"{tokens}: lower stages.{name}.warm_start.examples, or raise "
            f"stages.{name}.budget_tokens"
        )
    return FineTuning(examples=chosen, config=sft, seed=seed, steps=steps)
