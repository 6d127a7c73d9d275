"""The fused output head at the shapes of real models."""

import math

import pytest
import torch
from torch import Tensor

from pellucid.algo.head import float32_logits
from pellucid.records import SamplingParams
from pellucid.rollout.sampling import Sampler

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
from pellucid.kernels.head_sample import HeadSampler, score
from pellucid.kernels.head_stats import TILES, Stats, head_stats

VOCAB, WIDTH = 151936, 896


def random_head(rows: int, vocab: int = VOCAB, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """bfloat16 hidden and weight whose logits have standard deviation 3."""
    generator = torch.Generator("cuda").manual_seed(rows + vocab)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    return normal(rows, width).bfloat16(), (normal(vocab, width) * 3 / math.sqrt(width)).bfloat16()


def uniforms(rows: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(rows)
    return torch.rand(rows, generator=generator, device="cuda", dtype=torch.float64)


def draw(hidden: Tensor, weight: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return HeadSampler(weight, temperature=temperature, max_rows=len(hidden))(hidden, u)


@pytest.mark.parametrize(
    ("rows", "vocab", "width"),
    [(1024, VOCAB, WIDTH), (512, VOCAB, WIDTH), (64, VOCAB, WIDTH), (100, 152064, 3584),
     (1, VOCAB, WIDTH), (77, 49153, 576)],
)  # fmt: skip
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_and_logprobs_are_those_of_the_sampler(rows, vocab, width, temperature) -> None:
    hidden, weight = random_head(rows, vocab, width)
    u = uniforms(rows)
    tokens, logprobs = draw(hidden, weight, u, temperature)
    logits = float32_logits(hidden, weight)
    params = SamplingParams(temperature=temperature)
    expected, _ = Sampler(vocab, params, logits.device)(logits, u)
    assert int((tokens != expected).sum()) <= 2 + rows // 50
    every = (logits.double() / temperature).log_softmax(-1)
    mine = every.gather(1, tokens[:, None])[:, 0]
    # The reference's logits are float32 sums over the width too, in another order.
    torch.testing.assert_close(logprobs.double(), mine, rtol=0, atol=1e-7 * width / temperature)
    # A token that differs lies beside the boundary.
    reached = every.exp_().cumsum(-1).gather(1, tokens[:, None])[:, 0]
    assert (u < reached + 1e-5).all()
    assert (u > reached - mine.exp() - 1e-5).all()


def test_greedy_takes_the_largest_logit() -> None:
    hidden, weight = random_head(256)
    tokens, logprobs = draw(hidden, weight, uniforms(256), 0.0)
    logits = float32_logits(hidden, weight)
    best = logits.amax(-1)
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(chosen, best, rtol=0, atol=1e-5)
    assert int((tokens != logits.argmax(-1)).sum()) <= 1
    torch.testing.assert_close(logprobs, best - logits.logsumexp(-1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_block_statistics_agree_with_float64(dtype) -> None:
    hidden, weight = (part.to(dtype) for part in random_head(70, 5001, 200))
    stats = Stats.empty(70, 5001, hidden.device, has_moment=True)
    head_stats(hidden, weight, 0.7, stats)
    logits = hidden.double() @ weight.double().t()
    blocks = torch.nn.functional.pad(logits, (0, -5001 % 128), value=-1e9).view(70, -1, 128)
    top = blocks.amax(-1)
    below = blocks - top[..., None]
    weights = (below / 0.7).exp()
    torch.testing.assert_close(stats.top.double(), top, rtol=0, atol=1e-5)
    torch.testing.assert_close(stats.mass.double(), weights.sum(-1), rtol=1e-5, atol=0)
    moment = (weights * below).sum(-1)
    torch.testing.assert_close(stats.moment.double(), moment, rtol=1e-5, atol=1e-5)


def test_the_bits_of_a_row_do_not_depend_on_the_number_of_rows_or_the_tile() -> None:
    hidden, weight = random_head(1024)
    u = uniforms(1024)
    tokens, logprobs = draw(hidden, weight, u, 1.0)
    for rows in (slice(0, 64), slice(960, 1024), slice(500, 501), slice(100, 228), slice(3, 900)):
        some, some_logprobs = draw(hidden[rows], weight, u[rows], 1.0)
        assert torch.equal(some, tokens[rows])
        assert torch.equal(some_logprobs, logprobs[rows])
    stats = [Stats.empty(256, VOCAB, hidden.device, has_moment=False) for _ in TILES]
    for out, tile in zip(stats, TILES.values(), strict=True):
        head_stats(hidden[:256], weight, 1.0, out, tile=tile)
        assert torch.equal(out.top, stats[0].top), tile
        assert torch.equal(out.mass, stats[0].mass), tile


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
@pytest.mark.parametrize(("vocab", "width"), [(VOCAB, WIDTH), (49153, 576)])
def test_the_score_of_a_drawn_token_is_its_logprob_to_the_last_bit(
    temperature, vocab, width
) -> None:
    hidden, weight = random_head(700, vocab, width)
    tokens, logprobs = draw(hidden, weight, uniforms(700), temperature)
    logits = torch.empty(700, vocab, device="cuda")
    for wanted in (None, logits):
        scores = score(hidden, weight, tokens, temperature, logits=wanted)
        assert torch.equal(scores.logprobs, logprobs)
    torch.testing.assert_close(logits, float32_logits(hidden, weight), rtol=1e-5, atol=1e-4)


def test_scores_agree_with_log_softmax() -> None:
    hidden, weight = random_head(300)
    targets = torch.arange(300, device="cuda") * 500
    scores = score(hidden, weight, targets, 0.8)
    logits = float32_logits(hidden, weight).double() / 0.8
    every = logits.log_softmax(-1)
    for mine, theirs in (
        (scores.logprobs, every.gather(1, targets[:, None])[:, 0]),
        (scores.peak / 0.8, logits.amax(-1)),
        (scores.log2_sum, (logits.logsumexp(-1) - logits.amax(-1)) / math.log(2)),
        (scores.entropy, -(every.exp() * every).sum(-1)),
    ):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=2e-5)


def test_a_captured_call_follows_its_inputs() -> None:
    hidden, weight = random_head(128)
    u = uniforms(128)
    sampler = HeadSampler(weight, temperature=1.0, max_rows=256)
    sampler(hidden, u)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens, logprobs = sampler(hidden, u)
    hidden.copy_(hidden.roll(1, 0))
    u.copy_(u.flip(0))
    weight.copy_(weight.roll(5, 0))
    graph.replay()
    replayed = tokens.clone(), logprobs.clone()
    expected = draw(hidden, weight, u, 1.0)
    assert torch.equal(replayed[0], expected[0])
    assert torch.equal(replayed[1], expected[1])


def test_frequencies_match_the_distribution_by_chi_square() -> None:
    hidden, weight = random_head(1, 200, 64)
    hidden = hidden.expand(40000, -1).contiguous()
    tokens, _ = draw(hidden, weight, uniforms(40000), 4.0)
    expected = (float32_logits(hidden[:1], weight)[0].double() / 4).softmax(-1) * 40000
    counts = torch.bincount(tokens, minlength=200)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 267.0  # 199 degrees of freedom, one in a thousand


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_a_valid_token_without_a_finite_logprob(
    bad, temperature
) -> None:
    hidden, weight = random_head(64)
    hidden[[5, 63], 11] = bad
    tokens, logprobs = draw(hidden, weight, uniforms(64), temperature)
    is_bad = ~torch.isfinite(logprobs)
    assert is_bad.nonzero()[:, 0].tolist() == [5, 63]
    assert ((tokens >= 0) & (tokens < VOCAB)).all()
