"""Attention over shared prompts by the CUDA kernels: against a plain float32 computation, and its
gradients too.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from attention_by_token import STRUCTURES, by_token, random_heads
from torch import Tensor

from pellucid.model.attention import PackedCausal
from pellucid.model.flash import attend_exactly, flash_ready
from pellucid.model.shared_attention import SharedPromptAttention

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPES = {"0.5B": (14, 2, 64), "1.5B": (12, 2, 128), "as many": (6, 6, 64), "small": (4, 2, 16)}
MIXED = ([130, 0, 1, 300, 64], [[513, 1, 70, 128], [5, 129], [2], [1, 1, 1], [64, 250]])
Heads = tuple[Tensor, Tensor, Tensor]


def results(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], heads: Heads, up: Tensor
) -> list[Tensor]:
    """Output and gradients of q, k, v; the heads come as views of one tensor, as in the decoder."""
    sizes = [x.shape[1] for x in heads]
    fused = torch.cat(heads, dim=1).detach().requires_grad_()
    q, k, v = fused.split(sizes, dim=1)
    out = attend(q, k, v)
    (grad,) = torch.autograd.grad(out, fused, up.to(out.dtype))
    return [out.detach(), *grad.split(sizes, dim=1)]


def check(
    name_or_pack: str | tuple[list[int], list[list[int]]],
    shape: tuple[int, int, int],
    *,
    dtype: torch.dtype = torch.bfloat16,
    exact: bool = False,
) -> None:
    """Errors stay within twice those of plain torch in the same type."""
    pack = STRUCTURES[name_or_pack] if isinstance(name_or_pack, str) else name_or_pack
    tokens = sum(pack[0]) + sum(map(sum, pack[1]))
    # Rounded once, so that both sides compute with the same numbers.
    rounded = tuple(x.detach().cuda().to(dtype) for x in random_heads(tokens, torch.float32, shape))
    up = torch.linspace(-1, 1, tokens * shape[0] * shape[2], device="cuda")
    up = up.view(tokens, -1).to(dtype)
    attend = SharedPromptAttention(*pack, "cuda")
    wide = tuple(x.float() for x in rounded)
    assert flash_ready(rounded[0])
    expected = results(attend._plain, wide, up.float())
    plain = results(attend._plain, rounded, up)
    got = results(functools.partial(attend.attend, exact=exact), rounded, up)
    for label, value, rough, want in zip(
        ["out", "dq", "dk", "dv"], got, plain, expected, strict=True
    ):
        scale = want.abs().max().item()
        error = (value.float() - want).norm() / want.norm().clamp(min=0.1)
        allowed = (rough.float() - want).norm() / want.norm().clamp(min=0.1)
        worst = (value.float() - want).abs().max().item()
        assert error <= max(2 * allowed.item(), 1e-2), f"{label}: {error} against {allowed}"
        assert worst <= 0.05 * max(scale, 0.1), f"{label}: {worst} of {scale}"


def test_the_plain_path_on_the_device_is_attention_token_by_token() -> None:
    bodies, own = STRUCTURES["a one-token prompt among others"]
    heads = random_heads(sum(bodies) + sum(map(sum, own)), torch.float32)
    heads = tuple(x.detach().cuda().requires_grad_() for x in heads)
    out = SharedPromptAttention(bodies, own, "cuda").attend(*heads)
    torch.testing.assert_close(out, by_token(*heads, bodies, own), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_mixed_lengths_agree_with_float32(shape: str) -> None:
    check(MIXED, SHAPES[shape])


@pytest.mark.parametrize("name", STRUCTURES)
def test_small_packs_agree_with_float32(name: str) -> None:
    check(name, SHAPES["0.5B"])


def test_half_precision_agrees_with_float32() -> None:
    check(MIXED, SHAPES["0.5B"], dtype=torch.float16)


def test_the_0_5b_pack_of_a_grpo_step_agrees_with_float32() -> None:
    check(([128, 128], [[512] * 16, [512] * 16]), SHAPES["0.5B"])


@pytest.mark.parametrize("shape", ["0.5B", "1.5B"])
def test_the_exact_forward_agrees_and_has_the_same_gradients(shape: str) -> None:
    check(MIXED, SHAPES[shape], exact=True)


def test_the_exact_forward_of_a_sequence_has_the_same_bits_in_any_pack() -> None:
    heads = tuple(
        x.detach().cuda().bfloat16() for x in random_heads(90, torch.float32, SHAPES["0.5B"])
    )
    # Tokens 30 … 79 are an own row of the body 0 … 29, beside others or alone.
    beside = SharedPromptAttention([30], [[50, 10]], "cuda")
    alone = SharedPromptAttention([30], [[50]], "cuda")
    first = tuple(x[:80] for x in heads)
    together = attend_exactly(*heads, beside._segments, beside._keys)
    assert torch.equal(together[:80], attend_exactly(*first, alone._segments, alone._keys))


def test_packed_sequences_agree_with_float32() -> None:
    lengths = torch.tensor([7, 300, 1, 129], device="cuda")
    heads = random_heads(int(lengths.sum()), torch.float32, SHAPES["0.5B"])
    heads = tuple(x.detach().cuda().bfloat16() for x in heads)
    packed = PackedCausal(lengths)
    want = packed.attend(*(x.float() for x in heads))
    torch.testing.assert_close(packed.attend(*heads).float(), want, atol=2e-2, rtol=2e-2)


def test_gradients_have_the_same_bits_every_time() -> None:
    tokens = sum(MIXED[0]) + sum(map(sum, MIXED[1]))
    heads = random_heads(tokens, torch.float32, SHAPES["0.5B"])
    heads = tuple(x.detach().cuda().bfloat16() for x in heads)
    up = torch.linspace(-1, 1, tokens * 14 * 64, device="cuda").view(tokens, -1)
    attend = SharedPromptAttention(*MIXED, "cuda")
    first = results(attend.attend, heads, up)
    for _ in range(3):
        for a, b in zip(first, results(attend.attend, heads, up), strict=True):
            assert torch.equal(a, b)


def test_nothing_waits_for_the_device() -> None:
    heads = random_heads(10, torch.float32, SHAPES["0.5B"])
    heads = tuple(x.detach().cuda().bfloat16() for x in heads)
    up = torch.ones(10, 14 * 64, device="cuda")
    results(SharedPromptAttention([4], [[4, 2]], "cuda").attend, heads, up)  # loads the kernels
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results(SharedPromptAttention([4], [[4, 2]], "cuda").attend, heads, up)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
