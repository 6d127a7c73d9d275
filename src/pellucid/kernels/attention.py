"""Attention of single query rows to keys of their own and to the keys of a shared prompt.

It serves decoding, where a row is a slot of the rollout engine, and the trainer's exact forward,
where a row is a token: the same kernels, so the same bits. Positions of the prompt and of the row
fall into splits of 256, counted from position 0 of each; a split is an online softmax over tiles
of 64 keys in float32, weights rounded to the values' dtype for their product; splits are merged
one after another, the prompt's before the row's. A row's bits therefore depend on nothing but its
queries and keys: not on B, its place, its neighbours or the bounds.

Shapes: B rows, H query heads, J key/value heads, G = H / J, K head dimension.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.kernels.attention_merge import SPLIT, TILE, merge_kernel
from pellucid.kernels.attention_own import HEADS, own_kernel
from pellucid.kernels.attention_prompt import prompt_kernel
from pellucid.kernels.launch import pdl

MAX_HEAD_DIM = 128
PROGRAMS = 1024
"""Programs of the own kernel worth having: with them a H200 reads memory at full speed, and more
would only be splits without a position, or parts to store and merge."""
PROMPT_PROGRAMS = 96
"""Programs of the prompt kernel from which none of its splits needs one of its own."""
TURN_PROGRAMS = 512
"""Programs of the prompt kernel up to which the groups of a tile are shared out among several."""
FORKS = True
"""Whether few rows' own and prompt kernels run side by side, on two streams. For measurements: it
does not change a bit."""
ROW_TILE = 16
"""Rows that may share a read of their prompt: as many as a GRPO group mostly has."""
FEW_SIBLINGS = 8
"""Rows of one prompt up to which tiles have half the height: the other rows of a tile are waste."""

TUNING: dict[str, dict[str, int]] = {"own": {}, "prompt": {}, "merge": {}}
"""Overrides for measurements: num_warps of all three, num_stages and programs (see the constants
above) of "own" and "prompt", turns (TURN_PROGRAMS) and few (FEW_SIBLINGS) of "prompt", STAGES of
"merge". Warps belong to the arithmetic, as a sum is split among them: change them for all launches
or none. Nothing else here changes a bit."""


class KeySource(NamedTuple):
    """Where the keys and values of each row lie. Strides and starts are in elements and multiples
    of 8, as they are whenever whole heads are stored."""

    k: Tensor
    v: Tensor
    """Same layout as `k`: any, as far as the fields below describe it."""
    start: Tensor
    """[B] int64: element of position 0 of KV head 0; with pages, where the row is in `pages`."""
    length: Tensor
    """[B] int32: positions to look at, 0 for none."""
    head_stride: int
    position_stride: int
    pages: Tensor | None = None
    """int32: pages of a row's positions, `page` positions each, in order; None: they lie in one
    piece. Of own positions only."""
    page: int = 0
    """A multiple of 64, so that a tile lies in one page."""
    page_stride: int = 0
    """Elements between two pages."""


class _Parts(NamedTuple):
    """Parts of softmaxes as the kernels store them; only those with a position are written."""

    weighted: Tensor
    """[N, B, H, K] float32."""
    stats: Tensor
    """[N, B, H, 2] float32."""
    planes: int
    """N: 1 where a row's parts are already merged."""


def supports(head_dim: int, num_heads: int, num_kv: int) -> bool:
    """Whether the kernels take these shapes: K a multiple of 16 up to 128, G up to 16."""
    shape_fits = head_dim % 16 == 0 and 0 < head_dim <= MAX_HEAD_DIM
    return shape_fits and num_heads % num_kv == 0 and num_heads // num_kv <= HEADS.value


