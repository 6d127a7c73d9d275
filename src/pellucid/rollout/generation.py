"""One call of the engine: the host loop around the decoding step.

    admit samples to free slots, draw their uniforms
    -> run a chunk of steps -> read tokens back -> finish rows -> refill, compact -> run …

The host reads tokens back once per chunk: each step on a CPU, every 16 steps on CUDA, where a row
that ended inside the chunk has run on and what it added is dropped.

Shapes: S slots, B rows decoded, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.errors import NumericsError, UserError
from pellucid.model.transformer import Decoder
from pellucid.protocols import GroupFn, ProgressFn, Tokenizer
from pellucid.records import Completion, Request, SamplingParams, StopReason
from pellucid.rollout.cache import Extent, KVCache
from pellucid.rollout.memory import KV_MEMORY_FRAC, free_bytes
from pellucid.rollout.philox import uniforms
from pellucid.rollout.prefill import PromptStore
from pellucid.rollout.sampling import Sampler
from pellucid.rollout.scheduler import LANES, Scheduler, round_size
from pellucid.rollout.step import DecodeStep
from pellucid.rollout.stops import StopRule

WINDOW = 32
"""Uniforms are drawn for so many steps at a time."""
CUDA_CHUNK = 16
"""Steps between two looks of the host: enough to hide its work, few enough to waste few tokens."""


class Generation:
    """State of one `generate` call. Arrays over slots live on the host; tensors in `DecodeStep`."""

    def __init__(
        self,
        model: Decoder,
        head: Tensor,
        tokenizer: Tokenizer,
        requests: Sequence[Request],
        params: SamplingParams,
        *,
        seed: int,
        slots: int,
        spare: DecodeStep | None = None,
        on_group: GroupFn | None = None,
    ) -> None:
        """`head` [V, D]: the output head, in the type that logits are computed in; `spare`: the
        step of an earlier call, used again where it fits; `on_group`: see `protocols.Engine`."""
        self.requests, self.params, self.seed = requests, params, seed
        self.device = model.embedding.weight.device
        self.is_cuda = self.device.type == "cuda"
        self.chunk = CUDA_CHUNK if self.is_cuda else 1
        longest = self._round(max(len(request.prompt_ids) for request in requests) - 1)
        # On a CPU room grows with the completions; on CUDA addresses must not change.
        own = self._round(params.max_new_tokens if self.is_cuda else 1)
        if self.is_cuda:
            free = free_bytes(self.device) + (spare.cache.num_bytes if spare is not None else 0)
            slots = _fitting_slots(model, slots, longest + own, free)
        self.scheduler = Scheduler([len(r.sample_ids) for r in requests], slots)
        rows = self.scheduler.rows
        extent = Extent(rows, self._round_places(self.scheduler.max_places), longest, own)
        if spare is not None and spare.fits(model, head, extent, params):
            self.step = spare
            self.step.reset(own)
        else:
            del spare  # gives its memory back first
            self.step = _new_step(model, head, extent, params)
        self.cache = self.step.cache
        self.column = 0
        self.prompts = PromptStore(model, requests)
        self.stops = StopRule(tokenizer, model.spec.vocab_size, params)
        self.sample_ids = np.zeros(rows, dtype=np.uint64)
        self.prompt_lengths = np.zeros(rows, dtype=np.int64)
        self.num_generated = np.zeros(rows, dtype=np.int64)
        self.limits = np.zeros(rows, dtype=np.int64)
        self.is_live = np.zeros(rows, dtype=bool)
        self.tokens = np.zeros((rows, params.max_new_tokens), dtype=np.int32)
        self.logprobs = np.zeros((rows, params.max_new_tokens), dtype=np.float32)
        self.results: list[list[Completion | None]] = [[None] * len(r.sample_ids) for r in requests]
        self.num_missing = [len(r.sample_ids) for r in requests]
        self.on_group = on_group

    def run(self, progress: ProgressFn | None) -> list[list[Completion]]:
        """Decodes until every sample has ended."""
        scheduler = self.scheduler
        self._admit()
        while scheduler.num_live:
            num_finished = scheduler.num_finished
            self._advance()
            if scheduler.num_finished > num_finished:
                self._admit()
                self._compact()
                if progress is not None:
                    progress(scheduler.num_finished, scheduler.total)
        return [self._group(request) for request in range(len(self.requests))]

    def _group(self, request: int) -> list[Completion]:
        """The completions of a request whose samples have all ended."""
        return [c for c in self.results[request] if c is not None]

    def _admit(self) -> None:
        """Seats waiting samples: prompt keys and values, last prompt token, uniforms."""
        arrivals = self.scheduler.admit()
        if not arrivals:
            return
        for arrival in arrivals:
            if arrival.is_first:
                self.cache.write_prompt(arrival.place, *self.prompts.get(arrival.seat.request))
        asked = [self.requests[a.seat.request] for a in arrivals]
        slots = np.array([a.slot for a in arrivals])
        lengths = np.array([len(r.prompt_ids) for r in asked])
        self.prompt_lengths[slots] = lengths
        ids = [r.sample_ids[a.seat.index] for r, a in zip(asked, arrivals, strict=True)]
        self.sample_ids[slots] = np.array(ids, dtype=np.uint64)
        self.limits[slots] = [
            r.limits[a.seat.index] if r.limits is not None else self.params.max_new_tokens
            for r, a in zip(asked, arrivals, strict=True)
        ]
        self.num_generated[slots] = 0
        self.is_live[slots] = True
        step, where = self.step, self._upload(slots)
        step.token[where] = self._upload(np.array([r.prompt_ids[-1] for r in asked]))
        step.position[where] = step.prompt[where] = self._upload(lengths - 1)
        step.place[where] = self._upload(np.array([a.place for a in arrivals]))
        step.lane[where] = self._upload(np.array([a.seat.lane for a in arrivals]))
        self._draw(slots)

    def _draw(self, slots: NDArray[np.intp]) -> None:
        """Uniforms of these slots for the columns of the window still ahead."""
        index = self.num_generated[slots, None] + np.arange(WINDOW - self.column)
        drawn = uniforms(self.seed, self.sample_ids[slots], index)
        self.step.uniforms[self._upload(slots), self.column :] = self._upload(drawn)

    def _advance(self) -> None:
        """Runs a chunk of steps and takes in what they produced."""
        if self.column == WINDOW:
            self.column = 0
            self.step.column.zero_()
            self._draw(np.nonzero(self.is_live)[0])
        extent = self._extent()
        if extent.own > self.cache.extent.own:
            self.cache.grow(extent.own, extent.rows)
        self.step.run(extent, self.chunk)
        columns = slice(self.column, self.column + self.chunk)
        tokens = self.step.tokens[: extent.rows, columns].cpu().numpy()
        logprobs = self.step.logprobs[: extent.rows, columns].cpu().numpy()
        self.column += self.chunk
        for column in range(self.chunk):
            self._take(tokens[:, column], logprobs[:, column])

    def _extent(self) -> Extent:
        """What the next chunk needs, in round numbers."""
        prompt = self._round(int(self.prompt_lengths[self.is_live].max()) - 1)
        furthest = int(self.num_generated[self.is_live].max()) + self.chunk
        own = self._round(min(furthest, self.params.max_new_tokens))
        own = own if self.is_cuda else max(own, self.cache.extent.own)
        places = self._round_places(self.scheduler.places)
        return Extent(self.scheduler.rows, places, prompt, own)

    def _take(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> None:
        """Appends one token [B] to each live row and finishes the rows that end with it."""
        live = np.nonzero(self.is_live[: len(tokens)])[0]
        tokens, logprobs = tokens[live], logprobs[live]
        place = self.num_generated[live]
        if not np.isfinite(logprobs).all():
            self._complain(int(live[~np.isfinite(logprobs)][0]))
        self.tokens[live, place] = tokens
        self.logprobs[live, place] = logprobs
        self.num_generated[live] = place + 1
        ended: list[int] = []
        for i in self.stops.suspects(tokens, place + 1, self.limits[live]):
            slot = int(live[i])
            token_ids = self.tokens[slot, : place[i] + 1].tolist()
            reason = self.stops.reason(token_ids, int(self.limits[slot]))
            if reason is not None:
                self._finish(slot, token_ids, reason)
                ended.append(slot)
        if ended:
            # Their place may be given away, and their lane with it.
            where = self._upload(np.array(ended))
            self.step.place[where], self.step.lane[where] = 0, LANES

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
        self.num_missing[seat.request] -= 1
        if self.on_group is not None and not self.num_missing[seat.request]:
            self.on_group(seat.request, self._group(seat.request))

    def _compact(self) -> None:
        """Moves the last rows into gaps once nothing waits, so that fewer rows are decoded."""
        moves = self.scheduler.compact()
        if not moves:
            return
        sources, targets = np.array(moves).T
        lengths = (self.prompt_lengths, self.num_generated, self.limits)
        for array in (*lengths, self.sample_ids, self.is_live, self.tokens, self.logprobs):
            array[targets] = array[sources]
        self.is_live[sources] = False
        at, to = self._upload(sources), self._upload(targets)
        self.cache.move(at, to)
        for tensor in self.step.per_slot:
            tensor[to] = tensor[at]

    def _complain(self, slot: int) -> None:
        seat = self.scheduler.seats[slot]
        assert seat is not None, "only live rows are looked at"
        raise NumericsError(
            f"logits of the rollout hold NaN or infinity: request {seat.request}, "
            f"sample {self.sample_ids[slot]}, token {self.num_generated[slot]}"
        )

    def _upload(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _round(self, length: int) -> int:
        return round_positions(length, is_cuda=self.is_cuda)

    def _round_places(self, places: int) -> int:
        return round_size(places) if self.is_cuda else places


def round_positions(length: int, *, is_cuda: bool) -> int:
    """Positions rounded up: finely where growing costs a copy, coarsely where it costs a graph."""
    if is_cuda:
        step = 128 if length <= 512 else 256 if length <= 2048 else 512
    else:
        step = 16 if length <= 128 else 64
    return -(-length // step) * step


def decoded_context(longest: int, max_new_tokens: int, *, is_cuda: bool) -> int:
    """Positions that decoding may look up, for prompts of up to `longest` tokens.

    More than are asked for: a finished row runs on to the end of its room. Equal for calls that
    share captured graphs, so that the table of rotations a graph reads stays where it is.
    """
    prompt = round_positions(longest - 1, is_cuda=is_cuda)
    return prompt + round_positions(max_new_tokens, is_cuda=is_cuda)


def _new_step(model: Decoder, head: Tensor, extent: Extent, params: SamplingParams) -> DecodeStep:
    weight = model.embedding.weight
    cache = KVCache(model.spec, extent, dtype=weight.dtype, device=weight.device)
    sampler = Sampler(model.spec.vocab_size, params, weight.device)
    return DecodeStep(model, head, cache, sampler, WINDOW)


def _fitting_slots(model: Decoder, slots: int, positions: int, free: int) -> int:
    """As many slots as fit into `free` bytes, each with its own prompt at worst."""
    spec = model.spec
    values = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * positions
    size = values * model.embedding.weight.element_size()
    usable = int(free * KV_MEMORY_FRAC)
    fitting = usable // size
    if fitting < 1:
        raise UserError(
            f"no memory for one sequence of {positions} tokens: it takes {size / 2**30:.2f} GiB "
            f"and {usable / 2**30:.2f} GiB are free; lower max_new_tokens"
        )
    return min(slots, fitting)
