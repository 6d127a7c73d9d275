"""Sequences to packs: flat rows of tokens for one forward pass, without padding.

Only hidden states that predict a completion token go through the output head, and the last token
of a sequence predicts nothing, so it is not fed at all.

Shapes: T tokens fed, N sequences, C completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSequence:
    """One completion ready to be trained on.

    Example: TrainSequence(prompt_ids=(1, 7), completion_ids=(4, 2), rollout_logprobs=(-0.1,
    -0.7), advantage=1.0)
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    """Log-probability of each completion token when it was sampled."""
    advantage: float

    @property
    def num_fed(self) -> int:
        """Tokens that go through the decoder."""
        return len(self.prompt_ids) + len(self.completion_ids) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Sequences one after another, as tensors on the model's device."""

    token_ids: Tensor
    """[T] int64."""
    lengths: Tensor
    """[N] int64: tokens fed per sequence; their sum is T."""
    predicting: Tensor
    """[C] int64: index in T of the hidden state that predicts each completion token."""
    targets: Tensor
    """[C] int64: the completion tokens."""
    sequence: Tensor
    """[C] int64: which of the N sequences a completion token belongs to."""
    completion_lengths: Tensor
    """[C] int64: completion length of that sequence."""
    advantages: Tensor
    """[C] float32."""
    rollout_logprobs: Tensor
    """[C] float32."""
    num_sequences: int


def plan_packs(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: indices of sequences per pack, each pack at most `capacity` tokens.

    A sequence longer than the capacity gets a pack of its own (paper, B.1: sort by length, best
    fit).
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    packs: list[list[int]] = []
    room: list[int] = []
    for index in order:
        fitting = [p for p, free in enumerate(room) if free >= sizes[index]]
        if fitting:
            best = min(fitting, key=lambda p: room[p])
            packs[best].append(index)
            room[best] -= sizes[index]
        else:
            packs.append([index])
            room.append(capacity - sizes[index])
    return packs


def build_pack(sequences: Sequence[TrainSequence], device: torch.device | str) -> Pack:
    """Tensors of some sequences, in the order given."""
    tokens: list[int] = []
    predicting: list[int] = []
    for s in sequences:
        first = len(tokens) + len(s.prompt_ids) - 1
        predicting.extend(range(first, first + len(s.completion_ids)))
        tokens.extend(s.prompt_ids)
        tokens.extend(s.completion_ids[:-1])
    counts = [len(s.completion_ids) for s in sequences]

    def per_token(values: Sequence[float | int], dtype: torch.dtype) -> Tensor:
        repeated = torch.tensor(values, dtype=dtype).repeat_interleave(torch.tensor(counts))
        return repeated.to(device)

    return Pack(
        token_ids=torch.tensor(tokens, dtype=torch.long).to(device),
        lengths=torch.tensor([s.num_fed for s in sequences]).to(device),
        predicting=torch.tensor(predicting, dtype=torch.long).to(device),
        targets=torch.tensor([t for s in sequences for t in s.completion_ids]).to(device),
        sequence=per_token(range(len(sequences)), torch.long),
        completion_lengths=per_token(counts, torch.long),
        advantages=per_token([s.advantage for s in sequences], torch.float32),
        rollout_logprobs=torch.tensor(
            [lp for s in sequences for lp in s.rollout_logprobs], dtype=torch.float32
        ).to(device),
        num_sequences=len(sequences),
    )
