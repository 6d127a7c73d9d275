import pytest
import torch

pytest.importorskip("triton")

from attention_rows import Shape
from few_rows import Step, attend, attend_in_pages, random_step

from pellucid.kernels import attention_few
from pellucid.kernels.attention import KeySource
from pellucid.kernels.attention_alone import attend_alone, reads_alone
from pellucid.kernels.attention_few import attend_few
from pellucid.kernels.attention_step import StepRows

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter's; see _cuda")
SHAPE = Shape(heads=6, num_kv=2, head_dim=16)
OWN = [1, 64, 65, 0, 256, 257, 600]
BODY = [0, 64, 1, 9, 300, 257, 20]
ONE_LAUNCH = pytest.mark.parametrize("launch", [attend_few, attend_alone])


def _bodies(launch) -> list[int]:
    """`attend_alone` takes prompts of one split."""
    return [min(body, 256) for body in BODY] if launch is attend_alone else BODY


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
    step = _with_exact_products(random_step(OWN, _bodies(launch), SHAPE, torch.float16))
    (got, cache), (expected, other) = (attend(step, SHAPE, way) for way in (launch, None))
    assert expected.isfinite().all()
    assert _same(got, expected)
    assert _same(cache, other)
    loose = 900 if launch is attend_few else 256
    assert _same(attend(step, SHAPE, launch, max_own=1500, max_prompt=loose)[0], expected)


@pytest.mark.parametrize("page", [64, 256])
@ONE_LAUNCH
def test_pages_give_the_bits_and_the_cache_of_one_piece(launch, page):
    step = _with_exact_products(random_step(OWN, _bodies(launch), SHAPE, torch.float16))
    bounds = {"max_own": 700, "max_prompt": max(_bodies(launch))}
    expected, other = attend(step, SHAPE, launch, **bounds)
    got, cache = attend_in_pages(step, SHAPE, launch, page, **bounds)
    assert _same(got, expected)
    assert _same(cache, other)


@ONE_LAUNCH
def test_real_numbers_agree_too(launch):
    step = random_step(OWN, _bodies(launch), SHAPE, torch.float32)
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


def _rows(rows: int, num_kv: int, max_own: int, max_prompt: int) -> StepRows:
    heads = torch.empty(rows, 3 * num_kv, 16, dtype=torch.float16)
    none = torch.empty(0)
    source = KeySource(none, none, none, none, 0, 0)
    return StepRows(
        heads, none, none, none, none, source, source if max_prompt else None, slot_stride=0,
        num_heads=num_kv, num_kv=num_kv, max_own=max_own, max_prompt=max_prompt,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "num_kv", "max_own", "max_prompt", "siblings", "expected"),
    [
        (64, 4, 256, 256, 16, True),  # 7B: few rows, their prompt comes from L2
        (64, 2, 256, 256, 1, False),  # too few programs: a split each
        (512, 2, 8192, 256, 1, True),  # programs enough whatever the lengths
        (512, 2, 512, 256, 16, False),  # siblings read their prompt together
        (512, 2, 512, 0, 16, True),  # there is none to share
        (512, 2, 512, 512, 1, False),  # prompts of two splits
        (128, 2, 1024, 256, 1, True),
        (128, 2, 1280, 256, 1, False),  # long rows are split
    ],
)
def test_rows_are_read_by_one_program_where_nobody_shares_and_programs_are_enough(
    rows, num_kv, max_own, max_prompt, siblings, expected
):
    assert reads_alone(_rows(rows, num_kv, max_own, max_prompt), siblings) is expected
