import pytest
import torch

pytest.importorskip("triton")

from attention_rows import Shape
from few_rows import Step, attend, attend_in_pages, random_step

from pellucid.kernels import attention_few
from pellucid.kernels.attention_alone import attend_alone
from pellucid.kernels.attention_few import attend_few

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's; see _cuda")
SHAPE = Shape(heads=6, num_kv=2, head_dim=16)
OWN = [1, 64, 65, 0, 256, 257, 600]
BODY = [0, 64, 1, 9, 300, 257, 20]
ONE_LAUNCH = pytest.mark.parametrize("launch", [attend_few, attend_alone])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _with_exact_products(step: Step) -> Step:
    """The interpreter's products, on a CPU, sum in an order that depends on the row."""
    return step._replace(
        heads=step.heads.sign() / 2, keys=step.keys.sign(), prompts=step.prompts.sign()
    )


def _same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.equal(got.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("programs", [1, 10**4], ids=["a lane a row", "a lane a split"])
@ONE_LAUNCH
def test_one_launch_gives_the_bits_and_the_cache_of_four(launch, programs, monkeypatch):
    monkeypatch.setattr(attention_few, "PROGRAMS", programs)
    step = _with_exact_products(random_step(OWN, BODY, SHAPE, torch.float16))
    (got, cache), (expected, other) = (attend(step, SHAPE, way) for way in (launch, None))
    assert expected.isfinite().all()
    assert _same(got, expected)
    assert _same(cache, other)
    assert _same(attend(step, SHAPE, launch, max_own=1500, max_prompt=900)[0], expected)


@pytest.mark.parametrize("page", [64, 256])
@ONE_LAUNCH
def test_pages_give_the_bits_and_the_cache_of_one_piece(launch, page):
    step = _with_exact_products(random_step(OWN, BODY, SHAPE, torch.float16))
    expected, other = attend(step, SHAPE, launch, max_own=700, max_prompt=300)
    got, cache = attend_in_pages(step, SHAPE, launch, page, max_own=700, max_prompt=300)
    assert _same(got, expected)
    assert _same(cache, other)


@ONE_LAUNCH
def test_real_numbers_agree_too(launch):
    step = random_step(OWN, BODY, SHAPE, torch.float32)
    angles = torch.rand(step.table.shape[1:])
    step = step._replace(table=torch.stack([angles.cos(), angles.sin()]))
    (got, cache), (expected, other) = (attend(step, SHAPE, way) for way in (launch, None))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert _same(cache, other)


@ONE_LAUNCH
def test_rows_without_a_prompt_and_idle_rows_are_served(launch):
    step = _with_exact_products(random_step([3, 0, 70], [0, 0, 0], SHAPE, torch.float16))
    (got, cache), (expected, other) = (attend(step, SHAPE, way) for way in (launch, None))
    assert (got[1] == 0).all()
    assert _same(got, expected)
    assert _same(cache, other)


def test_the_next_launch_counts_from_zero_again():
    step = _with_exact_products(random_step(OWN, BODY, SHAPE, torch.float16))
    first = attend(step, SHAPE, attend_few)[0]
    assert not attention_few._arrivals(torch.device("cpu")).any()
    assert _same(attend(step, SHAPE, attend_few)[0], first)
