import math

import pytest
import torch
from torch import Tensor

from pellucid.records import SamplingParams
from pellucid.rollout import sampling
from pellucid.rollout.sampling import Sampler

pytest.importorskip("triton")
from pellucid.kernels import truncate as truncate_module
from pellucid.kernels.truncate import truncate

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RULES = [(5, 1.0), (0, 0.7), (40, 0.9), (0, 0.01), (1, 1.0), (1, 0.5), (10**6, 0.97), (200, 0.999)]


def softmax_weights(rows: int, vocab: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(rows * vocab)
    logits = torch.randn(rows, vocab, generator=generator) * spread
    return torch.exp(logits - logits.amax(-1, keepdim=True))


def check(weights: Tensor, top_k: int, top_p: float) -> Tensor:
    """Both truncations give the same; returns it."""
    mine, theirs = weights.clone().to(DEVICE), weights.clone()
    truncate(mine, top_k, top_p)
    sampling.truncate(theirs, top_k, top_p)
    assert torch.equal(mine.cpu(), theirs)
    return theirs


@pytest.mark.parametrize(("top_k", "top_p"), RULES)
def test_what_is_kept_is_what_sorting_keeps(top_k, top_p) -> None:
    check(softmax_weights(3, 300, 2.0), top_k, top_p)


@pytest.mark.parametrize(("top_k", "top_p"), RULES)
def test_among_equal_weights_the_lower_ids_are_kept(top_k, top_p) -> None:
    generator = torch.Generator().manual_seed(3)
    weights = 2.0 ** -torch.randint(0, 5, (2, 300), generator=generator)
    kept = check(weights, top_k, top_p)
    assert (kept > 0).any(-1).all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.25, 1), (0.2500001, 2), (0.5, 2), (0.76, 4)])
def test_a_tie_at_the_edge_of_the_nucleus_is_cut_at_the_right_id(top_p, kept) -> None:
    weights = torch.zeros(1, 300)
    weights[0, [17, 130, 140, 299]] = 1.0
    out = check(weights, 0, top_p)
    assert int((out > 0).sum()) == kept


@pytest.mark.parametrize(("top_k", "top_p"), [(7, 1.0), (7, 0.5), (0, 0.31)])
def test_a_flat_row_over_several_chunks_keeps_its_first_ids(monkeypatch, top_k, top_p) -> None:
    monkeypatch.setattr(truncate_module, "CHUNK", 64)
    out = check(torch.ones(1, 300), top_k, top_p)
    num_kept = int((out > 0).sum())
    assert (out[0, :num_kept] == 1).all()


def test_weights_that_underflow_are_ordered_too() -> None:
    weights = torch.zeros(1, 260)
    weights[0, 5:13] = torch.tensor([1.0, 1e-30, 1e-40, 2e-40, 1e-45, 0.0, 1e-38, 1e-44])
    for top_k in (2, 3, 4, 5, 6, 7):
        assert int((check(weights, top_k, 1.0) > 0).sum()) == top_k


def test_nothing_left_out_writes_nothing_and_other_rows_of_a_wider_buffer_stay() -> None:
    weights = softmax_weights(2, 300, 1.0).to(DEVICE)
    before = weights.clone()
    truncate(weights, 0, 1.0)
    truncate(weights, 300, 1.0)
    assert torch.equal(weights, before)
    truncate(weights[:, :290], 3, 1.0)
    assert torch.equal(weights[:, 290:], before[:, 290:])
    assert (weights[:, :290] > 0).sum(-1).tolist() == [3, 3]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy under the interpreter
@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.9), (3, 0.9)])
@pytest.mark.parametrize("bad", [math.nan, -math.nan])
def test_a_weight_that_is_not_a_number_stays(bad, top_k, top_p) -> None:
    weights = softmax_weights(2, 300, 1.0)
    weights[0, 150] = torch.tensor(math.nan).copysign(torch.tensor(bad))
    weights = weights.to(DEVICE)
    truncate(weights, top_k, top_p)
    assert torch.isnan(weights).sum(-1).tolist() == [1, 0]


def test_the_sampler_draws_alike_with_and_without_the_kernel(monkeypatch) -> None:
    params = SamplingParams(temperature=0.8, top_k=30, top_p=0.9)
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(8)).to(DEVICE)
    u = torch.linspace(0, 0.999, 4, dtype=torch.float64, device=DEVICE)
    monkeypatch.setenv("PELLUCID_KERNELS", "0")
    plain = Sampler(300, params, DEVICE)
    assert not plain.is_capturable
    monkeypatch.setenv("PELLUCID_KERNELS", "interpret")
    calls = []
    monkeypatch.setattr(truncate_module, "truncate", lambda *args: calls.append(truncate(*args)))
    fast = Sampler(300, params, DEVICE)
    assert torch.equal(fast(logits, u)[0], plain(logits, u)[0])
    assert len(calls) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("top_k", "top_p"), [(50, 1.0), (0, 0.95), (50, 0.9), (0, 0.9999)])
def test_a_whole_vocabulary_is_truncated_as_by_sorting_and_in_a_graph(top_k, top_p) -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    logits = torch.randn(64, 151936, device="cuda", generator=generator) * 2.5
    params = SamplingParams(top_k=top_k, top_p=top_p)
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    mine, theirs = weights.clone(), weights.clone()
    truncate(mine, top_k, top_p)
    sampling.truncate(theirs, top_k, top_p)
    differing = (mine != theirs).sum(-1)
    assert int(differing.max()) <= 1  # the order of a float64 sum may move the edge by one token
    assert int((differing > 0).sum()) <= 1
    sampler = Sampler(151936, params, logits.device)
    assert sampler.is_capturable
    u = torch.rand(64, dtype=torch.float64, device="cuda", generator=generator)
    expected = [out.clone() for out in sampler(logits, u)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sampler(logits, u)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))
