"""The small kernels at real shapes on a GPU: against float64, in CUDA graphs, row by row."""

import pytest
import torch
import torch.nn.functional as F

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")

from pellucid.kernels import matmul as matmul_file
from pellucid.kernels.available import triton_ready
from pellucid.kernels.matmul import matmul
from pellucid.kernels.norm import add_norm
from pellucid.kernels.rope import rotate, rotate_append
from pellucid.kernels.swiglu import swiglu

pytestmark = pytest.mark.gpu
BF16 = torch.bfloat16
EPS = 1e-6
ROUNDED_ONCE = 2**-8
"""Half a step of bfloat16 is at most 2**-9 of the value; the rest is for float32's own errors."""


def _normal(*shape, seed=0, dtype=BF16, scale=1.0):
    g = torch.Generator("cuda").manual_seed(seed)
    return (torch.randn(*shape, generator=g, device="cuda") * scale).to(dtype)


def _table(context, half):
    frequencies = 1e6 ** -(torch.arange(half, device="cuda") / half)
    angles = torch.outer(torch.arange(context, device="cuda").float(), frequencies)
    return torch.stack([angles.cos(), angles.sin()])


def _plain_norm(x, delta, weight):
    total = x + delta
    return total, total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS) * weight


def _plain_swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def _plain_rotate(heads, num_rotated, table, positions):
    cos, sin = table[:, positions].unsqueeze(2)
    first, second = heads[:, :num_rotated].chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned, heads[:, num_rotated:]], dim=1)


def _compare(ours, plain, inputs, rtol=ROUNDED_ONCE, atol=1e-4, slack=1e-3):
    """Outputs and gradients of ours(*inputs) against plain(*inputs in float64)."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    wide = [t.double().requires_grad_() for t in inputs]
    got, expected = ours(*leaves), plain(*wide)
    got = got if isinstance(got, tuple) else (got,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    seeds = [_normal(*o.shape, seed=9 + i, dtype=o.dtype) for i, o in enumerate(got)]
    torch.autograd.backward(got, seeds)
    torch.autograd.backward(expected, [s.double() for s in seeds])
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=rtol, atol=atol)
    for left, right in zip(leaves, wide, strict=True):
        assert left.grad.dtype == left.dtype
        # Sums over many rows cancel: their error is of the size of the whole tensor.
        room = max(atol, slack * right.grad.abs().max().item())
        torch.testing.assert_close(left.grad.double(), right.grad, rtol=rtol, atol=room)


def test_the_device_is_ready():
    assert triton_ready(torch.device("cuda"))


@pytest.mark.parametrize("width", [896, 1536, 3584])
def test_norm_and_its_gradients(width):
    x = _normal(2049, width, dtype=torch.float32, scale=4)
    _compare(
        lambda x, delta, weight: add_norm(x, delta, weight, EPS),
        _plain_norm,
        (x, _normal(2049, width, seed=1), _normal(width, seed=2)),
    )


def test_norm_without_a_delta():
    x, weight = _normal(65, 896, dtype=torch.float32), _normal(896, seed=1)
    total, normed = add_norm(x, None, weight, EPS)
    expected = _plain_norm(x.double(), 0, weight.double())[1]
    assert total is x
    torch.testing.assert_close(normed.double(), expected, rtol=ROUNDED_ONCE, atol=1e-5)


def test_a_row_of_the_norm_has_the_same_bits_in_every_batch():
    x, delta = _normal(4096, 896, dtype=torch.float32), _normal(4096, 896, seed=1)
    weight = _normal(896, seed=2)
    whole = add_norm(x, delta, weight, EPS)
    for start, stop in ((0, 1), (3, 10), (1000, 1300)):
        part = add_norm(x[start:stop], delta[start:stop], weight, EPS)
        assert all(torch.equal(p, w[start:stop]) for p, w in zip(part, whole, strict=True))


@pytest.mark.parametrize("width", [4864, 8960, 18944])
def test_swiglu_and_its_gradient(width):
    _compare(swiglu, _plain_swiglu, (_normal(515, 2 * width, scale=3),))


@pytest.mark.parametrize(("heads", "kv", "dim"), [(14, 2, 64), (12, 2, 128), (28, 4, 128)])
def test_rotation_and_its_gradient(heads, kv, dim):
    table = _table(4096, dim // 2)
    positions = torch.randint(0, 4096, (777,), device="cuda")
    _compare(
        lambda x: rotate(x, heads + kv, table, positions),
        lambda x: _plain_rotate(x, heads + kv, table.double(), positions),
        (_normal(777, heads + 2 * kv, dim),),
        # Two products cancel: float32's error is of their size, not of the result's.
        atol=1e-5,
    )


@pytest.mark.parametrize(("heads", "kv", "dim"), [(14, 2, 64), (12, 2, 128), (28, 4, 128)])
def test_a_decoding_step_appends_what_training_computes(heads, kv, dim):
    table, batch, slots, capacity = _table(4096, dim // 2), 64, 80, 128
    x = _normal(batch, heads + 2 * kv, dim)
    pool = torch.zeros(2, 3, slots, kv, capacity, dim, dtype=BF16, device="cuda")
    own_k, own_v = pool[0, 1], pool[1, 1]
    positions = torch.randint(0, 4096, (batch,), device="cuda")
    slot = torch.randperm(slots, device="cuda")[:batch].int()
    slot[::5] = -1
    own = torch.randint(0, capacity, (batch,), device="cuda", dtype=torch.int32)
    q = rotate_append(x, heads, kv, table, positions, own_k, own_v, slot, own)
    trained = rotate(x, heads + kv, table, positions)
    live = slot >= 0
    wanted = torch.zeros_like(pool)
    place = (slot[live].long(), slice(None), own[live].long())
    wanted[0, 1][place] = trained[live, heads : heads + kv]
    wanted[1, 1][place] = trained[live, heads + kv :]
    assert torch.equal(q[live], trained[live, :heads])
    assert torch.equal(pool, wanted)
    assert q.isfinite().all()


SHAPES = [(1152, 896), (896, 4864), (9728, 896), (2048, 1536), (17920, 1536), (3584, 18944)]
"""(N, D) of Qwen2.5's products: 0.5B three, 1.5B two, 7B one."""


