import math

import numpy as np
import pytest
import torch

from pellucid.errors import NumericsError
from pellucid.records import SamplingParams
from pellucid.rollout import sampling
from pellucid.rollout.sampling import sample

PARAMS = [
    SamplingParams(), SamplingParams(temperature=0.6), SamplingParams(top_k=5),
    SamplingParams(top_p=0.7), SamplingParams(temperature=1.7, top_k=40, top_p=0.9),
    SamplingParams(top_p=0.01), SamplingParams(top_k=1), SamplingParams(top_k=10**6, top_p=0.999),
]  # fmt: skip


def distribution(row: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Slow and obvious: probabilities [V] after temperature, top-k and top-p, ties to lower ids."""
    weights = np.exp(((row - row.max()) / np.float32(params.temperature)).astype(np.float32))
    weights = weights.astype(np.float64)
    order = sorted(range(len(row)), key=lambda i: (-weights[i], i))
    if params.top_k:
        order = order[: params.top_k]
    total, kept, mass = sum(weights[i] for i in order), [], 0.0
    for i in order:
        if kept and mass >= params.top_p * total and params.top_p < 1:
            break
        kept.append(i)
        mass += weights[i]
    out = np.zeros(len(row))
    out[kept] = weights[kept]
    return out / out.sum()


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("vocab", [7, 128, 1300])
def test_tokens_and_logprobs_follow_the_slow_definition(params, vocab) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(40, vocab, generator=generator) * 3
    u = torch.rand(40, generator=generator, dtype=torch.float64)
    tokens, logprobs = sample(logits, u, params)
    assert (tokens.dtype, logprobs.dtype) == (torch.int64, torch.float32)
    for row in range(40):
        p = distribution(logits[row].numpy(), params)
        expected = int(np.nonzero(p.cumsum() > float(u[row]))[0][0])
        assert int(tokens[row]) == expected
        assert float(logprobs[row]) == pytest.approx(math.log(p[expected]), abs=2e-6)


@pytest.mark.parametrize("params", PARAMS)
def test_the_support_of_truncated_sampling_is_exact_with_ties(params) -> None:
    logits = torch.tensor([[2.0, 1.0, 2.0, 2.0, 0.0, 1.0, -1.0, 1.0, -1.5, 2.0]])
    grid = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens, _ = sample(logits.expand(4000, -1), grid, params)
    support = np.nonzero(distribution(logits[0].numpy(), params))[0]
    assert sorted(set(tokens.tolist())) == support.tolist()


def test_a_nucleus_wider_than_the_first_guess_is_still_exact() -> None:
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) * 0.1
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    sampling.truncate(weights, 0, 0.9)
    for row in range(3):
        expected = distribution(logits[row].numpy(), SamplingParams(top_p=0.9)) > 0
        assert expected.sum() > sampling.NUCLEUS_GUESS
        assert np.array_equal(weights[row].numpy() > 0, expected)


def test_frequencies_match_the_distribution_by_chi_square() -> None:
    num = 200_000
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    u = torch.rand(num, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tokens, _ = sample(logits.expand(num, -1), u, SamplingParams(temperature=0.8))
    p = distribution(logits[0].numpy(), SamplingParams(temperature=0.8))
    counts = np.bincount(tokens.numpy(), minlength=50)
    chi_square = ((counts - num * p) ** 2 / (num * p)).sum()
    assert chi_square < 85.4  # 49 degrees of freedom, one in a thousand


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_reach_only_tokens_that_have_mass(u) -> None:
    logits = torch.full((1, 300), -torch.inf)
    logits[0, [130, 200, 290]] = torch.tensor([1.0, 3.0, 0.1])
    token, logprob = sample(logits, torch.tensor([u], dtype=torch.float64), SamplingParams())
    expected = 130 if u == 0 else 290
    assert int(token) == expected
    assert float(logprob) == pytest.approx(float(logits.log_softmax(-1)[0, expected]), abs=1e-6)


def test_temperature_zero_is_greedy_with_the_logprob_of_temperature_one() -> None:
    logits = torch.randn(6, 333, generator=torch.Generator().manual_seed(4))
    u = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    tokens, logprobs = sample(logits, u, SamplingParams(temperature=0, top_k=3, top_p=0.5))
    assert tokens.tolist() == logits.argmax(-1).tolist()
    assert torch.allclose(logprobs, logits.log_softmax(-1).amax(-1), atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [PARAMS[0], PARAMS[3], PARAMS[4], SamplingParams(temperature=0)])
def test_logits_that_are_not_finite_raise(bad, params) -> None:
    logits = torch.zeros(3, 200)
    logits[1, 150] = bad
    with pytest.raises(NumericsError, match="row 1"):
        sample(logits, torch.full((3,), 0.5, dtype=torch.float64), params)


def test_a_row_is_drawn_alike_alone_and_in_a_batch_and_a_buffer_leaves_no_trace() -> None:
    generator = torch.Generator().manual_seed(9)
    logits, u = (
        torch.randn(70, 6000, generator=generator),
        torch.rand(70, generator=generator).double(),
    )
    sampler = sampling.Sampler(6000, SamplingParams(), torch.device("cpu"))
    sampler(logits + 5, u)
    tokens, logprobs = sampler(logits.bfloat16(), u)
    for row in (0, 33, 69):
        token, logprob = sample(
            logits[row : row + 1].bfloat16(), u[row : row + 1], SamplingParams()
        )
        assert (int(token), float(logprob)) == (int(tokens[row]), float(logprobs[row]))
