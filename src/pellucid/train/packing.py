"""Sequences to packs: flat rows of tokens for one forward pass, without padding.

    tokens    [ bodies of the pack's prompts | own rows of their samples, prompt by prompt ]

A prompt's body, all of it but its last token, is fed once for all its samples. A sample's own row
is that last token and its completion but the last token, so that every own token predicts one
completion token and the output head takes the hidden states from `num_body_tokens` on, as they lie.

Shapes: T tokens fed, N sequences, C completion tokens.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pellucid.model.shared_attention import SharedPromptAttention, upload


class PromptAndCompletion(Protocol):
    """All that packing needs of a sequence."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """At least one token: the last one predicts the first of the completion."""
        ...

    @property
    def completion_ids(self) -> tuple[int, ...]:
        """At least one token."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSequence:
    """One completion ready to be trained on by reinforcement.

    Example: TrainSequence(prompt_ids=(1, 7), completion_ids=(4, 2), rollout_logprobs=(-0.1,
    -0.7), advantage=1.0)
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    """Log-probability of each completion token when it was sampled."""
    advantage: float
    """Of the whole completion."""
    token_advantages: tuple[float, ...] = ()
    """Of each completion token, added to `advantage`; empty where there is none of its own."""

    @property
    def has_advantage(self) -> bool:
        """Whether any token is pushed up or down; without, only a KL term trains on it."""
        return self.advantage != 0.0 or any(self.token_advantages)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPack:
    """Bodies, then own rows, as tensors on the model's device.

    Example: two samples (4, 2) and (5,) of the prompt (1, 7) have token_ids [1, 7, 4, 7] and
    targets [4, 2, 5].
    """

    token_ids: Tensor
    """[T] int64."""
    attend: SharedPromptAttention
    """Where tokens stand and whom they see."""
    targets: Tensor
    """[C] int64: the completion tokens, predicted by the last C of the T tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack(TokenPack):
    """A pack with what reinforcement knows of each completion token."""

    sequence: Tensor
    """[C] int64: which of the N sequences a completion token belongs to."""
    completion_lengths: Tensor
    """[C] int64: completion length of that sequence."""
    advantages: Tensor
    """[C] float32: of the sequence, and of the token where it has its own."""
    rollout_logprobs: Tensor
    """[C] float32."""
    num_sequences: int


def plan_packs(sequences: Sequence[PromptAndCompletion], capacity: int) -> list[list[list[int]]]:
    """Indices of the sequences per pack and prompt; a pack feeds at most `capacity` tokens.

    No more packs than best-fit decreasing needs (paper, B.1: sort by length, best fit), of as equal
    numbers of tokens as can be had. A prompt whose samples exceed the capacity is fed again in each
    pack that they need; a sequence that alone exceeds it gets a pack of its own.
    """
    chunks = [c for group in _by_prompt(sequences) for c in _chunks(sequences, group, capacity)]
    sizes = [_num_fed(sequences, chunk) for chunk in chunks]
    return [[chunks[c] for c in pack] for pack in level_packs(sizes, capacity)]


def tokens_fed(sequences: Sequence[PromptAndCompletion], capacity: int) -> int:
    """Tokens that a pass over the sequences feeds, in the packs of `plan_packs`."""
    packs = plan_packs(sequences, capacity)
    return sum(_num_fed(sequences, group) for pack in packs for group in pack)


def level_packs(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """`best_fit`, its bins as equally filled as can be had without one more."""
    packs = best_fit(sizes, capacity)
    return _level(sizes, capacity, len(packs)) or packs


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: indices of items per bin, each bin at most `capacity` or a single
    item.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free, bin), ascending
    for index in _largest_first(sizes):
        at = bisect.bisect_left(room, (sizes[index], -1))
        if at == len(room):
            free, chosen = capacity, len(bins)
            bins.append([])
        else:
            free, chosen = room.pop(at)
        bins[chosen].append(index)
        bisect.insort(room, (free - sizes[index], chosen))
    return bins


