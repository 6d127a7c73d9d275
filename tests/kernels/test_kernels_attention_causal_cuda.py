import random

import pytest
import torch

pytest.importorskip("triton")

from pellucid.kernels import attention
from pellucid.kernels.available import hopper_ready
from pellucid.kernels.token_trial import random_pack, tokens_agree

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
QWEN = {"0.5B": (14, 2, 64), "1.5B": (12, 2, 128), "7B": (28, 4, 128)}


@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_tokens_together_have_the_bits_of_tokens_alone(shape, monkeypatch):
    monkeypatch.setattr(attention, "PROGRAMS", 1)
    rng = random.Random(0)
    for longest in (3, 90, 700):
        lengths = [rng.randrange(1, longest) for _ in range(40)]
        prompts = [rng.choice([0, 1, 64, rng.randrange(1, 600)]) for _ in lengths]
        pack = random_pack(lengths, prompts, *shape, torch.bfloat16, torch.device("cuda"))
        (together, lse), (alone, other) = pack.attend_together(), pack.attend_alone()
        assert alone.isfinite().all()
        assert torch.equal(together, alone)
        assert torch.equal(lse, other)


@pytest.mark.parametrize("shape", QWEN.values(), ids=QWEN)
def test_this_compiler_and_device_are_trusted(shape):
    """Otherwise exactness is slower; a compiler that sums in another order shows here."""
    if not hopper_ready(torch.device("cuda")):
        pytest.skip("exactness needs a GPU of capability 9.0")
    heads, num_kv, head_dim = shape
    assert tokens_agree(torch.zeros(1, heads, head_dim, device="cuda").bfloat16(), num_kv)