@pytest.mark.parametrize("shape", SHAPES)
def test_product_is_rounded_once(shape):
    x, weight = _normal(333, shape[1]), _normal(*shape, seed=1, scale=0.02)
    bias = _normal(shape[0], seed=2)
    expected = x.double() @ weight.double().t()
    for shift in (None, bias):
        got = matmul(x, weight, shift).double()
        wanted = expected if shift is None else expected + shift.double()
        torch.testing.assert_close(got, wanted, rtol=ROUNDED_ONCE, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_a_product_has_the_same_bits_in_every_batch(shape):
    x, weight = _normal(4096, shape[1]), _normal(*shape, seed=1, scale=0.02)
    whole = matmul(x, weight)
    for start, stop in ((0, 1), (0, 7), (0, 64), (0, 300), (0, 1024), (1001, 1008), (77, 377)):
        assert torch.equal(matmul(x[start:stop], weight), whole[start:stop]), (start, stop)


def test_every_tile_gives_a_product_the_same_bits():
    x, weight = _normal(300, 4864), _normal(896, 4864, seed=1)
    tiles = matmul_file.TILES + matmul_file.LONG_TILES + matmul_file.WIDE_TILES
    first, *others = (matmul_file._forward(x, weight, None, t) for t in tiles)
    assert all(torch.equal(first, other) for other in others)


def test_float32_products_are_true_float32():
    x = _normal(70, 896, dtype=torch.float32)
    weight = _normal(130, 896, seed=1, dtype=torch.float32)
    expected = x.double() @ weight.double().t()
    torch.testing.assert_close(matmul(x, weight).double(), expected, rtol=1e-5, atol=1e-4)


def test_gradients_of_a_product():
    inputs = (_normal(1000, 896), _normal(1152, 896, seed=1, scale=0.02), _normal(1152, seed=2))
    # cuBLAS may add the parts of a split sum in bfloat16.
    _compare(matmul, F.linear, inputs, atol=1e-3, slack=4e-3)


def test_a_graph_replays_what_eager_calls_compute():
    heads, kv, dim, batch = 14, 2, 64, 48
    table = _table(512, dim // 2)
    weight = _normal((heads + 2 * kv) * dim, 896, seed=3, scale=0.03)
    gain, bias = _normal(896, seed=4), _normal(weight.shape[0], seed=5)
    residual, delta = _normal(batch, 896, dtype=torch.float32), _normal(batch, 896, seed=1)
    positions = torch.zeros(batch, dtype=torch.int64, device="cuda")
    slot = torch.arange(batch, dtype=torch.int32, device="cuda")
    own = torch.zeros(batch, dtype=torch.int32, device="cuda")
    caches = torch.zeros(2, batch, kv, 32, dim, dtype=BF16, device="cuda")
    own_k, own_v = caches

    def step():
        total, normed = add_norm(residual, delta, gain, EPS)
        qkv = matmul(normed, weight, bias)
        split = qkv.view(batch, heads + 2 * kv, dim)
        q = rotate_append(split, heads, kv, table, positions, own_k, own_v, slot, own)
        return total, q, swiglu(qkv)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()

    residual.copy_(_normal(batch, 896, seed=7, dtype=torch.float32))
    positions.copy_(torch.randint(0, 512, (batch,), device="cuda"))
    own.copy_(torch.randint(0, 32, (batch,), device="cuda"))
    slot[::3] = -1
    caches.zero_()
    graph.replay()
    replayed = [t.clone() for t in (*outputs, own_k, own_v)]
    caches.zero_()
    for left, right in zip(replayed, (*step(), own_k, own_v), strict=True):
        assert torch.equal(left, right)
