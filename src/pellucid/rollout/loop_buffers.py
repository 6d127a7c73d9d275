"""Sizes of the decoding loop's buffers, what fills them, and the scalars read back.

Shapes: S slots, N samples, P prompts, L new tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.rollout.pages import NO_PAGES, Pages, PageSize


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one call decodes: arrays over samples [N] and prompts [P], any integer type."""

    sample_ids: NDArray[np.integer]
    """[N] 64-bit ids: with the seed and the index they determine every draw."""
    prompts: NDArray[np.integer]
    """[N] index of each sample's prompt, not falling: samples of a prompt are neighbours."""
    limits: NDArray[np.integer]
    """[N] most tokens each sample may get, at least 1."""
    body_starts: NDArray[np.integer]
    """[P] where each prompt's body begins in the store of prompts."""
    bodies: NDArray[np.integer]
    """[P] tokens of each prompt's body: all but its last."""
    last_tokens: NDArray[np.integer]
    """[P] last token of each prompt: what a sample feeds first."""


class Counts(NamedTuple):
    """The scalars of the loop, in the order they lie in `LoopState.scalars`."""

    next_sample: int
    """First sample that has not been seated."""
    total: int
    live: int
    """Live rows: always rows 0 … live - 1."""
    max_own: int
    """Largest `own_length`, 0 where no row is live."""
    finished: int
    bad: int
    """1 + the first sample whose log-probability was not finite, 0: none."""
    steps: int
    """Steps that had a live row."""
    accept: int
    """Stop state that ends a sample, -1 without stop strings."""

    @property
    def is_waiting(self) -> bool:
        """Whether a sample has no row yet, or has to begin again."""
        return self.next_sample < self.total


class Capacity(NamedTuple):
    """Sizes of the buffers; a later call that needs no more can use them again."""

    slots: int
    samples: int
    prompts: int
    new_tokens: int
    vocab: int
    stop_states: int
    """0: there is no table, and later calls cannot have stop strings either."""
    pages: PageSize = NO_PAGES
    """Without them each slot is one piece of memory."""

    def holds(self, other: Capacity) -> bool:
        """Whether buffers of this size serve a call that needs `other`."""
        is_enough = all(mine >= need for mine, need in zip(self[:-1], other[:-1], strict=True))
        has_pages = all(mine >= need for mine, need in zip(self.pages, other.pages, strict=True))
        return is_enough and has_pages and self.vocab == other.vocab


def needs(
    slots: int, work: Work, vocab_size: int, next_state: NDArray[np.int16] | None
) -> Capacity:
    """The smallest capacity that holds `work`; `next_state` [states, V], None: no stop strings."""
    assert next_state is None or next_state.shape[1] == vocab_size, "one column a token"
    return Capacity(
        slots=slots,
        samples=len(work.sample_ids),
        prompts=len(work.bodies),
        new_tokens=int(np.max(work.limits)),
        vocab=vocab_size,
        stop_states=0 if next_state is None else len(next_state),
    )


def buffers(capacity: Capacity, device: torch.device) -> dict[str, Any]:
    """All fields of a `LoopState`, zeros."""
    slots, samples, prompts, new_tokens, vocab, stop_states, pages = capacity

    def zeros(dtype: torch.dtype, names: str, *shape: int) -> dict[str, Any]:
        return {name: torch.zeros(shape, dtype=dtype, device=device) for name in names.split()}

    fields: dict[str, Any] = {"capacity": capacity, "next_state": None, "pages": None}
    fields |= zeros(torch.int32, "sample slot own group body own_length stop_state", slots)
    fields |= zeros(torch.int64, "token position body_start", slots)
    fields |= zeros(torch.float64, "uniform", slots)
    fields |= zeros(torch.int32, "prompt id_low id_high limit out_length", samples)
    fields |= zeros(torch.int8, "out_reason", samples)
    fields |= zeros(torch.int32, "out_tokens", samples, new_tokens)
    fields |= zeros(torch.float32, "out_logprobs", samples, new_tokens)
    fields |= zeros(torch.int64, "prompt_body_start last_token", prompts)
    fields |= zeros(torch.int32, "prompt_body", prompts)
    fields |= zeros(torch.uint8, "is_eos", vocab)
    if stop_states:
        fields |= zeros(torch.int16, "next_state", stop_states, vocab)
    fields |= zeros(torch.int32, "seed", 2)
    fields |= zeros(torch.int32, "scalars", len(Counts._fields))
    fields |= zeros(torch.int64, "generated", 1)
    if pages.total:
        fields["pages"] = Pages.create(slots, samples, pages, device)
    scalars = fields["scalars"]
    fields["views"] = {name: scalars[i : i + 1] for i, name in enumerate(Counts._fields)}
    return fields


def fill(tensor: Tensor, values: NDArray[np.generic]) -> None:
    """Copies an array to the front of a buffer, in the buffer's type."""
    source = torch.from_numpy(np.ascontiguousarray(values))
    tensor[: len(source)].copy_(source)
