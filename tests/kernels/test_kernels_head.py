import math

import pytest
import torch
from torch import Tensor

from pellucid.errors import ModelError
from pellucid.records import SamplingParams
from pellucid.rollout.sampling import Sampler

pytest.importorskip("triton")
from pellucid.kernels import head_stats as head_stats_module
from pellucid.kernels.head_sample import HeadSampler, score
from pellucid.kernels.head_stats import Stats, Tile, head_stats

if torch.cuda.is_available():
    pytest.skip("with a GPU test_kernels_head_cuda tests the kernels", allow_module_level=True)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch) -> None:
    """The interpreter computes void rows too."""
    monkeypatch.setattr(head_stats_module, "FLOAT32_TILE", Tile(8, 128, 4, 2, 1))
    monkeypatch.setattr(head_stats_module, "TILES", {16: Tile(16, 256, 4, 2, 1)})


def random_head(rows: int, vocab: int, width: int, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + vocab)
    hidden = torch.randn(rows, width, generator=generator) * 2
    weight = torch.randn(vocab, width, generator=generator) / math.sqrt(width)
    return hidden.to(dtype), weight.to(dtype)


def integer_head(rows: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """A head whose logits are exactly `logits` [V] on every row, in any order of summation."""
    weight = torch.zeros(len(logits), 32)
    weight[:, 3], weight[:, 30] = logits - 2, 1
    hidden = torch.zeros(rows, 32)
    hidden[:, 3], hidden[:, 30] = 1, 2
    return hidden, weight


def uniforms(rows: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(hidden: Tensor, weight: Tensor, u: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    sampler = HeadSampler(weight, temperature=temperature, max_rows=len(hidden))
    return sampler(hidden, u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocab", "temperature"), [(300, 1.0), (512, 0.7)])
def test_block_statistics_agree_with_float64(dtype, vocab, temperature) -> None:
    hidden, weight = random_head(19, vocab, 40, dtype)
    stats = Stats.empty(19, vocab, hidden.device, has_moment=True)
    head_stats(hidden, weight, temperature, stats)
    logits = hidden.double() @ weight.double().t()
    padded = torch.nn.functional.pad(logits, (0, -vocab % 128), value=-math.inf).view(19, -1, 128)
    top = padded.amax(-1)
    below = padded - top[..., None]
    weights = (below / temperature).exp()
    moment = (weights * below.clamp(min=-1e9)).sum(-1)
    torch.testing.assert_close(stats.top.double(), top, rtol=0, atol=4e-6)
    torch.testing.assert_close(stats.mass.double(), weights.sum(-1), rtol=4e-6, atol=0)
    torch.testing.assert_close(stats.moment.double(), moment, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_exact_logits_give_the_tokens_of_the_sampler(temperature) -> None:
    logits = torch.randint(-6, 3, (300,), generator=torch.Generator().manual_seed(5)).float()
    rows = {1.0: 60, 0.5: 20, 0.0: 4}[temperature]
    u = uniforms(rows)
    hidden, weight = integer_head(rows, logits)
    tokens, logprobs = draw(hidden, weight, u, temperature)
    sampler = Sampler(300, SamplingParams(temperature=temperature), logits.device)
    expected, expected_logprobs = sampler(logits.expand(rows, -1), u)
    assert tokens.tolist() == expected.tolist()
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=0, atol=2e-6)


def test_frequencies_match_the_distribution_by_chi_square() -> None:
    rows = 80
    logits = torch.randn(6, generator=torch.Generator().manual_seed(1))
    hidden, weight = integer_head(rows, logits)
    tokens, _ = draw(hidden, weight, uniforms(rows, 2), 0.8)
    expected = (logits / 0.8).softmax(-1) * rows
    counts = torch.bincount(tokens, minlength=6)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 20.5  # 5 degrees of freedom, one in a thousand


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_and_logprobs_agree_with_the_sampler_on_the_same_head(dtype) -> None:
    hidden, weight = random_head(30, 300, 32, dtype)
    u = uniforms(30)
    tokens, logprobs = draw(hidden, weight, u, 0.8)
    logits = hidden.float() @ weight.float().t()
    expected, expected_logprobs = Sampler(300, SamplingParams(temperature=0.8), u.device)(logits, u)
    assert tokens.tolist() == expected.tolist()
    torch.testing.assert_close(logprobs, expected_logprobs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_the_score_of_a_drawn_token_is_its_logprob_to_the_last_bit(temperature) -> None:
    hidden, weight = random_head(13, 300, 40, torch.bfloat16)
    tokens, logprobs = draw(hidden, weight, uniforms(13), temperature)
    assert torch.equal(score(hidden, weight, tokens, temperature).logprobs, logprobs)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_agree_with_log_softmax(temperature) -> None:
    hidden, weight = random_head(11, 300, 40)
    targets = torch.arange(11) * 29
    scores = score(hidden, weight, targets, temperature)
    logits = hidden.double() @ weight.double().t() / temperature
    every = logits.log_softmax(-1)
    expected = every.gather(1, targets[:, None])[:, 0]
    for mine, theirs in (
        (scores.logprobs, expected),
        (scores.peak / temperature, logits.amax(-1)),
        (scores.log2_sum, (logits.logsumexp(-1) - logits.amax(-1)) / math.log(2)),
        (scores.entropy, -(every.exp() * every).sum(-1)),
    ):
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize("vocab", [300, 384, 90])
@pytest.mark.parametrize("rows", [1, 64, 70])
def test_logits_are_written_where_they_are_wanted_and_change_no_score(rows, vocab) -> None:
    hidden, weight = random_head(rows, vocab, 40)
    targets = torch.arange(rows) % vocab
    room = torch.full((rows + 1, vocab), 7.0)
    with_logits = score(hidden, weight, targets, 0.7, logits=room[:rows])
    torch.testing.assert_close(room[:rows], hidden @ weight.t(), rtol=1e-5, atol=1e-5)
    assert (room[rows] == 7.0).all()
    for mine, theirs in zip(with_logits, score(hidden, weight, targets, 0.7), strict=True):
        assert torch.equal(mine, theirs)


def test_no_rows_give_no_scores() -> None:
    hidden, weight = random_head(3, 300, 32)
    assert score(hidden[:0], weight, torch.zeros(0, dtype=torch.int64), 1.0).entropy.shape == (0,)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    hidden, weight = random_head(20, 300, 40, torch.bfloat16)
    u = uniforms(20)
    sampler = HeadSampler(weight, temperature=1.0, max_rows=20)
    tokens, logprobs = (out.clone() for out in sampler(hidden, u))
    for row in (0, 17, 19):
        token, logprob = sampler(hidden[row : row + 1], u[row : row + 1])
        assert (token[0], logprob[0]) == (tokens[row], logprobs[row])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy under the interpreter
@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_a_valid_token_without_a_finite_logprob(
    bad, temperature
) -> None:
    hidden, weight = integer_head(3, torch.arange(300.0) / 300)
    weight[:, 7] = 1
    hidden[1, 7] = bad
    tokens, logprobs = draw(hidden, weight, torch.full((3,), 0.7).double(), temperature)
    assert torch.isfinite(logprobs).tolist() == [True, False, True]
    assert tokens[0] == tokens[2]
    assert 0 <= int(tokens[1]) < 300
    assert torch.isfinite(score(hidden, weight, tokens, 1.0).logprobs).tolist() == [1, 0, 1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy under the interpreter
@pytest.mark.parametrize("place", [5, 150, 299])
def test_one_logit_that_is_not_a_number_shows_in_its_row(place) -> None:
    hidden, weight = integer_head(2, torch.zeros(300))
    weight[place, 9] = math.nan
    tokens, logprobs = draw(hidden, weight, torch.full((2,), 0.01).double(), 1.0)
    assert not torch.isfinite(logprobs).any()  # 0 times NaN too is NaN
    assert ((tokens >= 0) & (tokens < 300)).all()


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53, 1.0])
def test_the_ends_of_the_interval_reach_only_tokens_that_have_mass(u) -> None:
    logits = torch.full((300,), -200.0)
    logits[[130, 200, 290]] = torch.tensor([1.0, 3.0, 0.0])
    hidden, weight = integer_head(1, logits)
    token, logprob = draw(hidden, weight, torch.tensor([u], dtype=torch.float64), 1.0)
    expected = 130 if u == 0 else 290
    assert int(token) == expected
    assert float(logprob) == pytest.approx(float(logits.log_softmax(-1)[expected]), abs=1e-6)


def test_greedy_takes_the_lowest_of_equal_ids() -> None:
    logits = torch.zeros(300)
    logits[[140, 141, 299]] = 2.0
    hidden, weight = integer_head(2, logits)
    tokens, logprobs = draw(hidden, weight, uniforms(2), 0.0)
    assert tokens.tolist() == [140, 140]
    assert float(logprobs[0]) == pytest.approx(float(logits.log_softmax(-1)[140]), abs=1e-6)


def test_a_certain_token_has_logprob_zero_at_most() -> None:
    hidden, weight = random_head(8, 300, 48)
    weight[77] = hidden[4]
    hidden[:] = hidden[4] * torch.linspace(1, 3, 8)[:, None]
    tokens, logprobs = draw(hidden, weight, uniforms(8), 1.0)
    assert set(tokens.tolist()) == {77}
    assert (logprobs <= 0).all()
    assert (logprobs > -1e-3).all()  # of logits of a thousand, whose last bit is 6e-5


def test_a_target_outside_the_vocabulary_scores_nan() -> None:
    hidden, weight = random_head(3, 300, 32)
    scores = score(hidden, weight, torch.tensor([-1, 300, 299]), 1.0)
    assert torch.isnan(scores.logprobs).tolist() == [True, True, False]


def test_a_width_that_the_kernels_cannot_read_is_refused() -> None:
    hidden, weight = random_head(2, 300, 36, torch.bfloat16)
    with pytest.raises(ModelError, match="width 36"):
        draw(hidden, weight, uniforms(2), 1.0)
