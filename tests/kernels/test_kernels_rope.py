import pytest
import torch

rope = pytest.importorskip("pellucid.kernels.rope")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Triton's interpreter cuts to bfloat16 where hardware rounds.
HALF, HALF_STEP = (torch.bfloat16, 2**-8) if DEVICE == "cuda" else (torch.float16, 2**-11)


def _table(context=16, half=4):
    angles = torch.outer(torch.arange(context).float(), 1.0 / 10.0 ** torch.arange(half).float())
    # A scale, as yarn has: the gradient is the transposed map, not the inverse.
    return (torch.stack([angles.cos(), angles.sin()]) * 1.25).to(DEVICE)


def _heads(num_tokens=5, num_heads=6, dim=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(num_tokens, num_heads, dim, generator=g).to(DEVICE)


def _reference(heads, num_rotated, table, positions):
    cos, sin = table.to(heads.dtype)[:, positions].unsqueeze(2)
    rotated, rest = heads[:, :num_rotated], heads[:, num_rotated:]
    first, second = rotated.chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned, rest], dim=1)


POSITIONS = torch.tensor([3, 0, 15, 7, 7], device=DEVICE)


def test_value_and_gradient_are_those_of_plain_arithmetic():
    ours = _heads().requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    got = rope.rotate(ours, 4, _table(), POSITIONS)
    expected = _reference(theirs, 4, _table().double(), POSITIONS)
    seed = _heads(seed=1)
    got.backward(seed)
    expected.backward(seed.double())
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-6, atol=1e-6)
    assert torch.equal(got[:, 4:], ours[:, 4:])


def test_head_dimensions_and_counts_that_are_no_powers_of_two_are_served():
    heads = _heads(num_heads=5, dim=12)
    table = _table(half=6)
    expected = _reference(heads, 3, table, POSITIONS)
    torch.testing.assert_close(rope.rotate(heads, 3, table, POSITIONS), expected)


def test_strided_heads_are_read_rightly():
    heads_apart, components_apart = _heads(num_heads=9)[:, 2:8], _heads(dim=10)[:, :, 1:9]
    for heads in (heads_apart, components_apart):
        expected = _reference(heads, 4, _table(), POSITIONS)
        torch.testing.assert_close(rope.rotate(heads, 4, _table(), POSITIONS), expected)


def test_half_precision_is_rounded_once():
    heads = _heads().to(HALF)
    got = rope.rotate(heads, 4, _table(), POSITIONS)
    expected = _reference(heads.float(), 4, _table(), POSITIONS)
    torch.testing.assert_close(got.float(), expected, rtol=HALF_STEP, atol=1e-6)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_a_decoding_step_rotates_and_appends_and_leaves_the_rest_of_the_cache(index_dtype):
    num_heads, num_kv = 3, 2
    heads = _heads(num_tokens=4, num_heads=num_heads + 2 * num_kv)
    # A layer's cache is a slice of a larger one.
    k_pool, v_pool = torch.full((2, 2, 3, num_kv, 6, 8), 9.0, device=DEVICE)
    own_k, own_v = k_pool[1], v_pool[1]
    slot = torch.tensor([2, -1, 0, 1], dtype=index_dtype, device=DEVICE)
    own = torch.tensor([5, 99, 0, 3], dtype=index_dtype, device=DEVICE)
    positions = torch.tensor([7, 10**9, 0, 15], device=DEVICE)
    q = rope.rotate_append(heads, num_heads, num_kv, _table(), positions, own_k, own_v, slot, own)

    expected = _reference(heads, num_heads + num_kv, _table(), positions.clamp(max=15))
    wanted_k, wanted_v = torch.full((2, 2, 3, num_kv, 6, 8), 9.0, device=DEVICE)
    for row in (0, 2, 3):
        torch.testing.assert_close(q[row], expected[row, :num_heads])
        wanted_k[1, slot[row], :, own[row]] = expected[row, num_heads : num_heads + num_kv]
        wanted_v[1, slot[row], :, own[row]] = heads[row, num_heads + num_kv :]
    assert q.is_contiguous()
    assert q.isfinite().all()
    torch.testing.assert_close(k_pool, wanted_k)
    assert torch.equal(v_pool, wanted_v)


def test_decoding_rotates_to_the_same_bits_as_training():
    heads = _heads(num_tokens=5, num_heads=7)
    own_k, own_v = torch.zeros(2, 5, 2, 1, 8, device=DEVICE)
    slot = torch.arange(5, device=DEVICE)
    own = torch.zeros(5, dtype=torch.int64, device=DEVICE)
    q = rope.rotate_append(heads, 3, 2, _table(), POSITIONS, own_k, own_v, slot, own)
    trained = rope.rotate(heads, 5, _table(), POSITIONS)
    assert torch.equal(q, trained[:, :3])
    assert torch.equal(own_k[:, :, 0], trained[:, 3:5])
