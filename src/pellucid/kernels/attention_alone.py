"""Attention of a decoding step where a row reads everything alone: one program a row and KV head.

It rotates, appends the newest key and value, reads the prompt, then the row's own positions, and
merges in registers: nothing is stored between. That is fastest where rows and KV heads are programs
enough for the chip and nobody shares a prompt, and where positions are so few that splitting them
costs more than it gives. Arithmetic and order are those of `rotate_append` and `attend_rows`, and
so are the bits.

Shapes: B rows, H query heads, J key/value heads, G = H / J, K head dimension.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pellucid.kernels.attention import PROGRAMS
from pellucid.kernels.attention_few import FEW_ROWS
from pellucid.kernels.attention_merge import store_result
from pellucid.kernels.attention_own import HEADS, read_own
from pellucid.kernels.attention_prompt import split_of_prompt
from pellucid.kernels.attention_step import StepRows, append, place_of, rotated
from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.room import empty_with_room

ENOUGH_PROGRAMS = 192
"""Rows times KV heads that keep the chip busy without splitting positions."""
SHORT_SPLITS = 4
"""Splits of own positions up to which they are read one after another although there are fewer
than PROGRAMS: beyond, a single long row would keep all others waiting."""


def reads_alone(rows: StepRows, siblings: int) -> bool:
    """Whether a program for each row and KV head is the fastest way; `siblings`: about how many
    rows have one prompt at most. Of few rows, L2 serves siblings that read their prompt alone."""
    if rows.programs < ENOUGH_PROGRAMS or rows.prompt_splits > 1:
        return False
    is_short = rows.own_splits <= SHORT_SPLITS or rows.programs >= PROGRAMS
    shares = siblings > 1 and rows.prompt_splits > 0 and len(rows.heads) > FEW_ROWS
    return is_short and not shares


def attend_alone(rows: StepRows) -> Tensor:
    """`rotate_append` and `attend_rows` of a step's rows at once, with prompts of at most a split:
    [B, H * K]."""
    rows.check()
    assert rows.prompt_splits <= 1, "prompts of several splits are not read by one program"
    count, _, head_dim = rows.heads.shape
    device = rows.heads.device
    out = empty_with_room(count, rows.num_heads * head_dim, rows.heads.dtype, device)
    alone_kernel[(rows.programs,)](
        *rows.sources(), out, rows.scale, **rows.constants(), HAS_PROMPT=rows.prompt_splits > 0,
        **launch_options(head_dim), **pdl(device),
    )  # fmt: skip
    return out


def launch_options(head_dim: int) -> dict[str, int]:
    """Up to 64 dimensions four programs fit a multiprocessor, if they have to."""
    return {"num_stages": 3} | ({"maxnreg": 128} if head_dim <= 64 else {})


@triton.jit
def alone_kernel(
    heads, heads_stride, table, table_stride, positions, slots, owns, slot_stride,
    k, v, start, length, head_stride, position_stride, pages, page_stride,
    prompt_k, prompt_v, prompt_start, prompt_length, prompt_head_stride, prompt_position_stride,
    out, scale,
    H: tl.constexpr, J: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr, PAGE: tl.constexpr, HAS_PROMPT: tl.constexpr,
    PRECISION: tl.constexpr, PDL: tl.constexpr = False,
):  # fmt: skip
    """Grid (B * J). `scale` has log2(e) in it."""
    row, kv_head = tl.program_id(0) // J, tl.program_id(0) % J
    dims = tl.arange(0, WIDTH)
    slot, newest, first, keys, prompt_first, prompt_keys, cos, sin = place_of(
        row, table, table_stride, positions, slots, owns, start, length, prompt_start,
        prompt_length, dims, K, PAGE,
    )  # fmt: skip
    if PDL:
        take_turn()
    mine = heads + tl.cast(row, tl.int64) * heads_stride
    head = kv_head * (H // J)
    if (slot >= 0) & (keys > 0):
        place = slot * slot_stride + kv_head * head_stride + newest * position_stride
        append(mine, dims, cos, sin, k, v, place, kv_head, H, J, K)
    local = tl.arange(0, HEADS)
    is_real = local < H // J
    if HAS_PROMPT:
        high = tl.arange(0, HEIGHT)
        wide = rotated(mine, head + high, dims, high < H // J, cos, sin, K)
        base = prompt_first + tl.cast(kv_head, tl.int64) * prompt_head_stride
        top, total, acc = split_of_prompt(
            wide, prompt_k, prompt_v, base, 0, prompt_keys, prompt_position_stride, scale, dims,
            K, PRECISION,
        )  # fmt: skip
        top, total = tl.gather(top, local, 0), tl.gather(total, local, 0)
        acc = tl.gather(acc, tl.broadcast_to(local[:, None], [HEADS, WIDTH]), 0)
    else:
        top = tl.full([HEADS], float("-inf"), tl.float32)
        total = tl.zeros([HEADS], tl.float32)
        acc = tl.zeros([HEADS, WIDTH], tl.float32)
    own_base = tl.cast(kv_head, tl.int64) * head_stride
    if PAGE == 0:
        own_base += first
    # Loaded again, not kept over the prompt: the memory would cost a multiprocessor a program.
    queries = rotated(mine, head + local, dims, is_real, cos, sin, K)
    tl.debug_barrier()  # the newest position is written: all threads of this program read it
    top, total, acc = read_own(
        queries, k, v, own_base, pages, first, keys, 0, 1, position_stride, page_stride, scale,
        top, total, acc, out, out, 0, row, head, local, dims, is_real, H, K, PAGE, True, PRECISION,
    )  # fmt: skip
    at = tl.cast(row, tl.int64) * H + head
    store_result(out, out, at, local, dims, is_real, top, total, acc, K, False)
