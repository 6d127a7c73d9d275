"""A matrix product whose every row has the same bits, whatever rows it is computed with.

cuBLAS picks its algorithm, and with it the order of additions, by the number of rows; then a token
decoded in a batch of 64 and the same token in a training pack differ in the last bits. Here the
order never depends on that number: no split along the summed dimension, which is gone through from
first to last, and tiles of at least 64 rows with masked ones, so that the same tensor-core
instructions run for one row as for thousands (see "Defeating Nondeterminism in LLM Inference",
Thinking Machines Lab, 2025).

Shapes: T rows, D summed width, N outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.tools.tensor_descriptor import TensorDescriptor

from pellucid.kernels.launch import pdl, take_turn
from pellucid.kernels.products import add_product
from pellucid.kernels.room import ROOM, empty_with_room, with_room

BLOCK_K = {torch.bfloat16: 64, torch.float16: 64, torch.float32: 32}
"""Length of a block along D. Tensor cores add it to the sum 16 at a time, so that theirs may be
longer; the arithmetic of float32 and of the interpreter adds a block as a whole."""
LONG_ROWS = 768
"""Rows up to which tiles of longer blocks are chosen: fewer waits, for memory and products."""
OWN_BYTES = ((ROOM, 28 * 2**20), (256, 8 * 2**20))
"""(rows, weights) up to which products are made here without asking whether cuBLAS would do: it is
no faster then, and its kernels cannot be launched early (see `launch`)."""
OWN_FILL = 0.6
"""Share of the multiprocessors that tiles keep busy from which few rows are multiplied with larger
weights here, too: cuBLAS has tiles of other sizes for where ours leave half of them idle."""

GROUP_M = 8
"""Row tiles whose programs run together and share weight tiles in L2."""

LIBRARY_ROWS = 4096
"""Up to so many rows cuBLAS is tried, in the round sizes of decoding steps: their shapes come back,
while prefill meets ever new ones, each of which would cost a trial."""

TRIAL_OUTPUTS = 2**20
"""Outputs compared before cuBLAS is trusted: another order of additions changes float32 sums in
their last bits, and so about one in 10,000 of the bfloat16 outputs."""

COPY_ALIGNMENT = 16
"""Bytes to which the tensor memory accelerator wants rows and bases aligned."""


class Tile(NamedTuple):
    """One shape of output tile and how it is run."""

    m: int
    n: int
    num_warps: int
    num_stages: int
    per_sm: int
    """Programs that fit into the shared memory of one multiprocessor of Hopper."""
    block_k: int = 0
    """Length of a block along D; 0: as BLOCK_K says."""
    rate: int = 32
    """Bytes a cycle that it gets out of L2, roughly."""


TILES = (
    Tile(128, 256, 8, 3, 1),
    Tile(128, 128, 8, 4, 1),
    Tile(128, 64, 4, 4, 2),
    Tile(64, 128, 4, 4, 2),
    Tile(64, 64, 4, 5, 2),
    Tile(64, 32, 4, 6, 2),
)
LONG_TILES = (
    Tile(64, 64, 4, 5, 1, 128, 56),
    Tile(64, 32, 4, 4, 1, 256, 50),
    Tile(64, 16, 4, 5, 1, 256, 62),
)
"""Chosen among with the others up to LONG_ROWS; Hopper's only."""
WIDE_TILES = (Tile(64, 128, 4, 4, 1, 128, 64),)
"""With these, where one tile does not hold all rows; where it does, narrower ones are faster."""
SMALL_TILES = TILES[4:]
"""Those for GPUs whose programs have less than Hopper's shared memory."""

FLOAT32_TILE = Tile(64, 64, 8, 2, 1)
"""True float32 runs on the general cores; a larger tile would spill its registers."""


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: [T, N] in x's dtype, of x [T, D], weight [N, D] and bias [N].

    x and weight share one dtype; float32 accumulation, the bias added before the one rounding. The
    gradients are plain cuBLAS products. Where the weight has an attribute `float32_grad`, what it
    returns when called, float32 [N, D], takes the weight's gradient, and autograd gets none; None:
    there is no such sum.
    """
    assert x.dtype == weight.dtype, f"one dtype for both sides, not {x.dtype} and {weight.dtype}"
    if _learns(x, weight, bias):
        return _Matmul.apply(x, weight, bias, _forward)
    if _is_own(x, weight) or not (x.is_cuda and is_step_size(len(x))):
        return _forward(x, weight, bias)
    if _library_agrees(x, weight, bias):
        return F.linear(x, weight, bias)
    return _forward(x, weight, bias)


def fast_matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same without a promise of bits: cuBLAS but where it is no faster, see OWN_BYTES."""
    if _learns(x, weight, bias):
        return _Matmul.apply(x, weight, bias, F.linear)
    return (_forward if _is_own(x, weight) else F.linear)(x, weight, bias)


