"""What the resident engine decodes at a time: as many prompts, and slots or pages, as the memory
holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pellucid.errors import UserError
from pellucid.model.spec import ModelSpec
from pellucid.records import Request, SamplingParams
from pellucid.rollout.arena import ArenaSize
from pellucid.rollout.loop_buffers import Work
from pellucid.rollout.pages import NO_PAGES, PageSize
from pellucid.rollout.scheduler import round_size

PROMPT_SHARE = 0.5
"""Share of the memory that bodies may take before the requests are split into waves."""
OUTPUT_BYTES = 2**30
"""Sampled tokens and log-probabilities that a wave may keep on the device."""
PROMPT_GRAIN = 4096
"""Prompt tokens are rounded up to it, so that a later call finds room in the same arena."""
PAGE = 256
"""Positions of a page: as many as attention takes in a split, which lies in one page so."""
LEAST_ROWS, MOST_ROWS = 8, 4096
"""Of a step. The most are those of `kernels.bookkeeping`, where one program holds them all."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Requests whose bodies are in memory together."""

    requests: list[Request]

    @property
    def num_samples(self) -> int:
        return sum(len(r.sample_ids) for r in self.requests)

    @property
    def longest_body(self) -> int:
        return max(len(r.prompt_ids) for r in self.requests) - 1

    @property
    def most_siblings(self) -> int:
        return max(len(r.sample_ids) for r in self.requests)

    @property
    def body_tokens(self) -> int:
        return sum(len(r.prompt_ids) - 1 for r in self.requests)

    def work(self, spec: ModelSpec, params: SamplingParams) -> Work:
        """The arrays that the loop on the device starts from."""
        counts = [len(r.sample_ids) for r in self.requests]
        bodies = np.array([len(r.prompt_ids) - 1 for r in self.requests])
        limits = [
            r.limits if r.limits is not None else (params.max_new_tokens,) * len(r.sample_ids)
            for r in self.requests
        ]
        return Work(
            sample_ids=np.array([i for r in self.requests for i in r.sample_ids], dtype=np.uint64),
            prompts=np.repeat(np.arange(len(self.requests)), counts),
            limits=np.array([n for row in limits for n in row]),
            body_starts=(np.cumsum(bodies) - bodies) * spec.head_dim,
            bodies=bodies,
            last_tokens=np.array([r.prompt_ids[-1] for r in self.requests]),
        )


class Layout(NamedTuple):
    """What a call decodes, and where it keeps it."""

    waves: list[Wave]
    """In the order of the requests."""
    size: ArenaSize
    """Of the arena that serves them all: its slots, or its pages."""
    rows: int
    """Decoded at a time, at most."""
    pages: PageSize
    """NO_PAGES where every row can have a slot for the longest completion."""


def plan_waves(
    requests: Sequence[Request],
    params: SamplingParams,
    spec: ModelSpec,
    *,
    slots: int,
    budget: int,
    element_size: int,
) -> Layout:
    """Waves and the arena that serves them within `budget` bytes: with a slot a row where it holds
    as many slots as are wanted, else with pages.

    Raises UserError where not even one sequence fits, and says how many bytes it takes.
    """
    token = ArenaSize(1, 0, 0).num_bytes(spec, element_size)
    longest = max(len(r.prompt_ids) - 1 for r in requests)
    least = token * (longest + params.max_new_tokens)
    if least > budget:
        raise UserError(
            f"no memory for one sequence of {longest + 1 + params.max_new_tokens} tokens: it takes "
            f"{least / 2**30:.2f} GiB and {max(budget, 0) / 2**30:.2f} GiB are free; "
            "lower max_new_tokens"
        )
    room = min(int(budget * PROMPT_SHARE), budget - token * params.max_new_tokens)
    room = max(room, token * longest)
    waves = _split(requests, room // token, OUTPUT_BYTES // (8 * params.max_new_tokens))
    tokens = max(wave.body_tokens for wave in waves)
    wanted = min(slots, MOST_ROWS, max(wave.num_samples for wave in waves))
    positions = budget // token - tokens
    fitting = max(positions // params.max_new_tokens, 1)
    pages = _pages(wanted, positions, params.max_new_tokens) if fitting < wanted else NO_PAGES
    if pages.total:
        rows, size = min(round_rows(wanted), pages.total), ArenaSize(0, pages.total, PAGE)
    else:
        rows = min(round_rows(wanted), fitting)
        size = ArenaSize(0, rows, params.max_new_tokens)
    grains = -(-max(tokens, 1) // PROMPT_GRAIN) * PROMPT_GRAIN
    rounded = size._replace(prompt_tokens=grains)
    if rounded.num_bytes(spec, element_size) > budget:
        rounded = size._replace(prompt_tokens=max(tokens, 1))
    return Layout(waves, rounded, rows, pages)


def _pages(wanted: int, positions: int, longest: int) -> PageSize:
    """Pages in room for so many `positions`; none where slots are as good."""
    per_row, total = -(-longest // PAGE), min(positions // PAGE, wanted * -(-longest // PAGE))
    # Five digits: a later call that finds a little less finds room in the same arena.
    total -= total % (1 << max(total.bit_length() - 5, 0))
    return PageSize(total, per_row, PAGE) if total > per_row > 1 else NO_PAGES


def round_rows(rows: int) -> int:
    """Rows of a captured step: few sizes, little waste."""
    return max(round_size(rows), LEAST_ROWS)


def _split(requests: Sequence[Request], max_tokens: int, max_samples: int) -> list[Wave]:
    waves: list[Wave] = []
    members: list[Request] = []
    tokens = samples = 0
    for request in requests:
        body, count = len(request.prompt_ids) - 1, len(request.sample_ids)
        is_full = tokens + body > max_tokens or samples + count > max_samples
        if members and is_full:
            waves.append(Wave(members))
            members, tokens, samples = [], 0, 0
        members.append(request)
        tokens += body
        samples += count
    return [*waves, Wave(members)]
