import numpy as np
import pytest
import torch

matmul = pytest.importorskip("pellucid.kernels.matmul")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _matrix(rows, columns, seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=g).to(dtype).to(DEVICE)


@pytest.fixture
def steady_blocks(monkeypatch):
    """Triton's interpreter multiplies blocks with BLAS, whose bits depend on a row's place; tensor
    cores' do not. Here every element is summed in the order of the summed dimension.
    """

    def product(left, right, dtype):
        return np.einsum("ik,kj->ij", left.astype(dtype), right.astype(dtype), optimize=False)

    if DEVICE == "cpu":
        monkeypatch.setattr(np, "matmul", product)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 40, 8), (70, 130, 72), (130, 70, 64)])
def test_product_and_bias_are_those_of_plain_arithmetic(dtype, shape):
    num_rows, num_outputs, width = shape
    x, weight = _matrix(num_rows, width, 0, dtype), _matrix(num_outputs, width, 1, dtype)
    bias = _matrix(1, num_outputs, 2, dtype)[0]
    expected = x.double() @ weight.double().t() + bias.double()
    tolerance = 1e-5 if dtype == torch.float32 else 2**-10
    got = matmul.matmul(x, weight, bias)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=1e-3)


@pytest.mark.usefixtures("steady_blocks")
def test_every_tile_gives_the_same_bits():
    x, weight = _matrix(150, 136, 0, torch.float16), _matrix(300, 136, 1, torch.float16)
    first, *others = (matmul._forward(x, weight, None, tile) for tile in matmul.TILES)
    for other in others:
        assert torch.equal(first, other)


@pytest.mark.usefixtures("steady_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_has_the_same_bits_however_many_rows_there_are(dtype):
    x, weight = _matrix(200, 136, 0, dtype), _matrix(72, 136, 1, dtype)
    whole = matmul.matmul(x, weight)
    for num_rows in (1, 7, 64, 130):
        assert torch.equal(matmul.matmul(x[:num_rows], weight), whole[:num_rows])
        assert torch.equal(matmul.matmul(x[-num_rows:], weight), whole[-num_rows:])


def test_operands_that_hardware_copies_cannot_read_are_copied_first():
    x, weight = _matrix(6, 23, 0), _matrix(9, 23, 1)
    expected = x[:, 1:20] @ weight[:, 2:21].t()
    torch.testing.assert_close(matmul.matmul(x[:, 1:20], weight[:, 2:21]), expected)
    transposed = _matrix(16, 9, 3).t()
    wide = _matrix(6, 16, 4)
    torch.testing.assert_close(matmul.matmul(wide, transposed), wide @ transposed.t())


def test_gradients_are_those_of_plain_arithmetic():
    leaves = [_matrix(5, 24, 0), _matrix(40, 24, 1), _matrix(1, 40, 2)[0]]
    seed = _matrix(5, 40, 3)
    ours = [t.clone().requires_grad_() for t in leaves]
    theirs = [t.clone().requires_grad_() for t in leaves]
    matmul.matmul(*ours).backward(seed)
    torch.nn.functional.linear(*theirs).backward(seed)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_no_rows_are_no_trouble():
    assert matmul.matmul(_matrix(0, 16, 0), _matrix(8, 16, 1)).shape == (0, 8)


def test_two_dtypes_are_refused():
    with pytest.raises(AssertionError, match="one dtype"):
        matmul.matmul(_matrix(2, 16, 0), _matrix(8, 16, 1, torch.float16))


def test_few_rows_get_small_tiles_and_many_get_large_ones():
    few = matmul.choose_tile(64, 896, 4864, 132)
    many = matmul.choose_tile(16384, 9728, 896, 132)
    assert few.m == 64
    assert few.n <= 64
    assert (many.m, many.n) == (128, 256)


def test_cublas_is_tried_for_the_sizes_of_steps_alone():
    sizes = [n for n in range(-1, 9000) if matmul.is_step_size(n)]
    assert sizes[:9] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert sizes[-3:] == [2048, 3072, 4096]


def test_large_weights_are_left_to_cublas_where_tiles_leave_multiprocessors_idle():
    """Of Qwen2.5's large products with few rows: q, k, v of 7B against all others."""
    tiles = matmul.TILES + matmul.LONG_TILES
    shapes = {"7B qkv": (4608, 3584), "7B gate and up": (37888, 3584), "7B down": (3584, 18944),
              "1.5B gate and up": (17920, 1536)}  # fmt: skip
    fills = {
        name: matmul.fill(outputs, matmul.choose_tile(64, outputs, width, 132, tiles), 132)
        for name, (outputs, width) in shapes.items()
    }
    idle = [name for name, share in fills.items() if share < matmul.OWN_FILL]
    assert idle == ["7B qkv"]
    assert fills["7B gate and up"] == 592 / 660
