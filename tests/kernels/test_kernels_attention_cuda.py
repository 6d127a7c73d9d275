import random

import pytest
import torch

pytest.importorskip("triton")

from attention_rows import Rows, Shape, attend, dense, in_pages, random_rows

from pellucid.kernels import attention
from pellucid.kernels.attention import KeySource, attend_rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
QWEN = {"0.5B": Shape(14, 2, 64), "1.5B": Shape(12, 2, 128), "7B": Shape(28, 4, 128)}
EDGES = [0, 1, 63, 64, 65, 255, 256, 257, 600]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _rows(count: int, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> Rows:
    """Siblings by sixteens with strangers among them, lengths at and between the edges."""
    rng = random.Random(count)
    group = [
        row // 16 if rng.random() < 0.9 else rng.randrange(count // 16 + 1) for row in range(count)
    ]
    prompt = [rng.choice([*EDGES, 1100, rng.randrange(600)]) for _ in range(count // 16 + 1)]
    own = [rng.choice([*EDGES, rng.randrange(600)]) for _ in range(count)]
    return random_rows(own, prompt, group, shape, dtype, "cuda")


def _force(monkeypatch: pytest.MonkeyPatch, own: int, prompt: int) -> None:
    monkeypatch.setitem(attention.TUNING, "own", {"programs": own})
    monkeypatch.setitem(attention.TUNING, "prompt", {"programs": prompt})


@pytest.mark.parametrize("programs", [1, 10**6])
@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_real_shapes_agree_with_a_softmax_in_float64(shape, programs, monkeypatch):
    _force(monkeypatch, programs, programs)
    rows = _rows(90, shape)
    got, expected = attend(rows, shape), dense(rows, shape)
    # Weights and outputs are rounded to 8 bits, sums are not.
    torch.testing.assert_close(got[..., :-1].double(), expected[..., :-1], atol=8e-3, rtol=8e-3)
    torch.testing.assert_close(got[..., -1].double(), expected[..., -1], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "shape", [Shape(3, 3, 16), Shape(4, 1, 32), Shape(16, 1, 64), Shape(8, 4, 80), Shape(9, 3, 96)]
)
def test_other_shapes_and_dtypes_agree(shape, dtype):
    rows = _rows(20, shape, dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(
        attend(rows, shape).double(), dense(rows, shape), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_a_row_s_bits_depend_neither_on_the_number_of_rows_nor_on_its_neighbours(shape):
    rows = _rows(1024, shape)
    expected = attend(rows, shape)
    order = torch.randperm(1024, device="cuda")
    for count in (1, 8, 64, 300, 1024):
        assert torch.equal(attend(rows, shape, order[:count]), expected[order[:count]]), count
        siblings = torch.arange(count, device="cuda")
        assert torch.equal(attend(rows, shape, siblings), expected[:count]), count
    for bounds in ({"max_own": 4096}, {"max_prompt": 4096}):
        assert torch.equal(attend(rows, shape, **bounds), expected), bounds


@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_a_row_s_bits_do_not_depend_on_how_its_splits_are_shared_out(shape, monkeypatch):
    rows = _rows(64, shape)
    expected = attend(rows, shape)
    for own in (1, 200, 10**6):
        for prompt in (1, 10**6):
            _force(monkeypatch, own, prompt)
            assert torch.equal(attend(rows, shape), expected), (own, prompt)


@pytest.mark.parametrize("page", [64, 256])
@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_pages_hold_what_one_piece_holds(shape, page, monkeypatch):
    rows = _rows(300, shape)
    expected = attend(rows, shape)
    strewn = rows._replace(own=in_pages(rows.own, page))
    for programs in (1, 10**6):
        _force(monkeypatch, programs, programs)
        assert torch.equal(attend(strewn, shape), expected)


@pytest.mark.parametrize("siblings", [1, 2, 8])
@pytest.mark.parametrize(
    "shape", [*QWEN.values(), Shape(3, 3, 64), Shape(16, 1, 64)], ids=[*QWEN, "3/3", "16/1"]
)
def test_a_row_s_bits_do_not_depend_on_how_many_siblings_are_said_to_be(
    shape, siblings, monkeypatch
):
    for count in (70, 512):
        together = _rows(count, shape)
        order = torch.randperm(count, device="cuda")
        for prompt in (1, 10**6):
            _force(monkeypatch, 200, prompt)
            expected = attend(together, shape, siblings=16)
            assert torch.equal(attend(together, shape, siblings=siblings), expected)
            assert torch.equal(attend(together, shape, order, siblings=siblings), expected[order])


@pytest.mark.parametrize("count", [8, 1024])
def test_a_graph_follows_lengths_that_change(count):
    shape = QWEN["0.5B"]
    rows = _rows(count, shape)
    longest = rows.own.length.clone(), rows.prompt.length.clone()
    bounds = {"max_own": 600, "max_prompt": 1100}
    attend(rows, shape, **bounds)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = _plain_attend(rows, shape, bounds)
    for divisor in (1, 2, 7):
        rows.own.length.copy_(longest[0] // divisor)
        rows.prompt.length.copy_(longest[1] // divisor)
        rows.q.normal_()
        got.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(got, _plain_attend(rows, shape, bounds)), divisor
    assert not got.isnan().any()


def _plain_attend(rows: Rows, shape: Shape, bounds: dict[str, int]) -> torch.Tensor:
    return attend_rows(rows.q, rows.own, rows.prompt, rows.group, num_kv=shape.num_kv, **bounds)


def test_tokens_of_a_trainer_s_sequence_get_the_bits_of_decoding():
    heads, num_kv, head_dim = QWEN["0.5B"]
    length = 700
    fused = torch.randn(length, heads + 2 * num_kv, head_dim, device="cuda").bfloat16()
    q, k, v = fused.split([heads, num_kv, num_kv], 1)
    starts = torch.zeros(length, dtype=torch.int64, device="cuda")
    seen = torch.arange(1, length + 1, dtype=torch.int32, device="cuda")
    own = KeySource(k, v, starts, seen, head_dim, fused.stride(0))
    bounds = {"num_kv": num_kv, "max_prompt": 0}
    trained = attend_rows(q, own, None, None, max_own=length, **bounds)
    stored = [x.transpose(0, 1).contiguous() for x in (k, v)]  # [J, C, K]: the layout of a slot
    for position in (0, 255, 256, 699):
        slot = KeySource(*stored, starts[:1], seen[position, None], length * head_dim, head_dim)
        row = q[position, None].contiguous()
        decoded = attend_rows(row, slot, None, None, max_own=1024, **bounds)
        assert torch.equal(decoded[0], trained[position]), position
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1).double() for x in (q, k, v)), is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(
        trained.double(), expected.transpose(0, 1).flatten(1), atol=8e-3, rtol=8e-3
    )
