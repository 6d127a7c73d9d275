"""The least time a chip could need for a job: bytes over its bandwidth or flops over its speed.

Every step of decoding reads the body's weights and the head once, each row's own keys and values,
and the prompt's once for all samples of its group. A step takes the larger of bytes / bandwidth
and flops / speed; steps add up; the prompts are run once before. All samples decode together.

Training counts, per token fed, 6 flops a body parameter; per completion token, 6 flops a parameter
of the head; per layer and (query, key) pair, 12 · heads · head dimension (products of queries with
keys and of probabilities with values: 2 flops each, once forward and twice backward). Activations
computed again do not count. An optimiser step with float32 state moves 30 bytes a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.model.spec import ModelSpec

BYTES_PER_S = 4.3e12
FLOPS_PER_S = 790e12
"""One H200: a large device copy, and a bf16 matrix product of 8192³, as measured."""

WEIGHT_BYTES = 2
OPTIMIZER_BYTES = 30
"""Per parameter: float32 master, gradient and two moments read, all but the gradient written, and
the bfloat16 weight written."""

TRAINING_FORMULA = (
    "6*N_body*fed tokens + 6*V*D*completion tokens + 12*layers*heads*head_dim*(query, key) pairs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Samples of one prompt.

    Example: Group(prompt=128, completions=(512, 40))
    """

    prompt: int
    """Tokens of the prompt; all but the last are its body, which is run once."""
    completions: tuple[int, ...]
    """Tokens of each completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Seconds, and what they are made of."""

    seconds: float
    num_bytes: float
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a training pass goes through."""

    fed: int
    """Tokens through the body."""
    completion: int
    """Tokens through the head."""
    pairs: int
    """(query, key) pairs of attention, for one layer and one head."""


def head_parameters(spec: ModelSpec) -> int:
    return spec.vocab_size * spec.width


def body_parameters(spec: ModelSpec) -> int:
    """All but the embedding and the head."""
    tables = 1 if spec.is_head_tied else 2
    return spec.num_parameters - tables * head_parameters(spec)


def kv_bytes(spec: ModelSpec) -> int:
    """Keys and values of one token."""
    return 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * WEIGHT_BYTES


def rollout_floor(spec: ModelSpec, groups: Sequence[Group]) -> Floor:
    """Prefill of every prompt's body and decoding of all samples side by side."""
    prefill = _prefill_floor(spec, groups)
    steps = [_step_floor(spec, *sizes) for sizes in _decode_steps(groups)]
    parts = [prefill, *steps]
    return Floor(
        seconds=sum(p.seconds for p in parts),
        num_bytes=sum(p.num_bytes for p in parts),
        flops=sum(p.flops for p in parts),
    )


def training_counts(groups: Sequence[Group], *, shares_prompts: bool) -> Counts:
    """What is fed; `shares_prompts`: a prompt's body goes through once a group, not once a sample.

    The last token of a completion predicts nothing and is not fed.
    """
    fed = completion = pairs = 0
    for group in groups:
        body = group.prompt - 1
        bodies = 1 if shares_prompts else len(group.completions)
        fed += bodies * body
        pairs += bodies * _triangle(body)
        for length in group.completions:
            fed += length
            completion += length
            pairs += length * body + _triangle(length)
    return Counts(fed=fed, completion=completion, pairs=pairs)


def training_flops(spec: ModelSpec, counts: Counts) -> float:
    """Forward and backward, by TRAINING_FORMULA."""
    attention = 12 * spec.num_layers * spec.num_heads * spec.head_dim * counts.pairs
    matrices = body_parameters(spec) * counts.fed + head_parameters(spec) * counts.completion
    return 6.0 * matrices + attention


def training_floor_s(spec: ModelSpec, counts: Counts, *, has_optimizer: bool = True) -> float:
    """Seconds of one update; moving the optimiser's state cannot overlap with computing it."""
    moved = OPTIMIZER_BYTES * spec.num_parameters if has_optimizer else 0
    return training_flops(spec, counts) / FLOPS_PER_S + moved / BYTES_PER_S


def step_floor_s(spec: ModelSpec, groups: Sequence[Group]) -> float:
    """Seconds of a whole step: the rollout and one update."""
    counts = training_counts(groups, shares_prompts=True)
    return rollout_floor(spec, groups).seconds + training_floor_s(spec, counts)


def _decode_steps(groups: Sequence[Group]) -> list[tuple[int, int, int]]:
    """For each step: live rows, tokens of keys and values read, (row, token) pairs attended."""
    longest = max((max(g.completions) for g in groups), default=0)
    rows, shared, attended = ([0] * (longest + 1) for _ in range(3))
    for group in groups:
        body = group.prompt - 1
        for length in group.completions:
            rows[length - 1] += 1
            attended[length - 1] += body
        shared[max(group.completions) - 1] += body
    steps = []
    live = prompts = pairs = 0
    for step in reversed(range(longest)):
        live, prompts, pairs = live + rows[step], prompts + shared[step], pairs + attended[step]
        own = live * (step + 1)
        steps.append((live, prompts + own, pairs + own))
    return steps[::-1]


def _step_floor(spec: ModelSpec, live: int, read: int, pairs: int) -> Floor:
    parameters = body_parameters(spec) + head_parameters(spec)
    num_bytes = WEIGHT_BYTES * parameters + kv_bytes(spec) * read
    return _floor(num_bytes, 2 * parameters * live + _attention_flops(spec, pairs))


def _prefill_floor(spec: ModelSpec, groups: Sequence[Group]) -> Floor:
    bodies = [g.prompt - 1 for g in groups]
    flops = 2 * body_parameters(spec) * sum(bodies)
    flops += _attention_flops(spec, sum(_triangle(b) for b in bodies))
    return _floor(WEIGHT_BYTES * body_parameters(spec), flops)


def _attention_flops(spec: ModelSpec, pairs: int) -> int:
    return 4 * spec.num_layers * spec.num_heads * spec.head_dim * pairs


def _floor(num_bytes: float, flops: float) -> Floor:
    seconds = max(num_bytes / BYTES_PER_S, flops / FLOPS_PER_S)
    return Floor(seconds=seconds, num_bytes=num_bytes, flops=flops)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
