"""What sampling needs to know of the output head's logits, block by block, without the logits.

For each row and each block of 128 vocabulary ids: the largest logit, and the sum of
exp((z - largest) / T) over the block; on request the sum of exp((z - largest) / T) (z - largest),
of which the entropy is made, and the logits themselves, which the trainer wants. The products
accumulate in float32 in an order that depends on neither the number of rows nor a row's place among
them, so a row's numbers do not either.

Shapes: B rows, D width, V vocabulary, C blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from pellucid.errors import ModelError
from pellucid.kernels.launch import pdl, take_turn

BLOCK = 128
"""Ids of a block: part of the definition of sampling."""
DEPTH = 64
"""Columns of D that one step of the product takes: the same for all, as it orders the sum."""
VOID = -1e30
"""Logit of an id past the vocabulary's end: it has no weight, and unlike minus infinity it may be
subtracted from itself."""
LOG2_E = 1.4426950408889634
PIECE = tl.constexpr(64)
"""Logits of a row that are turned in shared memory at a time, to be written in one go."""


class Tile(NamedTuple):
    """How the product is cut up."""

    rows: int
    """Rows of a tile: 64 or more, so that the same instruction sums for every B."""
    ids: int
    """Vocabulary ids of a tile, a multiple of 128."""
    warps: int
    """A warp takes 16 rows or a multiple of them, and all ids: never more warps than rows / 16."""
    stages: int
    """Steps of the product in flight."""
    programs: int
    """Programs that share a multiprocessor: one computes while another sums up its tile."""


TILES = {
    64: Tile(rows=64, ids=128, warps=4, stages=3, programs=2),
    128: Tile(rows=128, ids=256, warps=8, stages=4, programs=1),
}
"""By the rows of a tile. Registers and shared memory of a multiprocessor bound the rest."""
FLOAT32_TILE = Tile(rows=16, ids=128, warps=8, stages=2, programs=1)
"""No tensor core multiplies float32 exactly: correct, and slow."""


class Stats(NamedTuple):
    """Statistics of the logits of B rows."""

    top: Tensor
    """Largest logit of each block [B, C] float32."""
    mass: Tensor
    """Sum of exp((z - top) / T) over the block [B, C] float32."""
    moment: Tensor | None
    """Sum of exp((z - top) / T) (z - top) over the block [B, C] float32."""

    @staticmethod
    def empty(rows: int, vocab_size: int, device: torch.device, *, has_moment: bool) -> Stats:
        """Room for `rows` rows."""
        shape = (rows, -(-vocab_size // BLOCK))
        top, mass = torch.empty(shape, device=device), torch.empty(shape, device=device)
        return Stats(top, mass, torch.empty(shape, device=device) if has_moment else None)


def check_head(hidden: Tensor, weight: Tensor) -> None:
    """Raises ModelError where the kernels cannot read the tensors."""
    if weight.shape[1] * weight.element_size() % 16:
        raise ModelError(
            f"a model of width {weight.shape[1]} has rows that are no multiple of 16 bytes: "
            "sample from logits instead"
        )
    assert hidden.dim() == weight.dim() == 2, "hidden is [B, D], weight [V, D]"
    assert hidden.shape[1] == weight.shape[1], "hidden and weight have the same width"
    assert hidden.dtype == weight.dtype, f"hidden is {hidden.dtype}, weight {weight.dtype}"
    assert hidden.is_contiguous(), "hidden lies row by row"
    assert weight.is_contiguous(), "the weight lies row by row"


def tile_for(rows: int, dtype: torch.dtype) -> Tile:
    """The largest tile that costs at most a third more than the one with the fewest void rows."""
    if dtype == torch.float32:
        return FLOAT32_TILE
    padded = {size: -(-rows // size) * size for size in TILES}
    least = min(padded.values())
    return TILES[max(size for size in TILES if padded[size] * 3 <= least * 4)]


def head_stats(
    hidden: Tensor,
    weight: Tensor,
    temperature: float,
    out: Stats,
    *,
    logits: Tensor | None = None,
    tile: Tile | None = None,
) -> None:
    """Fills the first B rows of `out` with the statistics of hidden [B, D] @ weight [V, D]ᵀ, and
    `logits` [B, V] float32 with these products themselves.

    `tile`: how to cut the product, by default what suits the number of rows. The numbers do not
    depend on it.
    """
    if logits is not None:
        assert logits.shape == (len(hidden), len(weight)), "logits are [B, V]"
        assert logits.is_contiguous(), "logits lie row by row"
    rows, width = hidden.shape
    vocab_size = weight.shape[0]
    tile = tile or tile_for(rows, weight.dtype)
    num_tiles = -(-rows // tile.rows) * -(-vocab_size // tile.ids)
    programs = min(num_tiles, tile.programs * _num_processors(hidden.device))
    _stats_kernel[(programs,)](
        TensorDescriptor.from_tensor(hidden, [tile.rows, DEPTH]),
        TensorDescriptor.from_tensor(weight, [tile.ids, DEPTH]),
        out.top,
        out.mass,
        out.moment if out.moment is not None else out.mass,
        out.mass if logits is None else logits,
        rows,
        LOG2_E / temperature,
        VOCAB=vocab_size,
        WIDTH=width,
        TILE_B=tile.rows,
        TILE_V=tile.ids,
        TILE_D=DEPTH,
        ID_BLOCK=BLOCK,
        VOID_LOGIT=VOID,
        # Triton's interpreter takes the bits of a bfloat16 for an integer.
        WIDEN=hidden.device.type == "cpu",
        HAS_MOMENT=out.moment is not None,
        HAS_LOGITS=logits is not None,
        num_warps=tile.warps,
        num_stages=_stages(tile, hidden, has_logits=logits is not None),
        **pdl(hidden.device),
    )


def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1  # Triton's interpreter runs one program after the other
    return torch.cuda.get_device_properties(device).multi_processor_count


def _stages(tile: Tile, hidden: Tensor, *, has_logits: bool) -> int:
    """As many stages as the device has shared memory for, at most those of the tile."""
    if hidden.device.type != "cuda":
        return tile.stages
    room = torch.cuda.get_device_properties(hidden.device).shared_memory_per_block_optin - 2048
    if has_logits:
        room -= tile.rows * PIECE.value * 4
    return max(1, min(tile.stages, room // ((tile.rows + tile.ids) * DEPTH * hidden.itemsize)))


@triton.jit
def _store_logits(logits_ptr, logits, row, first_id, is_row, VOCAB: tl.constexpr):
    """Stores a tile of logits of rows [B, 1], piece by piece."""
    TILE_V: tl.constexpr = logits.shape[1]
    if TILE_V > PIECE:
        halves = tl.reshape(logits, (logits.shape[0], 2, TILE_V // 2))
        left, right = tl.split(tl.permute(halves, (0, 2, 1)))
        _store_logits(logits_ptr, left, row, first_id, is_row, VOCAB)
        _store_logits(logits_ptr, right, row, first_id + TILE_V // 2, is_row, VOCAB)
    else:
        ids = first_id + tl.arange(0, TILE_V)[None, :]
        place = row.to(tl.int64) * VOCAB + ids
        tl.store(logits_ptr + place, logits, mask=is_row & (ids < VOCAB))


@triton.jit(do_not_specialize=["rows"])
def _stats_kernel(
    hidden,
    weight,
    top_ptr,
    mass_ptr,
    moment_ptr,
    logits_ptr,
    rows,
    scale,
    VOCAB: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_B: tl.constexpr,
    TILE_V: tl.constexpr,
    TILE_D: tl.constexpr,
    ID_BLOCK: tl.constexpr,
    VOID_LOGIT: tl.constexpr,
    WIDEN: tl.constexpr,
    HAS_MOMENT: tl.constexpr,
    HAS_LOGITS: tl.constexpr,
    PDL: tl.constexpr = False,
):
    if PDL:
        take_turn()
    NUM_BLOCKS: tl.constexpr = (VOCAB + ID_BLOCK - 1) // ID_BLOCK
    TILE_C: tl.constexpr = TILE_V // ID_BLOCK
    row_tiles = tl.cdiv(rows, TILE_B)
    num_tiles = row_tiles * tl.cdiv(VOCAB, TILE_V)
    # All rows meet a piece of the weight at about the same time: it is read from memory once.
    for tile in tl.range(tl.program_id(0), num_tiles, tl.num_programs(0), flatten=True):
        first_row = (tile % row_tiles) * TILE_B
        first_id = (tile // row_tiles) * TILE_V
        logits = tl.zeros((TILE_B, TILE_V), tl.float32)
        for step in range(tl.cdiv(WIDTH, TILE_D)):
            x = hidden.load([first_row, step * TILE_D])
            w = weight.load([first_id, step * TILE_D])
            if WIDEN:
                x, w = x.to(tl.float32), w.to(tl.float32)
            logits = tl.dot(x, w.T, logits, input_precision="ieee")
        row = first_row + tl.arange(0, TILE_B)[:, None]
        if HAS_LOGITS:
            _store_logits(logits_ptr, logits, row, first_id, row < rows, VOCAB)
        if VOCAB % ID_BLOCK != 0:
            ids = first_id + tl.arange(0, TILE_V)
            logits = tl.where((ids < VOCAB)[None, :], logits, VOID_LOGIT)
        blocks = tl.reshape(logits, (TILE_B, TILE_C, ID_BLOCK))
        top = tl.max(blocks, 2)
        below = blocks - top[:, :, None]
        weights = tl.exp2(below * scale)
        block = first_id // ID_BLOCK + tl.arange(0, TILE_C)[None, :]
        place = row.to(tl.int64) * NUM_BLOCKS + block
        is_real = (row < rows) & (block < NUM_BLOCKS)
        tl.store(top_ptr + place, top, mask=is_real)
        tl.store(mass_ptr + place, tl.sum(weights, 2), mask=is_real)
        if HAS_MOMENT:
            tl.store(moment_ptr + place, tl.sum(weights * below, 2), mask=is_real)
