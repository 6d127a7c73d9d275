"""What fine-tuning on examples costs, known before it: tokens that each optimiser step feeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

from pellucid.config import SftConfig
from pellucid.train.epochs import epoch_batches
from pellucid.train.packing import tokens_fed
from pellucid.train.sft_data import SftExample


class Steps(NamedTuple):
    """A part of a fine-tuning."""

    number: int
    tokens: int
    """Fed by all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """A fine-tuning, planned. Example: 64 examples, two epochs in batches of 16: 8 steps."""

    examples: Sequence[SftExample]
    config: SftConfig
    seed: int
    steps: Steps


def steps_of_epochs(examples: Sequence[SftExample], config: SftConfig, *, seed: int) -> Steps:
    """The steps of `config.epochs` epochs."""
    number = config.epochs * -(-len(examples) // config.batch_sequences)
    return Steps(number, sum(islice(step_costs(examples, config, seed=seed), number)))


def steps_within(
    examples: Sequence[SftExample], config: SftConfig, *, seed: int, tokens: int
) -> Steps:
    """The steps of a fine-tuning until so many tokens are fed: the last one reaches or passes
    them. None at all where `tokens` is not positive.
    """
    number, fed = 0, 0
    costs = step_costs(examples, config, seed=seed)
    while fed < tokens:
        number, fed = number + 1, fed + next(costs)
    return Steps(number, fed)


def step_costs(examples: Sequence[SftExample], config: SftConfig, *, seed: int) -> Iterator[int]:
    """Tokens that each optimiser step of `SftRun` feeds, epoch after epoch without end."""
    for epoch in count():
        size = config.batch_sequences
        for batch in epoch_batches(len(examples), size, seed=seed, epoch=epoch):
            yield tokens_fed([examples[i] for i in batch], config.tokens_per_pack)
