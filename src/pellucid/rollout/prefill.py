"""Prompts are run once per request; all of a request's samples get copies of the keys and values.

The last token of a prompt is left out: decoding starts from it, so that the first sampled token
comes from the same arithmetic as all others.

Shapes: R layers, T tokens, J key/value heads, K head dimension, L prompt tokens less one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from pellucid.model.attention import PackedCausal
from pellucid.model.rope import Rotation
from pellucid.model.shared_attention import upload
from pellucid.model.transformer import Decoder
from pellucid.records import Request
from pellucid.rollout.arena import KVArena, PrefillAttention

CPU_TOKENS, CUDA_TOKENS = 2048, 16384
"""Prompt tokens run at once: enough to keep the device busy, little enough to keep activations
small."""


class PromptStore:
    """Keys and values of the prompts whose samples are about to start."""

    def __init__(self, model: Decoder, requests: Sequence[Request]) -> None:
        self.model = model
        self.requests = requests
        self.device = model.embedding.weight.device
        self._ready: dict[int, tuple[Tensor, Tensor]] = {}
        self._next = 0

    def get(self, request: int) -> tuple[Tensor, Tensor]:
        """Keys and values [R, J, L, K] of a request's prompt. Requests come in order."""
        while request not in self._ready:
            self._prefill(self._next_batch())
        for done in [r for r in self._ready if r < request]:
            del self._ready[done]
        return self._ready[request]

    def _next_batch(self) -> list[int]:
        limit = CUDA_TOKENS if self.device.type == "cuda" else CPU_TOKENS
        batch: list[int] = []
        tokens = 0
        while self._next < len(self.requests):
            length = len(self.requests[self._next].prompt_ids)
            if batch and tokens + length > limit:
                break
            batch.append(self._next)
            tokens += length
            self._next += 1
        return batch

    def _prefill(self, batch: list[int]) -> None:
        prompts = [self.requests[r].prompt_ids[:-1] for r in batch]
        lengths = [len(p) for p in prompts]
        flat = _flat(prompts, self.device)
        spec = self.model.spec
        if len(flat) == 0:
            shape = (spec.num_layers, 0, spec.num_kv_heads, spec.head_dim)
            empty = self.model.embedding.weight.new_zeros(shape)
            keys, values = empty, empty
        else:
            full = [n for n in lengths if n]
            attend = _Recorder(PackedCausal(full, self.device))
            self.model(flat, attend)
            keys, values = torch.stack(attend.keys), torch.stack(attend.values)
        for r, k, v in zip(batch, keys.split(lengths, 1), values.split(lengths, 1), strict=True):
            self._ready[r] = (k.transpose(1, 2), v.transpose(1, 2))


class _Recorder:
    """Packed causal attention that also keeps the keys and values of each layer [T, J, K]."""

    def __init__(self, packed: PackedCausal) -> None:
        self.packed = packed
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, heads: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = rotation.split(heads, self.packed.positions)
        self.keys.append(k)
        self.values.append(v)
        return self.packed.attend(q, k, v, exact=rotation.ops.is_exact)


def prefill_bodies(model: Decoder, arena: KVArena, requests: Sequence[Request]) -> None:
    """Runs the bodies of all prompts and stores their keys and values end to end; waits for
    nothing."""
    first, device = 0, arena.own.device
    for bodies in _batches([r.prompt_ids[:-1] for r in requests]):
        packed = PackedCausal([len(body) for body in bodies], device)
        flat = _flat(bodies, device)
        model(flat, PrefillAttention(arena, packed, first))
        first += len(flat)


def _flat(prompts: Sequence[tuple[int, ...]], device: torch.device) -> Tensor:
    """All tokens, one prompt after another [T] int64, without waiting for the device."""
    return upload(np.fromiter(chain.from_iterable(prompts), np.int64), device)


def _batches(bodies: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Bodies that are not empty, in order, as many at a time as are worth running together."""
    batch: list[tuple[int, ...]] = []
    for body in bodies:
        if batch and sum(map(len, batch)) + len(body) > CUDA_TOKENS:
            yield batch
            batch = []
        if body:
            batch.append(body)
    if batch:
        yield batch
