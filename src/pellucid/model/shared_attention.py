"""Attention over packs in which every prompt stands once, however many samples share it.

    tokens    [ body of prompt 0 | body of prompt 1 | … | own rows of prompt 0 | own rows of … ]

A prompt's body is all of it but the last token; a sample's own row starts with that token. A body
attends causally to itself, an own row to the whole of its body and causally to itself: as if each
sample stood in a row of its own, behind a copy of its prompt.

Shapes: T tokens, P prompts, N samples of a prompt, S their longest own row, L body, H heads, J
key/value heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.flash import (
    BodyParts,
    Keys,
    Segments,
    attend_exactly,
    attend_flash,
    flash_ready,
)
from pellucid.model.rope import Rotation

BLOCK = 128
"""Keys that the backward kernel takes at a time."""
PARALLEL_BLOCKS = 40
"""Blocks of body keys worth having: with 14 heads, four for each multiprocessor of an H200."""
SMALLEST_PART = 256
"""Queries below which more parallel blocks would not make up for reading one more body."""


class SharedPromptAttention:
    """The `attend` of a pack: flash attention on CUDA in half precision, plain torch elsewhere.

    Example: body_lengths [2, 0] and own_lengths [[3, 1], [2]] describe 8 tokens: a body of two,
    three own tokens of its first sample, one of its second, and a one-token prompt's sample of two.
    """

    def __init__(
        self,
        body_lengths: Sequence[int],
        own_lengths: Sequence[Sequence[int]],
        device: torch.device | str = "cpu",
    ) -> None:
        """`body_lengths` [P] may be 0; `own_lengths`: of each prompt's samples, at least 1 each."""
        assert len(body_lengths) == len(own_lengths), "every prompt has samples"
        self.body_lengths = [int(n) for n in body_lengths]
        self.own_lengths = [[int(n) for n in lengths] for lengths in own_lengths]
        assert all(lengths and min(lengths) > 0 for lengths in self.own_lengths), "no row is empty"
        self.device = torch.device(device)
        self.num_body_tokens = sum(self.body_lengths)
        both = zip(self.body_lengths, self.own_lengths, strict=True)
        self.context = max(body + max(own) for body, own in both)
        """Positions that occur: 0 … context - 1."""
        bodies = [n for n in self.body_lengths if n]
        own = [n for lengths in self.own_lengths for n in lengths]
        lengths = np.array(bodies + own)
        first = np.zeros_like(lengths)
        first[len(bodies) :] = np.repeat(self.body_lengths, [len(o) for o in self.own_lengths])
        self._lengths, self._starts = lengths, _starts(lengths)
        offsets = np.repeat(self._starts[:-1] - first, lengths)
        self.positions = upload(np.arange(self._starts[-1]) - offsets, self.device)
        """Position of each token in its sequence [T] int64."""

    def __call__(self, layer: int, heads: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = rotation.split(heads, self.positions)
        return self.attend(q, k, v, exact=rotation.ops.is_exact)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, exact: bool = False) -> Tensor:
        """Attention output [T, H * K] of rotated q [T, H, K], k [T, J, K] and v [T, J, K].

        exact: compute a token's output with bits that depend on its sequence alone (CUDA only).
        """
        assert q.shape[0] == len(self.positions), "one query for each token of the pack"
        if exact:
            return attend_exactly(q, k, v, self._segments, self._keys)
        if flash_ready(q):
            return attend_flash(q, k, v, self._segments)
        return self._plain(q, k, v)

    @cached_property
    def _segments(self) -> Segments:
        own = [sum(lengths) for lengths in self.own_lengths]
        return Segments(
            num_body_tokens=self.num_body_tokens,
            rows=upload(self._starts.astype(np.int32), self.device),
            longest_row=int(self._lengths.max()),
            groups=upload(_starts(own).astype(np.int32), self.device),
            largest_group=max(own),
            bodies=upload(_starts(self.body_lengths).astype(np.int32), self.device),
            longest_body=max(self.body_lengths),
            parts=self._parts(own),
        )

    def _parts(self, own: Sequence[int]) -> BodyParts:
        """`own` [P]: own tokens of each group."""
        sizes, lengths = np.array(own), np.array(self.body_lengths)
        num_blocks = -(-lengths // BLOCK).sum()
        most = -(-int(sizes.max()) // SMALLEST_PART)
        num = max(1, min(PARALLEL_BLOCKS // max(num_blocks, 1), most))
        part = np.arange(num)[:, None]
        # A body's copies stand one after another, as the parts of its group do.
        queries = (_starts(sizes)[:-1] + sizes * part // num).T.flatten()
        offsets = np.arange(self.num_body_tokens) + np.repeat(
            (num - 1) * _starts(lengths)[:-1], lengths
        )
        copies = offsets + part * np.repeat(lengths, lengths)
        copied = np.empty(copies.size, np.int64)
        copied[copies] = np.arange(self.num_body_tokens)
        bodies = _starts(np.repeat(lengths, num))
        return BodyParts(
            queries=upload(np.append(queries, sizes.sum()).astype(np.int32), self.device),
            largest=-(-int(sizes.max()) // num),
            bodies=upload(bodies.astype(np.int32), self.device),
            copied=upload(copied, self.device),
            copies=upload(copies, self.device),
        )

    @cached_property
    def _keys(self) -> Keys:
        own = [sum(lengths) for lengths in self.own_lengths]
        num_prompts = len(self.body_lengths)
        # Tokens of bodies count as one more group, without a body.
        group = np.repeat([num_prompts, *range(num_prompts)], [self.num_body_tokens, *own])
        body_starts = np.append(_starts(self.body_lengths)[:-1], 0)
        body_lengths = np.append(self.body_lengths, 0).astype(np.int32)
        row = np.repeat(self._starts[:-1], self._lengths)
        return Keys(
            own_start=upload(row, self.device),
            own_length=upload((np.arange(len(row)) - row + 1).astype(np.int32), self.device),
            body_start=upload(body_starts[group], self.device),
            body_length=upload(body_lengths[group], self.device),
            group=upload(group.astype(np.int32), self.device),
            longest_own=int(self._lengths.max()),
            longest_body=max(self.body_lengths),
        )

    def _plain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Group by group, so that neither padding nor masks grow with the number of prompts."""
        bodies = self._body_grid
        cut = self.num_body_tokens
        parts = [] if bodies is None else [bodies.causal(q[:cut], k[:cut], v[:cut])]
        start, body = cut, 0
        for length, grid in zip(self.body_lengths, self._own_grids, strict=True):
            rows, before = slice(start, start + grid.num_tokens), slice(body, body + length)
            parts.append(grid.causal(q[rows], k[rows], v[rows], k[before], v[before]))
            start, body = rows.stop, before.stop
        return torch.cat(parts)

    @cached_property
    def _body_grid(self) -> _Grid | None:
        bodies = [n for n in self.body_lengths if n]
        return _Grid(bodies, 0, self.device) if bodies else None

    @cached_property
    def _own_grids(self) -> list[_Grid]:
        both = zip(self.own_lengths, self.body_lengths, strict=True)
        return [_Grid(own, body, self.device) for own, body in both]


class _Grid:
    """Rows of N sequences, one after another, spread onto a padded grid [N, S], behind L tokens
    that all of them see.

    A row's padding follows its tokens, so that no token sees it: causality is all the mask there
    is.
    """

    def __init__(self, lengths: Sequence[int], num_shared: int, device: torch.device) -> None:
        self.num, self.longest, self.num_tokens = len(lengths), max(lengths), sum(lengths)
        self.index = None
        """Place of each token on the grid; None: every row is full."""
        if self.num * self.longest > self.num_tokens:
            padding = np.arange(self.num) * self.longest - _starts(lengths)[:-1]
            index = np.arange(self.num_tokens) + np.repeat(padding, lengths)
            self.index = upload(index, device)
        self.mask = None
        if num_shared:
            shape = (self.longest, num_shared + self.longest)
            self.mask = torch.ones(shape, dtype=torch.bool, device=device).tril(num_shared)

    def causal(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        shared_k: Tensor | None = None,
        shared_v: Tensor | None = None,
    ) -> Tensor:
        """[tokens, H * K] of the rows' q [tokens, H, K], k and v, and what all rows share [L, J,
        K].
        """
        group = q.shape[1] // k.shape[1]
        k, v = self._behind(shared_k, self._spread(k)), self._behind(shared_v, self._spread(v))
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(
            self._spread(q), k, v, attn_mask=self.mask, is_causal=self.mask is None
        )
        out = out.transpose(1, 2).flatten(0, 1)
        return (out if self.index is None else out[self.index]).flatten(1)

    def _behind(self, shared: Tensor | None, own: Tensor) -> Tensor:
        if self.mask is None or shared is None:
            return own
        return torch.cat([shared.transpose(0, 1).expand(self.num, -1, -1, -1), own], dim=2)

    def _spread(self, x: Tensor) -> Tensor:
        """[rows' tokens, H, K] -> [N, H, S, K], zeros where a row is shorter than the longest."""
        if self.index is not None:
            x = x.new_zeros(self.num * self.longest, *x.shape[1:]).index_copy(0, self.index, x)
        return x.view(self.num, self.longest, *x.shape[1:]).transpose(1, 2)


def upload(values: np.ndarray, device: torch.device | str) -> Tensor:
    """A host array on a device; the host goes on before the copy to a CUDA device is done."""
    host = torch.from_numpy(values)
    if torch.device(device).type != "cuda":
        return host.to(device)
    # Page-locked memory, without which the copy would wait; torch keeps it until the copy is done.
    return host.pin_memory().to(device, non_blocking=True)


def _starts(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """[n] lengths -> [n + 1] int64: where each begins, and the end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
