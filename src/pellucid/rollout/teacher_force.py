"""Recorded completions run through the weights again: which token each counter gives, and how near
the recorded one was.

One forward pass over prompt and completion gives the distribution at every position; the uniform of
(seed, sample id, position) and the definition in `sampling` give the token that an honest sampler
would have drawn. Rounding differs between prefill and decoding, so a draw that fell close to the
border between two tokens may come out on the other side: `gap` says how far that was.

Shapes: n tokens of a completion, R rows of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pellucid.algo.head import float32_logits
from pellucid.model.packed import Packing
from pellucid.model.shared_attention import SharedPromptAttention
from pellucid.model.transformer import Decoder
from pellucid.records import SamplingParams
from pellucid.rollout.philox import uniforms
from pellucid.rollout.sampling import BLOCK, Sampler, truncate

PACK_TOKENS = 8192
"""Prompts and completions in one forward pass."""
CHUNK_BYTES = 1 << 28
"""Of float32 logits at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A completion as its record has it."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """At least one."""
    sample_id: int
    seed: int
    params: SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What the weights say of a recorded completion; arrays [n]."""

    token_ids: NDArray[np.int64]
    """Re-derived, each after the recorded tokens before it."""
    gap: NDArray[np.float64]
    """Share of the probability between the draw and the recorded token's part; 0 for a match. Of
    greedy sampling: what the recorded token lacks of the likeliest one's probability."""
    logprobs: NDArray[np.float64]
    """Of the recorded tokens, T, top-k and top-p applied; -inf where they were cut."""
    entropy: NDArray[np.float64]
    """Of the distribution drawn from, nats: minus the expected log-probability."""
    variance: NDArray[np.float64]
    """Of the log-probability of a token drawn from it."""


def replay(model: Decoder, samples: Sequence[Recorded]) -> list[Replayed]:
    """Replays completions, several in a pass. Deterministic for a machine and an order."""
    packing = Packing(model)
    longest = max((len(s.prompt_ids) + len(s.token_ids) for s in samples), default=0)
    model.reserve_context(longest)
    replayed: list[Replayed] = []
    with torch.inference_mode(), packing.attached():
        for pack in _packs(samples):
            # As the trainer packs them: there the same weights give the same bits as sampling did,
            # where the engine is exact.
            bodies = [s.prompt_ids[:-1] for s in pack]
            rows = [(s.prompt_ids[-1], *s.token_ids[:-1]) for s in pack]
            device = model.embedding.weight.device
            tokens = torch.tensor([t for row in (*bodies, *rows) for t in row], device=device)
            lengths = [len(body) for body in bodies]
            attend = SharedPromptAttention(lengths, [[len(row)] for row in rows], device)
            hidden = model(tokens, attend)
            ends = sum(lengths) + np.cumsum([len(row) for row in rows])
            for sample, end in zip(pack, ends, strict=True):
                own = hidden[end - len(sample.token_ids) : end].to(packing.head.dtype)
                replayed.append(_of_hidden(own, packing.head, sample))
    return replayed


def _packs(samples: Sequence[Recorded]) -> Iterator[list[Recorded]]:
    pack: list[Recorded] = []
    size = 0
    for sample in samples:
        length = len(sample.prompt_ids) + len(sample.token_ids)
        if pack and size + length > PACK_TOKENS:
            yield pack
            pack, size = [], 0
        pack.append(sample)
        size += length
    if pack:
        yield pack


def _of_hidden(hidden: Tensor, head: Tensor, sample: Recorded) -> Replayed:
    """From the hidden states [n, D] before each recorded token."""
    count, vocab = len(sample.token_ids), head.shape[0]
    draws = uniforms(sample.seed, np.array([sample.sample_id], np.uint64), np.arange(count))[0]
    u = torch.from_numpy(draws).to(hidden.device)
    recorded = torch.tensor(sample.token_ids, device=hidden.device)
    sampler = Sampler(vocab, sample.params, hidden.device)
    parts = []
    step = max(1, CHUNK_BYTES // (4 * vocab))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        logits = float32_logits(hidden[rows], head)
        parts.append(_of_logits(logits, u[rows], recorded[rows], sampler))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    tokens, gap, logprobs, entropy, variance = columns
    return Replayed(
        token_ids=tokens, gap=gap, logprobs=logprobs, entropy=entropy, variance=variance
    )


def _of_logits(
    logits: Tensor, u: Tensor, recorded: Tensor, sampler: Sampler
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tokens, gap, log-probabilities, entropy, variance [R] from logits [R, V]."""
    params = sampler.params
    derived, _ = sampler(logits, u)
    weights = (logits - logits.amax(-1, keepdim=True)) / (params.temperature or 1.0)
    weights = F.pad(weights.exp_(), (0, -logits.shape[1] % BLOCK))
    if params.temperature != 0:
        truncate(weights, params.top_k, params.top_p)
    exact = weights.double()
    total = exact.sum(-1, keepdim=True)
    own = exact.gather(1, recorded[:, None])
    if params.temperature == 0:
        gap = ((exact.amax(-1, keepdim=True) - own) / total)[:, 0]
    else:
        end = exact.cumsum(-1).gather(1, recorded[:, None])
        target = u[:, None] * total
        beyond = torch.maximum(target - end, end - own - target).clamp_min(0.0)
        gap = (beyond / total)[:, 0].masked_fill(derived == recorded, 0.0)
    p = exact / total
    logs = torch.where(p > 0, p, 1.0).log()
    mean = (p * logs).sum(-1)
    variance = ((p * logs * logs).sum(-1) - mean * mean).clamp_min(0.0)
    return derived, gap, (own / total)[:, 0].log(), -mean, variance
