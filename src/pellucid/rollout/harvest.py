"""What the loop on the device has produced, read back: each group once it has ended, or all at the
end.

A group is read while the next chunk of steps runs, on a stream of its own: a sample that had ended
when a snapshot was taken is never written again, so the copy need not wait for the steps in flight.
Nor are tokens that had been decoded then. Making half a million Python numbers takes as long as
tens of steps, so where all samples go along together their tokens are read as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.protocols import GroupFn
from pellucid.records import Completion, Request
from pellucid.rollout.loop_state import REASONS, LoopState
from pellucid.rollout.stops import StopRule

T = TypeVar("T", int, float)
GROUPS_AT_ONCE = 4
"""Read between two chunks: the host must be back before the chunk in flight ends."""


class Harvest:
    """The completions of one wave."""

    def __init__(
        self,
        state: LoopState,
        stops: StopRule,
        requests: Sequence[Request],
        *,
        first: int,
        on_group: GroupFn | None,
    ) -> None:
        """`first`: number of the wave's first request in the call."""
        self._state, self._stops = state, stops
        self._first, self._on_group = first, on_group
        self._ids = [i for request in requests for i in request.sample_ids]
        ends = [0, *accumulate(len(request.sample_ids) for request in requests)]
        self._spans = list(pairwise(ends))
        """Samples [begin, end) of each request."""
        self._groups: dict[int, list[Completion]] = {
            i: [] for i, (begin, end) in enumerate(self._spans) if begin == end
        }
        self._tokens: list[list[int]] = [[] for _ in self._ids]
        self._logprobs: list[list[float]] = [[] for _ in self._ids]
        """The first `_followed` of each sample; past its end they mean nothing."""
        self._followed = 0
        self._stream = torch.cuda.Stream() if state.out_length.is_cuda else None

    @property
    def ended(self) -> Tensor | None:
        """[N] on the device: what `take` wants a snapshot of; None where none waits for groups."""
        return None if self._on_group is None else self._state.out_length[: len(self._ids)]

    def follow(self, tokens: int) -> None:
        """Reads so many tokens of every sample, which it had, or had ended without, at a snapshot
        that has reached the host."""
        if tokens <= self._followed:
            return
        with torch.cuda.stream(self._stream):
            new_tokens, new_logprobs = self._copy(0, len(self._ids), tokens)
        for known, more in zip(self._tokens, new_tokens.tolist(), strict=True):
            known += more
        for known, more in zip(self._logprobs, new_logprobs.tolist(), strict=True):
            known += more
        self._followed = tokens

    def take(self, lengths: Tensor) -> None:
        """Hands on groups all of whose samples had ended in a snapshot of `ended`, on the host."""
        has_ended = lengths.ne(0).tolist()
        ready = [
            index
            for index, (begin, end) in enumerate(self._spans)
            if index not in self._groups and all(has_ended[begin:end])
        ]
        width = self._state.capacity.new_tokens
        with torch.cuda.stream(self._stream):
            for index in ready[:GROUPS_AT_ONCE]:
                self._hand_on(index, self._read(*self._spans[index], width=width))

    def rest(self) -> list[list[Completion]]:
        """Completions of all requests, once every sample has ended."""
        if self._on_group is None:
            completions = self._read(0, len(self._ids))
            return [completions[begin:end] for begin, end in self._spans]
        for index, span in enumerate(self._spans):
            if index not in self._groups:
                self._hand_on(index, self._read(*span))
        return [self._groups[index] for index in range(len(self._spans))]

    def _hand_on(self, index: int, group: list[Completion]) -> None:
        self._groups[index] = group
        if self._on_group is not None:
            self._on_group(self._first + index, group)

    def _read(self, begin: int, end: int, width: int | None = None) -> list[Completion]:
        """Completions of the samples [begin, end), all of which have ended. `width`: tokens of a
        row to copy, at least the most of any; None: just those.
        """
        lengths = self._state.out_length[begin:end].tolist()
        late = self._copy(begin, end, max(lengths) if width is None else width)
        known = self._tokens[begin:end], self._logprobs[begin:end]
        rows, logprobs = (
            [_joined(*row) for row in zip(*both, lengths, strict=True)]
            for both in zip(known, late, strict=True)
        )
        reasons = [REASONS[code] for code in self._state.out_reason[begin:end].tolist()]
        texts = self._stops.texts(rows, reasons)
        return [
            Completion(
                sample_id=sample_id,
                token_ids=tuple(row),
                logprobs=tuple(row_logprobs),
                stop=reason,
                text=text,
            )
            for sample_id, row, row_logprobs, reason, text in zip(
                self._ids[begin:end], rows, logprobs, reasons, texts, strict=True
            )
        ]

    def _copy(self, begin: int, end: int, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokens and log-probabilities of the samples, from what has been followed to `width`."""
        state, place = self._state, (slice(begin, end), slice(self._followed, width))
        return state.out_tokens[place].cpu().numpy(), state.out_logprobs[place].cpu().numpy()


def _joined(known: list[T], late: NDArray[Any], length: int) -> list[T]:
    """The first `length` numbers of both."""
    more = length - len(known)
    return known + late[:more].tolist() if more > 0 else known[:length]
