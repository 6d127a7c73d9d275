"""The two-part attention and its gradients, with the kernels played by plain arithmetic.

The players keep the kernels' promises: log-sum-exps [H, T], +inf without a key, and a backward pass
that takes the output and log-sum-exp it is given.
"""

from itertools import pairwise

import pytest
import torch
from attention_by_token import STRUCTURES, by_token, random_heads
from torch import Tensor

from pellucid.model import flash, shared_attention
from pellucid.model.shared_attention import SharedPromptAttention


def segments(starts: Tensor) -> list[slice]:
    return [slice(a, b) for a, b in pairwise(starts.tolist())]


def masked_scores(q: Tensor, k: Tensor, *, is_causal: bool) -> Tensor:
    group = q.shape[1] // k.shape[1]
    scores = torch.einsum("qhk,shk->hqs", q, k.repeat_interleave(group, 1)) / q.shape[2] ** 0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
    return scores


def play_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor,
    k_starts: Tensor,
    longest_q: int,
    longest_k: int,
    *,
    is_causal: bool,
) -> tuple[Tensor, Tensor]:
    out, lse = torch.zeros_like(q), q.new_full((q.shape[1], q.shape[0]), torch.inf)
    group = q.shape[1] // k.shape[1]
    for rows, keys in zip(segments(q_starts), segments(k_starts), strict=True):
        assert rows.stop - rows.start <= longest_q
        assert keys.stop - keys.start <= longest_k
        if keys.start == keys.stop:
            continue
        scores = masked_scores(q[rows], k[keys], is_causal=is_causal)
        lse[:, rows] = scores.logsumexp(-1)
        value = v[keys].repeat_interleave(group, 1)
        out[rows] = torch.einsum("hqs,shk->qhk", scores.softmax(-1), value)
    return out, lse


def play_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    q_starts: Tensor,
    k_starts: Tensor,
    longest_q: int,
    longest_k: int,
    *,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    assert lse.is_contiguous()
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    group, scale = q.shape[1] // k.shape[1], q.shape[2] ** -0.5
    for rows, keys in zip(segments(q_starts), segments(k_starts), strict=True):
        scores = masked_scores(q[rows], k[keys], is_causal=is_causal)
        weights = (scores - lse[:, rows].unsqueeze(2)).exp()
        value = v[keys].repeat_interleave(group, 1)
        correction = (grad[rows] * out[rows]).sum(-1).t().unsqueeze(2)
        d_scores = weights * (torch.einsum("qhk,shk->hqs", grad[rows], value) - correction) * scale
        dq[rows] = torch.einsum("hqs,shk->qhk", d_scores, k[keys].repeat_interleave(group, 1))
        per_head = torch.einsum("hqs,qhk->shk", d_scores, q[rows])
        dk[keys] = per_head.unflatten(1, (-1, group)).sum(2)
        per_head = torch.einsum("hqs,qhk->shk", weights, grad[rows])
        dv[keys] = per_head.unflatten(1, (-1, group)).sum(2)
    return dq, dk, dv


@pytest.mark.parametrize("is_exact", [False, True])
@pytest.mark.parametrize("smallest_part", [1, 3, 256])
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_two_parts_give_the_softmax_over_both_and_its_gradients(
    name: str, smallest_part: int, is_exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_exact:
        pytest.importorskip("triton")
    monkeypatch.setattr(shared_attention, "SMALLEST_PART", smallest_part)
    monkeypatch.setattr(flash, "_flash_forward", play_forward)
    monkeypatch.setattr(flash, "_flash_backward", play_backward)
    bodies, own = STRUCTURES[name]
    heads = random_heads(sum(bodies) + sum(map(sum, own)), torch.float32, (4, 2, 16))
    attend = SharedPromptAttention(bodies, own)
    if is_exact:
        out = flash.attend_exactly(*heads, attend._segments, attend._keys)
    else:
        out = flash.attend_flash(*heads, attend._segments)
    expected = by_token(*heads, bodies, own)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    up = torch.linspace(-1, 1, out.numel()).view_as(out)
    for got, want in zip(
        torch.autograd.grad(out, heads, up), torch.autograd.grad(expected, heads, up), strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_the_repeatable_kernel_leaves_torch_as_it_found_it() -> None:
    fills = torch.utils.deterministic.fill_uninitialized_memory
    with flash._repeatable():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is fills
