"""One call of the engine: the host loop around the decoding step.

    admit samples to free slots -> draw uniforms -> run a chunk of steps -> read tokens back -> finish -> compact

The host reads tokens back once per chunk: each step on a CPU, every 16 steps on CUDA, where a row that ended
inside the chunk has run on and what it added is dropped.

Shapes: S slots, B rows decoded, N samples, W columns of the window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.errors import NumericsError, UserError
from pellucid.model.transformer import Decoder
from pellucid.protocols import ProgressFn, Tokenizer
from pellucid.records import Completion, Request, SamplingParams, StopReason
from pellucid.rollout.cache import KVCache
from pellucid.rollout.philox import uniforms
from pellucid.rollout.prefill import PromptStore
from pellucid.rollout.sampling import Sampler
from pellucid.rollout.scheduler import Scheduler
from pellucid.rollout.step import DecodeStep
from pellucid.rollout.stops import StopRule

WINDOW = 32
"""Uniforms are drawn for so many steps at a time."""
CUDA_CHUNK = 16
"""Steps between two looks of the host: long enough to hide its work, short enough to waste few tokens."""
CUDA_MEMORY_FRAC = 0.85
"""Share of the free memory that keys and values may take."""


class Generation:
    """State of one `generate` call. Slot-indexed arrays live on the host; tensors live in `DecodeStep`."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        requests: Sequence[Request],
        params: SamplingParams,
        *,
        seed: int,
        slots: int,
    ) -> None:
        self.requests, self.params, self.seed = requests, params, seed
        self.device = model.embedding.weight.device
        self.is_cuda = self.device.type == "cuda"
        longest = max(len(request.prompt_ids) for request in requests)
        self.longest = longest + params.max_new_tokens
        capacity = self._fitting_slots(model, slots) if self.is_cuda else slots
        self.scheduler = Scheduler([len(r.sample_ids) for r in requests], capacity)
        rows = self.scheduler.rows
        dtype = model.embedding.weight.dtype
        context = self._bucket(self.longest if self.is_cuda else longest + 1)
        self.cache = KVCache(model.spec, rows, context, dtype=dtype, device=self.device)
        sampler = Sampler(model.spec.vocab_size, params, self.device)
        self.step = DecodeStep(model, self.cache, sampler, WINDOW)
        self.prompts = PromptStore(model, requests)
        self.stops = StopRule(tokenizer, model.spec.vocab_size, params)
        self.chunk = CUDA_CHUNK if self.is_cuda else 1
        self.column = 0
        self.sample_ids = np.zeros(rows, dtype=np.uint64)
        self.prompt_lengths = np.zeros(rows, dtype=np.int64)
        self.num_generated = np.zeros(rows, dtype=np.int64)
        self.is_live = np.zeros(rows, dtype=bool)
        self.tokens = np.zeros((rows, params.max_new_tokens), dtype=np.int32)
        self.logprobs = np.zeros((rows, params.max_new_tokens), dtype=np.float32)
        self.results: list[list[Completion | None]] = [[None] * len(r.sample_ids) for r in requests]

    def run(self, progress: ProgressFn | None) -> list[list[Completion]]:
        """Decodes until every sample has ended."""
        scheduler = self.scheduler
        self._admit()
        self._draw(np.arange(scheduler.rows))
        while scheduler.num_live:
            finished = scheduler.num_finished
            self._advance()
            if scheduler.num_finished > finished:
                self._admit()
                self._compact()
                if progress is not None:
                    progress(scheduler.num_finished, scheduler.total)
        return [[c for c in row if c is not None] for row in self.results]

    def _admit(self) -> None:
        """Seats waiting samples: prompt keys and values, last prompt token, uniforms."""
        newcomers = self.scheduler.admit()
        if not newcomers:
            return
        slots = np.array([slot for slot, _ in newcomers])
        for first, last, request in _runs(newcomers):
            self.cache.write_prompt(first, last, *self.prompts.get(request))
            self.prompt_lengths[first:last] = len(self.requests[request].prompt_ids)
        for slot, seat in newcomers:
            self.sample_ids[slot] = self.requests[seat.request].sample_ids[seat.index]
        last_tokens = [self.requests[seat.request].prompt_ids[-1] for _, seat in newcomers]
        where = self._upload(slots)
        self.step.token[where] = self._upload(np.array(last_tokens))
        self.step.position[where] = self._upload(self.prompt_lengths[slots] - 1)
        self.num_generated[slots] = 0
        self.is_live[slots] = True
        self._draw(slots)

    def _draw(self, slots: NDArray[np.intp]) -> None:
        """Uniforms of these slots for the columns of the window still ahead."""
        ahead = np.arange(WINDOW - self.column)
        index = self.num_generated[slots, None] + ahead
        u = uniforms(self.seed, self.sample_ids[slots], index)
        self.step.uniforms[self._upload(slots), self.column :] = self._upload(u)

    def _advance(self) -> None:
        """Runs a chunk of steps and takes in what they produced."""
        rows = self.scheduler.rows
        if self.column == WINDOW:
            self.column = 0
            self.step.column.zero_()
            self._draw(np.nonzero(self.is_live[:rows])[0])
        live = self.is_live[:rows]
        furthest = int((self.prompt_lengths + self.num_generated)[:rows][live].max())
        context = self._bucket(min(furthest + self.chunk - 1, self.longest))
        if context > self.cache.context:
            self.cache.grow(context, rows)
        self.step.run(rows, context, self.chunk)
        columns = slice(self.column, self.column + self.chunk)
        tokens = self.step.tokens[:rows, columns].cpu().numpy()
        logprobs = self.step.logprobs[:rows, columns].cpu().numpy()
        self.column += self.chunk
        for column in range(self.chunk):
            self._take(tokens[:, column], logprobs[:, column])

    def _take(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """Appends one token [B] to each live row and finishes the rows that end with it."""
        live = np.nonzero(self.is_live[: len(tokens)])[0]
        tokens, logprobs = tokens[live], logprobs[live]
        place = self.num_generated[live]
        if not np.isfinite(logprobs).all():
            self._complain(live[~np.isfinite(logprobs)][0])
        self.tokens[live, place] = tokens
        self.logprobs[live, place] = logprobs
        self.num_generated[live] = place + 1
        for i in self.stops.suspects(tokens, place + 1):
            slot = int(live[i])
            token_ids = self.tokens[slot, : place[i] + 1].tolist()
            reason = self.stops.reason(token_ids)
            if reason is not None:
                self._finish(slot, token_ids, reason)

    def _finish(self, slot: int, token_ids: list[int], reason: StopReason) -> None:
        seat = self.scheduler.finish(slot)
        self.is_live[slot] = False
        self.results[seat.request][seat.index] = Completion(
            sample_id=self.requests[seat.request].sample_ids[seat.index],
            token_ids=tuple(token_ids),
            logprobs=tuple(self.logprobs[slot, : len(token_ids)].tolist()),
            stop=reason,
            text=self.stops.text(token_ids, reason),
        )

    def _compact(self) -> None:
        """Moves the last rows into the gaps once nothing waits, so that fewer rows are decoded."""
        moves = self.scheduler.compact()
        if not moves:
            return
        sources, targets = np.array(moves).T
        for array in (
            self.sample_ids, self.prompt_lengths, self.num_generated, self.is_live, self.tokens, self.logprobs
        ):  # fmt: skip
            array[targets] = array[sources]
        at, to = self._upload(sources), self._upload(targets)
        self.cache.move(at, to)
        for tensor in (self.step.token, self.step.position, self.step.uniforms):
            tensor[to] = tensor[at]

    def _complain(self, slot: int) -> None:
        seat = self.scheduler.seats[slot]
        assert seat is not None, "only live rows are looked at"
        raise NumericsError(
            f"logits of the rollout hold NaN or infinity: request {seat.request}, sample "
            f"{self.sample_ids[slot]}, token {self.num_generated[slot]}"
        )

    def _upload(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _bucket(self, context: int) -> int:
        """Context rounded up: fine steps where memory is copied to grow, coarse ones where graphs are kept."""
        if self.is_cuda:
            step = 128 if context <= 512 else 256 if context <= 2048 else 512
        else:
            step = 32 if context <= 512 else 128
        return -(-context // step) * step

    def _fitting_slots(self, model: Decoder, slots: int) -> int:
        spec = model.spec
        size = model.embedding.weight.element_size()
        values = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim
        bytes_per_slot = values * size * self._bucket(self.longest)
        free = torch.cuda.mem_get_info(self.device)[0]
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        fitting = int(free * CUDA_MEMORY_FRAC) // bytes_per_slot
        if fitting < 1:
            raise UserError(
                f"no memory for one sequence of {self.longest} tokens ({bytes_per_slot / 2**30:.1f} GiB): "
                "lower max_new_tokens"
            )
        return min(slots, fitting)


def _runs(newcomers: Sequence[tuple[int, tuple[int, int]]]) -> list[tuple[int, int, int]]:
    """Newcomers as (first slot, last slot + 1, request): neighbours of one request are seated in one go."""
    runs: list[tuple[int, int, int]] = []
    for slot, (request, _) in newcomers:
        if runs and runs[-1][1] == slot and runs[-1][2] == request:
            runs[-1] = (runs[-1][0], slot + 1, request)
        else:
            runs.append((slot, slot + 1, request))
    return runs
