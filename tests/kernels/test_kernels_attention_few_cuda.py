import random

import pytest
import torch

pytest.importorskip("triton")

from attention_rows import Shape
from few_rows import attend, attend_in_pages, random_step

from pellucid.kernels.attention_alone import attend_alone
from pellucid.kernels.attention_few import attend_few

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
QWEN = {"0.5B": Shape(14, 2, 64), "1.5B": Shape(12, 2, 128), "7B": Shape(28, 4, 128)}


@pytest.mark.parametrize("launch", [attend_few, attend_alone])
@pytest.mark.parametrize("count", [1, 12, 64])
@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_one_launch_gives_the_bits_and_the_cache_of_four(shape, count, launch):
    rng = random.Random(count)
    torch.manual_seed(count)
    for longest in (200, 1500):
        own = [
            rng.choice([0, 1, 64, 65, 256, 257, rng.randrange(1, longest)]) for _ in range(count)
        ]
        body = [rng.choice([0, 63, 64, 128, 255, 256, rng.randrange(longest)]) for _ in own]
        if launch is attend_alone:
            body = [min(count, 256) for count in body]
        step = random_step(own, body, shape, torch.bfloat16, "cuda")
        angles = torch.rand(step.table.shape[1:], device="cuda")
        step = step._replace(table=torch.stack([angles.cos(), angles.sin()]))
        bounds = {"max_own": 1536, "max_prompt": max(body)}
        expected, other = attend(step, shape, None, **bounds)
        for _ in range(3):
            got, cache = attend(step, shape, launch, **bounds)
            assert torch.equal(got, expected)
            assert torch.equal(cache.nan_to_num(7.0), other.nan_to_num(7.0))
        for page in (64, 256):
            got, cache = attend_in_pages(step, shape, launch, page, **bounds)
            assert torch.equal(got, expected)
            assert torch.equal(cache.nan_to_num(7.0), other.nan_to_num(7.0))