def attend_rows(
    q: Tensor,
    own: KeySource,
    prompt: KeySource | None,
    group: Tensor | None,
    *,
    num_kv: int,
    max_own: int,
    max_prompt: int,
    siblings: int = ROW_TILE,
    scale: float | None = None,
    with_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q k) v over the prompt's and the row's own positions together: [B, H * K], q's dtype,
    and `with_lse` the natural logarithm of the sum of exponentials [B, H], float32.

    `q` [B, H, K], a row's heads adjacent. `group` [B] int32, 0 up to 2**31 - 2: rows with one id
    have one prompt, and 16 of them read it together where they are adjacent; None: each row for
    itself. `max_own`, `max_prompt`: no length is above them. `siblings`: about how many rows have
    one prompt at most; the speed depends on it, not the result. These and B alone fix the launch,
    so that a CUDA graph holds for all lengths below. A row without any position gives zeros.
    `scale` is K^-0.5 if None. Raises ModelError where `supports` is false.

    With few rows the own and the prompt kernel are launched on two streams, forked and joined by
    events, under capture or not: neither fills the GPU, and a graph keeps them parallel.
    """
    rows, num_heads, head_dim = q.shape
    if not supports(head_dim, num_heads, num_kv):
        raise ModelError(
            f"the attention kernels take head dimensions 16, 32, ... 128 and up to 16 query heads "
            f"a KV head, not {head_dim} and {num_heads} over {num_kv}: use the plain path"
        )
    assert q.stride(2) == 1, "a head's elements must be adjacent"
    assert q.stride(1) == head_dim, "a row's heads must be adjacent"
    assert own.page % TILE.value == 0, "a tile lies in one page"
    assert scale is None or scale > 0, "the kernels take the top of the scores before scaling them"
    call = _Call(
        q,
        out=q.new_empty(rows, num_heads * head_dim),
        lse=q.new_empty(rows, num_heads, dtype=torch.float32),
        num_kv=num_kv,
        siblings=1 if group is None else siblings,
        scale=(head_dim**-0.5 if scale is None else scale) * math.log2(math.e),
        with_lse=with_lse,
    )
    if group is None:
        group = torch.arange(rows, dtype=torch.int32, device=q.device)
    if rows:
        has_prompt = prompt is not None and max_prompt > 0
        _launch(call, own, prompt if has_prompt else None, group, max_own, max_prompt)
    return (call.out, call.lse) if with_lse else call.out


class _Call(NamedTuple):
    """What all kernels of a call share."""

    q: Tensor
    out: Tensor
    lse: Tensor
    num_kv: int
    siblings: int
    scale: float
    """With log2(e) in it: the kernels work with powers of two."""
    with_lse: bool

    @property
    def rows(self) -> int:
        return self.q.shape[0]

    def parts(self, planes: int) -> _Parts:
        shape = (planes, *self.q.shape)
        weighted = self.q.new_empty(shape, dtype=torch.float32)
        return _Parts(weighted, weighted.new_empty(*shape[:3], 2), planes)

    def shape_constants(self) -> dict[str, int]:
        heads, head_dim = self.q.shape[1:]
        return {"H": heads, "K": head_dim, "WIDTH": triton.next_power_of_2(head_dim)}


def _launch(
    call: _Call,
    own: KeySource,
    prompt: KeySource | None,
    group: Tensor,
    max_own: int,
    max_prompt: int,
) -> None:
    read = _Parts(call.lse, call.lse, 0)  # without a prompt no kernel looks at it
    if prompt is not None:
        read = call.parts(_prompt_planes(call, max_prompt))
    splits = max(1, triton.cdiv(max_own, SPLIT.value))
    early, late = pdl(call.q.device), pdl(call.q.device, is_early=False)
    programs = TUNING["own"].get("programs", PROGRAMS)
    lanes = min(splits, triton.cdiv(programs, call.rows * call.num_kv))
    if lanes == 1:
        if prompt is not None:
            _run_prompt(call, prompt, group, read, max_prompt, early)
        _run_own(call, own, lanes, prompt, read, None, early)
        return
    stored = call.parts(splits)
    here = torch.cuda.current_stream(call.q.device) if call.q.is_cuda else None
    if prompt is not None and here and FORKS:
        side = _side_stream(call.q.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            _run_prompt(call, prompt, group, read, max_prompt, late)
        _run_own(call, own, lanes, prompt, read, stored, late)
        here.wait_stream(side)  # so that memory allocated here is freed after both have ended
        _run_merge(call, own, stored, prompt, read, late)
        return
    if prompt is not None:
        _run_prompt(call, prompt, group, read, max_prompt, early)
    _run_own(call, own, lanes, prompt, read, stored, early)
    _run_merge(call, own, stored, prompt, read, early)


def _prompt_planes(call: _Call, max_prompt: int) -> int:
    """Parts of the prompts to store: with enough programs each merges a whole prompt, as the merge
    kernel would, and stores 1; that saves writing and reading results for every 256 positions."""
    members = prompt_tile(call.q, call.num_kv, call.siblings).members
    programs = triton.cdiv(call.rows, min(members, call.siblings)) * call.num_kv
    if programs >= TUNING["prompt"].get("programs", PROMPT_PROGRAMS):
        return 1
    return triton.cdiv(max_prompt, SPLIT.value)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _run_own(
    call: _Call,
    own: KeySource,
    lanes: int,
    prompt: KeySource | None,
    read: _Parts,
    stored: _Parts | None,
    launch: dict[str, Any],
) -> None:
    """Without `stored` the kernel also merges, the prompt's parts `read` before its own."""
    weighted, stats, _ = stored or read
    own_kernel[(call.rows * call.num_kv, lanes)](
        call.q,
        own.k,
        own.v,
        own.start,
        own.length,
        own.length if own.pages is None else own.pages,
        weighted,
        stats,
        own.length if prompt is None else prompt.length,
        *read,
        call.out,
        call.lse,
        call.rows,
        lanes,
        call.q.stride(0),
        own.head_stride,
        own.position_stride,
        own.page_stride,
        call.scale,
        J=call.num_kv,
        PAGE=own.page,
        FUSED=stored is None,
        HAS_PROMPT=prompt is not None,
        WITH_LSE=call.with_lse,
        PRECISION="ieee",
        **call.shape_constants(),
        **own_options(call.q.shape[2], is_fused=stored is None),
        **launch,
    )