def _learns(*operands: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)


def _is_own(x: Tensor, weight: Tensor) -> bool:
    """Whether a product of few rows is faster here than in cuBLAS, however that gets its bits."""
    if x.element_size() != 2:
        return False
    if any(len(x) <= rows and weight.nbytes <= most for rows, most in OWN_BYTES):
        return True
    return (
        len(x) <= ROOM
        and x.is_cuda
        and fill(len(weight), _tile_of(x, weight), num_sms(x.device)) >= OWN_FILL
    )


def fill(num_outputs: int, tile: Tile, num_sms: int) -> float:
    """Share of the multiprocessors' turns in which they have a tile, where all rows are in one."""
    num_tiles, places = triton.cdiv(num_outputs, tile.n), num_sms * tile.per_sm
    return num_tiles / (triton.cdiv(num_tiles, places) * places)


def is_step_size(rows: int) -> bool:
    """Whether a decoding step may have so many rows: a power of two, or three quarters of one."""
    odd = rows // (rows & -rows) if rows > 0 else 0
    return odd in (1, 3) and rows <= LIBRARY_ROWS


_agreements: dict[tuple[object, ...], bool] = {}


def _library_agrees(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether cuBLAS, which is faster for few rows, gives the same bits at this shape.

    It does where its algorithm too adds along D from first to last in the tensor cores, and not
    where it splits D. Which algorithm it takes depends on the shape alone, so a comparison on
    random rows decides, once a process, and takes more of them the fewer outputs a product has; a
    shape first met inside a capture stays with the kernel.
    """
    key = (x.device, x.dtype, tuple(x.shape), weight.shape[0], bias is not None)
    if key not in _agreements:
        if torch.cuda.is_current_stream_capturing():
            return False
        generator = torch.Generator(x.device).manual_seed(0)
        differs = torch.zeros((), dtype=torch.bool, device=x.device)
        for _ in range(triton.cdiv(TRIAL_OUTPUTS, len(x) * len(weight))):
            rows = torch.randn(x.shape, generator=generator, device=x.device).to(x.dtype)
            mine = _forward(rows, weight.detach(), bias)
            differs |= (F.linear(rows, weight.detach(), bias) != mine).any()
        _agreements[key] = not bool(differs)
    return _agreements[key]


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, product):
        ctx.save_for_backward(x, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype
        # Asked for here: what checkpointing hands to the backward pass is a copy of the weight.
        ctx.float32_grad = getattr(weight, "float32_grad", None)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        dx = d_out @ weight if wants_x else None
        d_weight = _weight_gradient(d_out.t(), x, ctx.float32_grad) if wants_weight else None
        d_bias = d_out.sum(0, dtype=torch.float32).to(ctx.bias_dtype) if wants_bias else None
        return dx, d_weight, d_bias, None


def _weight_gradient(
    d_out: Tensor, x: Tensor, float32_grad: Callable[[], Tensor | None] | None
) -> Tensor | None:
    total = None if float32_grad is None else float32_grad()
    if total is None:
        return d_out @ x
    add_product(total, d_out, x)
    return None


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, tile: Tile | None = None) -> Tensor:
    num_rows, width = x.shape
    num_outputs = weight.shape[0]
    out = empty_with_room(num_rows, num_outputs, x.dtype, x.device)
    if not out.numel():
        return out
    tile = tile or _tile_of(x, weight)
    block_k = tile.block_k or BLOCK_K[x.dtype]
    num_tiles = triton.cdiv(num_rows, tile.m) * triton.cdiv(num_outputs, tile.n)
    _matmul_kernel[(min(num_tiles, num_sms(x.device) * tile.per_sm),)](
        TensorDescriptor.from_tensor(with_room(copyable(x)), [tile.m, block_k]),
        TensorDescriptor.from_tensor(copyable(weight), [tile.n, block_k]),
        out if bias is None else bias.contiguous(), out, num_rows, num_outputs, width,
        BLOCK_M=tile.m, BLOCK_N=tile.n, BLOCK_K=block_k, GROUP_M=GROUP_M,
        HAS_BIAS=bias is not None, num_warps=tile.num_warps, num_stages=tile.num_stages,
        **pdl(x.device),
    )  # fmt: skip
    return out


def _tile_of(x: Tensor, weight: Tensor) -> Tile:
    has_few_rows, is_one_tile = len(x) <= LONG_ROWS, len(x) <= ROOM
    tiles = device_tiles(x.device, x.dtype, has_few_rows, is_one_tile)
    return choose_tile(len(x), *weight.shape, num_sms(x.device), tiles)


@functools.lru_cache(maxsize=1024)
def choose_tile(
    num_rows: int, num_outputs: int, width: int, num_sms: int, tiles: tuple[Tile, ...] = TILES
) -> Tile:
    """The tile that a rough model of Hopper finds fastest; it changes the speed, never the bits."""

    def cycles(tile: Tile) -> float:
        num_tiles = triton.cdiv(num_rows, tile.m) * triton.cdiv(num_outputs, tile.n)
        # For each element along D: 2048 multiply-adds a cycle, or the bytes out of L2.
        a_step = max(tile.m * tile.n / 2048, (tile.m + tile.n) * 2 / tile.rate)
        return triton.cdiv(num_tiles, num_sms) * (width * a_step + 1500)

    return min(tiles, key=cycles)


@functools.cache
def device_tiles(
    device: torch.device, dtype: torch.dtype, has_few_rows: bool, is_one_tile: bool
) -> tuple[Tile, ...]:
    """Tiles that fit into registers and shared memory; `is_one_tile`: one holds all rows."""
    if dtype == torch.float32:
        return (FLOAT32_TILE,)
    if device.type != "cuda":
        return TILES
    properties = torch.cuda.get_device_properties(device)
    if properties.shared_memory_per_block_optin < 227 * 1024:
        return SMALL_TILES
    if not has_few_rows or properties.major != 9:
        return TILES
    return TILES + LONG_TILES + (() if is_one_tile else WIDE_TILES)


@functools.cache
def num_sms(device: torch.device) -> int:
    """Multiprocessors; in Triton's interpreter any number will do."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def copyable(matrix: Tensor) -> Tensor:
    """The matrix as the tensor memory accelerator can read it; zeros that it gains add nothing."""
    step = COPY_ALIGNMENT // matrix.element_size()
    width = matrix.shape[1]
    if width % step:
        return F.pad(matrix, (0, -width % step))
    rows_apart, columns_apart = matrix.stride()
    is_regular = columns_apart == 1 and rows_apart >= width and rows_apart % step == 0
    if is_regular and matrix.data_ptr() % COPY_ALIGNMENT == 0:
        return matrix
    return matrix.clone(memory_format=torch.contiguous_format)


@triton.jit(do_not_specialize=["num_rows"])
def _matmul_kernel(
    x, weight, bias, out, num_rows, num_outputs, width,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    HAS_BIAS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    if PDL:
        take_turn()
    tiles_m = tl.cdiv(num_rows, BLOCK_M)
    tiles_n = tl.cdiv(num_outputs, BLOCK_N)
    steps = tl.cdiv(width, BLOCK_K)
    # Flattened, the loads of the next tile run while this one is written out.
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=True):
        group = tile // (GROUP_M * tiles_n)
        group_m = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
        within = tile % (GROUP_M * tiles_n)
        first_row = (group * GROUP_M + within % group_m) * BLOCK_M
        first_col = within // group_m * BLOCK_N

        total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for step in range(steps):
            left = x.load([first_row, step * BLOCK_K])
            right = weight.load([first_col, step * BLOCK_K])
            total = tl.dot(left, right.T, total, input_precision="ieee")

        cols = first_col + tl.arange(0, BLOCK_N)
        rows = tl.arange(0, BLOCK_M)
        if HAS_BIAS:
            shift = tl.load(bias + cols, mask=cols < num_outputs, other=0.0)
            total += shift.to(tl.float32)[None, :]
        inside = (first_row + rows < num_rows)[:, None] & (cols < num_outputs)[None, :]
        # Logits of a training pack have more elements than 32 bits can count.
        corner = out + tl.cast(first_row, tl.int64) * num_outputs
        place = corner + rows[:, None] * num_outputs + cols[None, :]
        tl.store(place, total.to(out.dtype.element_ty), mask=inside)
