"""What the resident engine decodes at a time: as many prompts and slots as the memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pellucid.errors import UserError
from pellucid.model.spec import ModelSpec
from pellucid.records import Request, SamplingParams
from pellucid.rollout.arena import ArenaSize
from pellucid.rollout.loop_buffers import Work
from pellucid.rollout.scheduler import round_size

PROMPT_SHARE = 0.5
"""Share of the memory that bodies may take before the requests are split into waves."""
OUTPUT_BYTES = 2**30
"""Sampled tokens and log-probabilities that a wave may keep on the device."""
PROMPT_GRAIN = 4096
"""Prompt tokens are rounded up to it, so that a later call finds room in the same arena."""
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


def plan_waves(
    requests: Sequence[Request],
    params: SamplingParams,
    spec: ModelSpec,
    *,
    slots: int,
    budget: int,
    element_size: int,
) -> tuple[list[Wave], ArenaSize]:
    """Waves in the order of the requests, and the arena that serves them all within `budget` bytes.

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
    own = token * params.max_new_tokens
    room = max(int(budget * PROMPT_SHARE), token * longest)
    waves = _split(requests, room // token, OUTPUT_BYTES // (8 * params.max_new_tokens))
    tokens = max(wave.body_tokens for wave in waves)
    wanted = min(slots, MOST_ROWS, max(wave.num_samples for wave in waves))
    fitting = max((budget - tokens * token) // own, 1)
    rows = round_rows(wanted) if round_rows(wanted) <= fitting else fitting
    grains = -(-max(tokens, 1) // PROMPT_GRAIN) * PROMPT_GRAIN
    rounded = grains if (grains * token + rows * own) <= budget else max(tokens, 1)
    return waves, ArenaSize(rounded, rows, params.max_new_tokens)


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
