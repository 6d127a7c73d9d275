import pytest
import torch

pytest.importorskip("triton")

from attention_rows import Rows, Shape, attend, dense, in_pages, random_rows

from pellucid.errors import ModelError
from pellucid.kernels import attention
from pellucid.kernels.attention import KeySource, PromptTile, attend_rows, prompt_tile, supports

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's; see _cuda")
SMALL = Shape(heads=3, num_kv=1, head_dim=16)
OWN = [1, 63, 64, 65, 255, 0, 256, 257, 600]
GROUPS = [0, 0, 3, 0, 1, 1, 2, 4, 3]
PROMPTS = [64, 1, 0, 300, 257]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=["a program a row", "a program a split"])
def programs(request, monkeypatch):
    count = 1 if request.param == "a program a row" else 1000
    monkeypatch.setitem(attention.TUNING, "own", {"programs": count})
    monkeypatch.setitem(attention.TUNING, "prompt", {"programs": count, "turns": 2 * count})


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_lengths_and_mixed_groups_agree_with_a_softmax_in_float64(dtype):
    shape = Shape(heads=4, num_kv=2, head_dim=16)
    rows = random_rows(OWN, PROMPTS, GROUPS, shape, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-3
    expected = dense(rows, shape).float()
    torch.testing.assert_close(attend(rows, shape), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("head_dim", [16, 64, 80, 128])
@pytest.mark.parametrize("group_size", [1, 7, 16])
def test_all_head_dimensions_and_groups_of_heads_agree(head_dim, group_size):
    shape = Shape(2 * group_size, 2, head_dim)
    rows = random_rows([70, 3], [66], [0, 0], shape, torch.float32)
    torch.testing.assert_close(
        attend(rows, shape), dense(rows, shape).float(), atol=1e-5, rtol=1e-5
    )


@pytest.mark.usefixtures("programs")
def test_a_row_without_positions_gives_zeros_and_leaves_others_alone():
    rows = random_rows([0, 5, 0], [0, 9], [0, 1, 0], SMALL, torch.float32)
    got = attend(rows, SMALL)
    assert (got[[0, 2], :, :-1] == 0).all()
    assert (got[[0, 2], :, -1] == -torch.inf).all()
    torch.testing.assert_close(got[1], dense(rows, SMALL)[1].float(), atol=1e-5, rtol=1e-5)


def _with_exact_products(rows: Rows) -> Rows:
    """Numbers whose products are exact in float32: the interpreter's, on a CPU, sum in an order
    that depends on the row. Unlike these the sums and the merging stay inexact."""
    own, prompt = (x._replace(k=x.k.sign() / 2, v=x.v.sign()) for x in (rows.own, rows.prompt))
    return rows._replace(q=rows.q.sign() / 2, own=own, prompt=prompt)


def test_a_row_s_bits_depend_on_nothing_else(monkeypatch):
    rows = random_rows([65, 0, 257, 1, 600], PROMPTS, [0, 4, 3, 0, 3], SMALL, torch.float16)
    rows = _with_exact_products(rows)
    expected = attend(rows, SMALL)
    order = torch.tensor([4, 3, 0, 2, 1])
    assert torch.equal(attend(rows, SMALL, order), expected[order])
    assert torch.equal(attend(rows, SMALL, max_own=1100, max_prompt=700), expected)
    for row in (0, 1, 4):
        assert torch.equal(attend(rows, SMALL, torch.tensor([row])), expected[row : row + 1])
    for own, prompt, turns in ((1, 1000, 1), (10, 1, 3), (1000, 1, 1000)):
        monkeypatch.setitem(attention.TUNING, "own", {"programs": own})
        monkeypatch.setitem(attention.TUNING, "prompt", {"programs": prompt, "turns": turns})
        assert torch.equal(attend(rows, SMALL, max_own=1100), expected)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("siblings", [1, 2, 8])
def test_a_row_s_bits_do_not_depend_on_how_many_siblings_are_said_to_be(siblings):
    rows = random_rows(OWN, PROMPTS, GROUPS, SMALL, torch.float16)
    rows = _with_exact_products(rows)
    assert torch.equal(attend(rows, SMALL, siblings=siblings), attend(rows, SMALL, siblings=16))


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("page", [64, 256])
def test_pages_hold_what_one_piece_holds(page):
    shape = Shape(heads=4, num_kv=2, head_dim=16)
    rows = random_rows(OWN, PROMPTS, GROUPS, shape, torch.float16)
    strewn = rows._replace(own=in_pages(rows.own, page))
    assert torch.equal(attend(strewn, shape), attend(rows, shape))


def test_few_siblings_get_half_a_tile_and_a_row_alone_one_of_its_own(monkeypatch):
    q = torch.empty(1, 14, 64, dtype=torch.float16)
    tiles = [prompt_tile(q, 2, siblings) for siblings in (1, 2, 8, 9)]
    half, whole = PromptTile(8, 8, 4), PromptTile(16, 8, 8)
    assert tiles == [PromptTile(1, 64, 4), half, half, whole]
    monkeypatch.setitem(attention.TUNING, "prompt", {"few": 0})
    assert prompt_tile(q, 2, 1) == whole


def test_rows_with_ids_of_their_own_give_the_bits_of_rows_that_share():
    rows = random_rows([3, 70, 5, 0], [300, 20], [0, 0, 1, 0], SMALL, torch.float16)
    rows = _with_exact_products(rows)
    alone = rows._replace(group=torch.tensor([9, 2**31 - 2, 0, 4], dtype=torch.int32))
    assert torch.equal(attend(rows, SMALL), attend(alone, SMALL))


def test_groups_larger_than_a_tile_and_split_by_others_agree():
    shape = Shape(1, 1, 16)
    group = [0] * 17 + [1] + [0] * 2
    rows = random_rows([1] * 20, [5, 70], group, shape, torch.float32)
    torch.testing.assert_close(
        attend(rows, shape), dense(rows, shape).float(), atol=1e-5, rtol=1e-5
    )


def test_tokens_of_packed_sequences_attend_causally():
    heads, num_kv, head_dim = shape = Shape(4, 2, 16)
    lengths = [3, 12]
    fused = torch.randn(sum(lengths), heads + 2 * num_kv, head_dim)
    q, k, v = fused.split([heads, num_kv, num_kv], 1)
    starts = torch.tensor([0] * 3 + [3] * 12) * fused.stride(0)
    seen = torch.cat([torch.arange(1, n + 1, dtype=torch.int32) for n in lengths])
    own = KeySource(k, v, starts, seen, head_dim, fused.stride(0))
    got = attend_rows(q, own, None, None, num_kv=num_kv, max_own=12, max_prompt=0)
    rows = Rows(q, own, own._replace(length=seen * 0), seen)
    expected = dense(
        rows._replace(
            own=own._replace(
                k=k.contiguous(), v=v.contiguous(), start=starts // 4, position_stride=32
            )
        ),
        shape,
    )
    torch.testing.assert_close(got, expected[..., :-1].flatten(1).float(), atol=1e-5, rtol=1e-5)


def test_without_groups_each_row_reads_its_own_prompt():
    rows = random_rows([3, 4], [70, 20], [0, 1], SMALL, torch.float32)
    bounds = {"num_kv": 1, "max_own": 4, "max_prompt": 70}
    got = attend_rows(rows.q, rows.own, rows.prompt, None, **bounds)
    assert torch.equal(got, attend(rows, SMALL, siblings=1)[..., :-1].flatten(1))
    scaled = attend_rows(rows.q, rows.own, rows.prompt, None, scale=0.1, **bounds)
    expected = dense(rows, SMALL, scale=0.1)[..., :-1].flatten(1).float()
    torch.testing.assert_close(scaled, expected, atol=1e-5, rtol=1e-5)


def test_no_rows_give_no_rows():
    rows = random_rows([3], [2], [0], SMALL, torch.float32)
    assert attend(rows, SMALL, torch.arange(0), max_own=3, max_prompt=2).shape == (0, 3, 17)


def test_shapes_that_the_kernels_do_not_take_are_refused_in_one_line():
    assert supports(64, 14, 2)
    assert supports(128, 28, 4)
    assert not supports(24, 4, 2)
    assert not supports(256, 4, 2)
    assert not supports(64, 17, 1)
    assert not supports(64, 5, 2)
    shape = Shape(2, 1, 8)
    rows = random_rows([3], [2], [0], shape, torch.float32)
    with pytest.raises(ModelError, match="use the plain path"):
        attend(rows, shape)