def build_token_pack(
    groups: Sequence[Sequence[PromptAndCompletion]], device: torch.device | str
) -> TokenPack:
    """Tensors of some sequences, in the order given; those of a group have the same prompt."""
    members = [s for group in groups for s in group]
    counts = np.array([len(s.completion_ids) for s in members])
    targets = _flat((s.completion_ids for s in members), np.int64)
    own = np.empty_like(targets)
    own[1:] = targets[:-1]
    own[np.cumsum(counts) - counts] = [s.prompt_ids[-1] for s in members]
    bodies = _flat((group[0].prompt_ids[:-1] for group in groups), np.int64)
    return TokenPack(
        token_ids=upload(np.concatenate([bodies, own]), device),
        attend=SharedPromptAttention(
            [len(group[0].prompt_ids) - 1 for group in groups],
            [[len(s.completion_ids) for s in group] for group in groups],
            device,
        ),
        targets=upload(targets, device),
    )


def build_pack(groups: Sequence[Sequence[TrainSequence]], device: torch.device | str) -> Pack:
    """`build_token_pack`, with advantages and log-probabilities."""
    tokens = build_token_pack(groups, device)
    members = [s for group in groups for s in group]
    counts = np.array([len(s.completion_ids) for s in members])
    logprobs = _flat((s.rollout_logprobs for s in members), np.float32)
    advantages = np.repeat(np.array([s.advantage for s in members], dtype=np.float32), counts)
    if any(s.token_advantages for s in members):
        advantages = advantages + _flat((_own_advantages(s) for s in members), np.float32)
    assert len(logprobs) == len(tokens.targets), "every completion token has its log-probability"
    return Pack(
        token_ids=tokens.token_ids,
        attend=tokens.attend,
        targets=tokens.targets,
        sequence=upload(np.repeat(np.arange(len(members)), counts), device),
        completion_lengths=upload(np.repeat(counts, counts), device),
        advantages=upload(advantages, device),
        rollout_logprobs=upload(logprobs, device),
        num_sequences=len(members),
    )


def _own_advantages(sequence: TrainSequence) -> tuple[float, ...]:
    """One of each token."""
    num_tokens = len(sequence.completion_ids)
    own = sequence.token_advantages or (0.0,) * num_tokens
    assert len(own) == num_tokens, "every completion token has its advantage"
    return own


def _by_prompt(sequences: Sequence[PromptAndCompletion]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, sequence in enumerate(sequences):
        groups.setdefault(sequence.prompt_ids, []).append(index)
    return list(groups.values())


def _chunks(
    sequences: Sequence[PromptAndCompletion], group: list[int], capacity: int
) -> list[list[int]]:
    """A prompt's samples in as few parts as fit a pack each. All parts but one are nearly full: the
    small ones of many prompts fit a pack together.
    """
    if _num_fed(sequences, group) <= capacity:
        return [group]
    own = [len(sequences[i].completion_ids) for i in group]
    body = len(sequences[group[0]].prompt_ids) - 1
    return [[group[i] for i in part] for part in best_fit(own, capacity - body)]


def _num_fed(sequences: Sequence[PromptAndCompletion], group: list[int]) -> int:
    body = len(sequences[group[0]].prompt_ids) - 1
    return body + sum(len(sequences[i].completion_ids) for i in group)


def _level(sizes: Sequence[int], capacity: int, num_bins: int) -> list[list[int]] | None:
    """The largest first, each to the emptiest bin; None where that overflows a bin.

    Tokens stand for time: at lengths of a few thousand attention adds little that is not linear.
    """
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [(0, b) for b in range(num_bins)]
    for index in _largest_first(sizes):
        load, chosen = heapq.heappop(loads)
        if load and load + sizes[index] > capacity:
            return None
        bins[chosen].append(index)
        heapq.heappush(loads, (load + sizes[index], chosen))
    return bins


def _largest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))


def _flat(parts: Iterable[Sequence[int] | Sequence[float]], dtype: type) -> np.ndarray:
    return np.fromiter(chain.from_iterable(parts), dtype=dtype)
