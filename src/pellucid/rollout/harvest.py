"""What the loop on the device has produced, read back: each group once it has ended, or all at the
end.

A group is read while the next chunk of steps runs, on a stream of its own: a sample that had ended
when a snapshot was taken is never written again, so the copy need not wait for the steps in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from pellucid.protocols import GroupFn
from pellucid.records import Completion, Request
from pellucid.rollout.loop_state import REASONS, LoopState
from pellucid.rollout.stops import StopRule

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
        self._stream = torch.cuda.Stream() if state.out_length.is_cuda and on_group else None

    @property
    def ended(self) -> Tensor | None:
        """[N] on the device: what `take` wants a snapshot of; None where none waits for groups."""
        return None if self._on_group is None else self._state.out_length[: len(self._ids)]

    def take(self, lengths: Tensor) -> None:
        """Hands on groups all of whose samples had ended in a snapshot of `ended`, on the host."""
        has_ended = lengths.ne(0).tolist()
        ready = [
            index
            for index, (begin, end) in enumerate(self._spans)
            if index not in self._groups and all(has_ended[begin:end])
        ]
        # Whole rows lie in one piece: copying them takes no memory of the device.
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
        state = self._state
        lengths = state.out_length[begin:end].tolist()
        width = max(lengths) if width is None else width
        tokens = state.out_tokens[begin:end, :width].cpu().numpy()
        logprobs = state.out_logprobs[begin:end, :width].cpu().numpy()
        reasons = [REASONS[code] for code in state.out_reason[begin:end].tolist()]
        rows = [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]
        return [
            Completion(
                sample_id=self._ids[begin + i],
                token_ids=tuple(row),
                logprobs=tuple(logprobs[i, : len(row)].tolist()),
                stop=reasons[i],
                text=text,
            )
            for i, (row, text) in enumerate(
                zip(rows, self._stops.texts(rows, reasons), strict=True)
            )
        ]
