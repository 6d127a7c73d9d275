"""Whether tokens that read their keys together get the bits that each has alone: tried once.

A tile of 64 rows is multiplied by other instructions than one of 16, and sums across the threads of
a warp are the compiler's. On an H200 with Triton 3.6 all are alike, which no manual promises; so
random sequences decide, once a process and shape.

Shapes: T tokens, H query heads, J key/value heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from pellucid.kernels.attention import KeySource, attend_rows
from pellucid.kernels.attention_causal import attend_tokens

LENGTHS = (700, 1, 2, 61, 257, 5, 130)
PROMPTS = (300, 0, 64, 7, 1, 512, 90)
"""Tokens of the sequences tried and of the prompts before them: in one split and in several, and
tiles in which sequences meet."""

_agreements: dict[tuple[object, ...], bool] = {}


def tokens_agree(q: Tensor, num_kv: int) -> bool:
    """Whether `attend_tokens` gives queries like these [T, H, K] the bits of `attend_rows`.

    Under capture, where nothing can be tried, only if that was found before; no on a CPU, whose
    interpreter has no tensor cores.
    """
    return q.is_cuda and shape_agrees(q.shape[1], num_kv, q.shape[2], q.dtype, q.device)


def shape_agrees(*shape: Any) -> bool:
    """The same for the last arguments of `random_pack`."""
    if shape not in _agreements:
        if torch.cuda.is_current_stream_capturing():
            return False
        _agreements[shape] = _try(random_pack(LENGTHS, PROMPTS, *shape))
    return _agreements[shape]


def _try(pack: Pack) -> bool:
    try:
        together = pack.attend_together()
    except OutOfResources:  # a multiprocessor with less shared memory than Hopper's
        return False
    return all(map(torch.equal, together, pack.attend_alone()))


class Pack(NamedTuple):
    """Sequences, each token of which looks at its own past and at its sequence's prompt."""

    fused: Tensor
    """[T, H + 2J, K]: queries, keys and values."""
    start: Tensor
    """[T] int64, in tokens."""
    length: Tensor
    """[T] int32."""
    group: Tensor
    """[T] int32: the number of its sequence."""
    prompt: Tensor
    """[2, J, P, K]: keys and values of all prompts."""
    prompt_start: Tensor
    """[T] int64, in tokens of `prompt`."""
    prompt_length: Tensor
    """[T] int32."""

    def attend_together(self) -> tuple[Tensor, Tensor]:
        """Output [T, H * K] and log-sum-exp [T, H], by `attend_tokens`."""
        q, own, prompt = self._sources()
        return attend_tokens(q, own, prompt, num_kv=self.prompt.shape[1])

    def attend_alone(self) -> tuple[Tensor, Tensor]:
        """The same, by `attend_rows`."""
        q, own, prompt = self._sources()
        longest = int(self.length.max()), int(self.prompt_length.max())
        found = attend_rows(
            q, own, prompt, self.group, num_kv=self.prompt.shape[1], max_own=longest[0],
            max_prompt=longest[1], with_lse=True,
        )  # fmt: skip
        assert isinstance(found, tuple)
        return found

    def _sources(self) -> tuple[Tensor, KeySource, KeySource]:
        num_kv, head_dim = self.prompt.shape[1], self.fused.shape[2]
        q, k, v = self.fused.split([self.fused.shape[1] - 2 * num_kv, num_kv, num_kv], 1)
        apart = self.fused.stride(0)
        own = KeySource(k, v, self.start * apart, self.length, head_dim, apart)
        starts, apart = self.prompt_start * head_dim, self.prompt.stride(1)
        return q, own, KeySource(*self.prompt, starts, self.prompt_length, apart, head_dim)


def random_pack(
    lengths: Sequence[int],
    prompts: Sequence[int],
    num_heads: int,
    num_kv: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Pack:
    """Sequences of `lengths` tokens, with prompts of `prompts` tokens, of normal numbers from one
    fixed seed."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device).to(dtype)

    count = torch.tensor(lengths, device=device)
    group = torch.repeat_interleave(count)
    start = (count.cumsum(0) - count)[group]
    sizes = torch.tensor(prompts, device=device)
    return Pack(
        fused=normal(len(group), num_heads + 2 * num_kv, head_dim),
        start=start,
        length=(torch.arange(len(group), device=device) - start + 1).int(),
        group=group.int(),
        prompt=normal(2, num_kv, max(sum(prompts), 1), head_dim),
        prompt_start=(sizes.cumsum(0) - sizes)[group],
        prompt_length=sizes[group].int(),
    )