def _run_prompt(
    call: _Call,
    prompt: KeySource,
    group: Tensor,
    stored: _Parts,
    max_prompt: int,
    launch: dict[str, Any],
) -> None:
    tile = prompt_tile(call.q, call.num_kv, call.siblings)
    splits = triton.cdiv(max_prompt, SPLIT.value)
    is_fused = stored.planes < splits
    tiles = triton.cdiv(call.rows, tile.members) * call.num_kv
    # Where siblings are few, each group of a tile has a program of its own.
    enough = tile.members * tiles if _are_few(call.siblings) else TURN_PROGRAMS
    most = TUNING["prompt"].get("turns", enough)
    turns = min(tile.members, max(1, most // tiles))
    prompt_kernel[(tiles, 1 if is_fused else splits, turns)](
        call.q,
        prompt.k,
        prompt.v,
        prompt.start,
        prompt.length,
        group,
        stored.weighted,
        stored.stats,
        call.rows,
        call.q.stride(0),
        prompt.head_stride,
        prompt.position_stride,
        call.scale,
        J=call.num_kv,
        MEMBERS=tile.members,
        HEADS=tile.heads,
        FUSED=is_fused,
        PRECISION="ieee",
        **call.shape_constants(),
        **prompt_options(tile),
        **launch,
    )


def _run_merge(
    call: _Call,
    own: KeySource,
    stored: _Parts,
    prompt: KeySource | None,
    read: _Parts,
    launch: dict[str, Any],
) -> None:
    merge_kernel[(call.rows, call.q.shape[1])](
        call.out,
        call.lse,
        stored.weighted,
        stored.stats,
        own.length,
        read.weighted,
        read.stats,
        own.length if prompt is None else prompt.length,
        stored.planes,
        read.planes,
        call.rows,
        HAS_PROMPT=prompt is not None,
        WITH_LSE=call.with_lse,
        **call.shape_constants(),
        **merge_options(),
        **launch,
    )


class PromptTile(NamedTuple):
    """Rows that share a read. Members times heads, the height of the matrix product, is 64 or 128,
    what tensor cores take at once; 16 in float32, which they do not take."""

    members: int
    heads: int
    """G padded."""
    num_warps: int


def prompt_tile(q: Tensor, num_kv: int, siblings: int) -> PromptTile:
    """Of half the height, and of half the warps, where siblings are few: a row's sums stay
    within one warp either way. A row without siblings has a tile to itself."""
    heads, height, num_warps = max(4, triton.next_power_of_2(q.shape[1] // num_kv)), 16, 8
    if q.element_size() == 2:
        height, num_warps = (64, 4) if _are_few(siblings) else (128, 8)
    if siblings == 1 and _are_few(siblings):
        return PromptTile(1, height, num_warps)
    return PromptTile(min(ROW_TILE, height // heads), heads, num_warps)


def _are_few(siblings: int) -> bool:
    return siblings <= TUNING["prompt"].get("few", FEW_SIBLINGS)


def own_options(head_dim: int, *, is_fused: bool) -> dict[str, Any]:
    tuned = {name: n for name, n in TUNING["own"].items() if name != "programs"}
    # A program of a split has all of its tiles under way at once.
    stages = 3 if is_fused or head_dim > 64 else 5
    return {"num_warps": 4, "num_stages": stages} | tuned


def prompt_options(tile: PromptTile) -> dict[str, Any]:
    choices = ("programs", "turns", "few")
    tuned = {name: n for name, n in TUNING["prompt"].items() if name not in choices}
    return {"num_warps": tile.num_warps, "num_stages": 3} | tuned


def merge_options() -> dict[str, Any]:
    return {"num_warps": 1, "STAGES": 3} | TUNING["merge"]
