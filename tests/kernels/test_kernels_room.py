import pytest
import torch

matmul = pytest.importorskip("pellucid.kernels.matmul")

from pellucid.kernels.room import ROOM, empty_with_room, with_room  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_room_lies_behind_few_rows_only():
    few = empty_with_room(3, 8, torch.float32, DEVICE)
    assert few.shape == (3, 8)
    assert few.untyped_storage().nbytes() == ROOM * 8 * 4
    many = empty_with_room(ROOM + 1, 8, torch.float32, DEVICE)
    assert many.untyped_storage().nbytes() == (ROOM + 1) * 8 * 4
    assert empty_with_room(0, 8, torch.float32, DEVICE).shape == (0, 8)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a CPU's matter")
def test_a_cpu_reads_no_room():
    few = empty_with_room(3, 8, torch.float32, DEVICE)
    assert with_room(few) is few


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
def test_a_device_reads_the_room_that_there_is_and_no_more():
    few = empty_with_room(3, 8, torch.float32, DEVICE)
    assert with_room(few).shape == (ROOM, 8)
    assert with_room(few[1:]).shape == (ROOM - 1, 8)
    assert with_room(few.clone()).shape == (3, 8)
    assert with_room(torch.empty(5, 24, device=DEVICE)[1:3, 8:16]).shape == (4, 8)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [1, 16, 63])
def test_what_lies_in_the_room_changes_no_bit_of_a_product(rows):
    torch.manual_seed(0)
    x = torch.randn(rows, 896, device=DEVICE, dtype=torch.bfloat16)
    weight = torch.randn(1152, 896, device=DEVICE, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = matmul.matmul(x, weight)
        roomy = empty_with_room(rows, 896, torch.bfloat16, DEVICE)
        with_room(roomy).fill_(torch.nan)
        roomy.copy_(x)
        assert torch.equal(matmul.matmul(roomy, weight), expected)
