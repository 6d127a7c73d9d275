"""The engine whose loop runs on the device: what outlives a call, and what each call needs.

Keys, values, loop state and captured steps stay at their addresses from call to call, beside the
weights that the trainer changes in place: an optimiser step is in the next token without a copy.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from pellucid.kernels.attention import supports as supports_attention
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder
from pellucid.protocols import GroupFn, ProgressFn, Tokenizer
from pellucid.records import Completion, Request, SamplingParams
from pellucid.rollout.arena import KVStore
from pellucid.rollout.drafts import DraftPolicy
from pellucid.rollout.loop_buffers import Capacity
from pellucid.rollout.memory import KV_MEMORY_FRAC, free_bytes
from pellucid.rollout.resident import ResidentRollout
from pellucid.rollout.resident_step import ResidentStep
from pellucid.rollout.stop_table import StopTable
from pellucid.rollout.waves import Wave, plan_waves

log = logging.getLogger(__name__)

OTHER_STEPS = 3
"""Captured steps kept beside the one in use: evaluations sample in other ways than training, and in
other numbers."""
FIRST_GUESS = 0.25
"""Of the longest completion: what samples are expected to need before the first of them has ended.
Too little costs rows that begin again, too much leaves rows out."""
OTHER_BYTES = 2**30
"""What they may hold beside keys and values: part of what `train.memory_plan` leaves alone."""


class ResidentEngine:
    """Serves calls of `InProcessEngine` on CUDA."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        slots: int,
        kv_limit: int | None = None,
        is_shared: bool = False,
        drafts: int = 0,
    ) -> None:
        """`kv_limit`: bytes that keys and values may take; `is_shared`: `suspend` frees them;
        `drafts`: tokens guessed a row and step once few rows are left, 0: none."""
        self.model, self.tokenizer, self.slots = model, tokenizer, slots
        self.kv_limit, self.is_shared = kv_limit, is_shared
        self.drafted = DraftPolicy(drafts)
        """Says what drafts brought: `drafted.counts.per_row_step`."""
        self.most_rows = 0
        """Decoded at a time in the last call, at most."""
        self.restarts = 0
        """Rows of its last wave that began again for want of a page."""
        self._mean_pages: float | None = None
        """That samples needed in the last call with pages: what the next one expects."""
        self._store: KVStore | None = None
        self._steps: list[ResidentStep] = []
        """In the order of their last use."""
        self._tables: dict[tuple[str, ...], NDArray[np.int16] | None] = {}

    @property
    def drafts(self) -> int:
        """Tokens guessed a row and step; to set it forgets what earlier guesses brought."""
        return self.drafted.drafts

    @drafts.setter
    def drafts(self, number: int) -> None:
        self.drafted = DraftPolicy(number)

    def can_serve(self, params: SamplingParams) -> bool:
        """Stop strings need a tokenizer whose tokens are bytes."""
        return not params.stop or self._table(params) is not None

    def generate(
        self,
        requests: Sequence[Request],
        params: SamplingParams,
        *,
        seed: int,
        progress: ProgressFn | None = None,
        on_group: GroupFn | None = None,
    ) -> list[list[Completion]]:
        """Completions in the order of the requests; see `InProcessEngine.generate`."""
        store, steps, waves = self._prepare(requests, params)
        step = steps[-1]
        pages = step.state.capacity.pages
        rollout = ResidentRollout(
            self.model,
            self.tokenizer,
            params,
            step,
            seed=seed,
            next_state=self._table(params),
            policy=self.drafted,
            expected_pages=math.ceil(self._mean_pages or pages.per_row * FIRST_GUESS),
        )
        completions = rollout.run(waves, progress, on_group)
        if pages.total:
            lengths = [len(c.token_ids) for row in completions for c in row]
            self._mean_pages = fmean(math.ceil(n / pages.positions) for n in lengths)
        self.most_rows = step.state.capacity.slots
        self.restarts = int(step.state.pages.restarts) if step.state.pages is not None else 0
        self._store, self._steps = store, steps
        return completions

    def suspend(self) -> None:
        """Lends the memory of keys and values to others until the next call, which takes it
        again; captured steps stay, unless this device cannot keep addresses without memory. Only
        where the engine was made `is_shared`.
        """
        if not self.is_shared or self._store is None:
            return
        if self._store.can_suspend:
            self._store.suspend()
        else:
            self.release()

    def release(self) -> None:
        """Gives back keys, values and captured steps; the next call makes them anew."""
        self._store, self._steps = None, []

    def _prepare(
        self, requests: Sequence[Request], params: SamplingParams
    ) -> tuple[KVStore, list[ResidentStep], list[Wave]]:
        """Memory, the steps that lie in it, of which the last serves this call, and its waves."""
        # While a call runs nothing is kept: if it fails, what it leaves may hold NaN.
        store, steps = self._store, self._steps
        self.release()
        weight = self.model.head.weight
        held = store.held_bytes if store is not None else 0
        free = free_bytes(weight.device) + held
        # A limit leaves room for all else.
        budget = int(KV_MEMORY_FRAC * free) if self.kv_limit is None else min(free, self.kv_limit)
        waves, size, rows, pages = plan_waves(
            requests,
            params,
            self.model.spec,
            slots=self.slots,
            budget=budget,
            element_size=weight.element_size(),
        )
        table = self._table(params)
        capacity = Capacity(
            slots=rows,
            samples=max(wave.num_samples for wave in waves),
            prompts=max(len(wave.requests) for wave in waves),
            new_tokens=params.max_new_tokens,
            vocab=self.model.spec.vocab_size,
            stop_states=0 if table is None else len(table),
            pages=pages,
        )
        needed = size.num_bytes(self.model.spec, weight.element_size())
        if store is None or needed > store.num_bytes or not _has_room(store, budget):
            steps.clear()
            del store  # gives its memory back first
            store = KVStore(needed, weight.device, is_shared=self.is_shared)
        store.resume()
        fitting = [step for step in steps if step.fits(self.model, params, size, capacity)]
        # The smallest: one made for larger calls is that of an evaluation.
        step = min(fitting, key=lambda s: s.arena.num_bytes, default=None)
        kept = _worth_keeping([other for other in steps if other is not step])
        steps.clear()  # what is not kept gives its memory back first
        fitting.clear()
        step = step or ResidentStep(self.model, params, size, capacity, store)
        return store, [*kept, step], waves

    def _table(self, params: SamplingParams) -> NDArray[np.int16] | None:
        """Transitions of the stop strings [states, V]; None: there are none, or no table can be
        made."""
        stops = params.stop
        if stops and stops not in self._tables:
            table = StopTable.build(self.tokenizer, self.model.spec.vocab_size, stops)
            self._tables[stops] = None if table is None else table.next_state
            if table is None:
                log.warning(
                    "the host leads decoding, slower and not exact: the device cannot follow the "
                    "stop strings %s of this tokenizer",
                    stops,
                )
        return self._tables.get(stops)


def _has_room(store: KVStore, budget: int) -> bool:
    """Whether a store can have its memory again: others may hold more than when it was lent."""
    return not store.is_suspended or store.num_bytes <= budget


def _worth_keeping(steps: Sequence[ResidentStep]) -> list[ResidentStep]:
    """Those used last, as far as number and bytes allow, in the same order."""
    kept: list[ResidentStep] = []
    for step in reversed(steps):
        if len(kept) == OTHER_STEPS:
            break
        if sum(s.num_bytes for s in kept) + step.num_bytes <= OTHER_BYTES:
            kept.append(step)
    return kept[::-1]


def supports(spec: ModelSpec) -> bool:
    """Whether the kernels are made for a model of this shape."""
    is_head_readable = spec.width % 8 == 0  # rows of 16 bytes, see `kernels.head_stats`
    return is_head_readable and supports_attention(spec.head_dim, spec.num_heads, spec.num_kv_heads)
