import numpy as np
import pytest
import torch
from loop_cases import VOCAB, assert_same, new_state, random_draws

from pellucid.rollout.drafts import DraftRows, accept_plain, propose_plain
from pellucid.rollout.loop_state import Work

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")
FED = ["token", "slot", "position", "own", "own_length", "group", "body", "body_start", "uniform"]


def _work(num_samples: int, longest: int, group: int = 16) -> Work:
    rng = np.random.default_rng(num_samples)
    prompts = np.arange(num_samples) // group
    bodies = rng.integers(0, 400, prompts[-1] + 1)
    return Work(
        sample_ids=rng.integers(0, 2**63, num_samples, dtype=np.uint64),
        prompts=prompts,
        limits=rng.integers(longest // 2, longest + 1, num_samples),
        body_starts=(np.cumsum(bodies) - bodies) * 64,
        bodies=bodies,
        last_tokens=rng.integers(0, VOCAB, len(bodies)),
    )


def _draws(rng, drafts, wide, *, end_frac):
    """Few letters, and three of four drafts come true."""
    tokens, logprobs = random_draws(rng, wide, end_frac=end_frac)
    tokens[(tokens == 5) | (tokens > 7)] = 2
    tokens, logprobs = torch.from_numpy(tokens).cuda(), torch.from_numpy(logprobs).cuda()
    is_met = torch.from_numpy(rng.random(wide - 1) < 0.75).cuda() & (drafts.own_length[1:wide] > 0)
    tokens[:-1] = torch.where(is_met, drafts.token[1:wide], tokens[:-1])
    return tokens, logprobs


@pytest.mark.parametrize("has_stops", [False, True])
@pytest.mark.parametrize(("rows", "num_drafts"), [(1, 7), (6, 3), (32, 3), (32, 2)])
def test_kernels_agree_with_their_twins(rows, num_drafts, has_stops):
    from pellucid.kernels import drafts as kernels

    rng = np.random.default_rng(rows)
    work = _work(rows, longest=120)
    states = [new_state(work, rows, has_stops=has_stops, device="cuda") for _ in range(2)]
    pair = [DraftRows.create(CUDA) for _ in range(2)]
    for state in states:
        state.start(rows)
    wide = rows * (num_drafts + 1)
    for _ in range(12):
        kernels.propose(states[0], pair[0], rows, num_drafts)
        propose_plain(states[1], pair[1], rows, num_drafts)
        for name in FED:
            assert torch.equal(getattr(pair[0], name)[:wide], getattr(pair[1], name)[:wide]), name
        tokens, logprobs = _draws(rng, pair[0], wide, end_frac=0.05)
        kernels.accept(states[0], pair[0], tokens, logprobs, rows, num_drafts)
        accept_plain(states[1], pair[1], tokens, logprobs, rows, num_drafts)
        assert_same(*states)
        assert pair[0].read() == pair[1].read()
    if rows > 1:
        assert pair[0].read().accepted > 0


def test_long_outputs_are_searched_to_their_ends():
    from pellucid.kernels import drafts as kernels

    rng = np.random.default_rng(0)
    count, length = 16, 5000
    work = _work(count, longest=2 * length)
    state = new_state(work, count, has_stops=False, device="cuda")
    state.start(count)
    tokens = torch.from_numpy(rng.integers(0, 10**6, (count, length)).astype(np.int32))
    tokens[1::2, -3:] = tokens[0::2, 4990:4993]  # the one before has it near its end
    tokens[0, -3:] = tokens[15, 2:5]  # the furthest has it at its start
    state.out_tokens[:count, :length] = tokens.cuda()
    state.own[:count] = length
    state.own_length[:count] = length + 1
    state.limit[:count] = 2 * length
    drafts = DraftRows.create(CUDA)
    kernels.propose(state, drafts, count, 3)
    fed = drafts.token[: 4 * count].view(count, 4)[:, 1:].cpu()
    assert torch.equal(fed[1::2].int(), tokens[0::2, 4993:4996])
    assert torch.equal(fed[0].int(), tokens[15, 5:8])


def test_a_captured_proposal_and_check_are_replayed():
    from pellucid.kernels import drafts as kernels

    rng = np.random.default_rng(1)
    rows, num_drafts = 32, 3
    wide = rows * (num_drafts + 1)
    work = _work(rows, longest=150)
    states = [new_state(work, rows, has_stops=True, device="cuda") for _ in range(2)]
    pair = [DraftRows.create(CUDA) for _ in range(2)]
    tokens = torch.zeros(wide, dtype=torch.int64, device="cuda")
    logprobs = torch.zeros(wide, device="cuda")

    def step():
        kernels.accept(states[0], pair[0], tokens, logprobs, rows, num_drafts)
        kernels.propose(states[0], pair[0], rows, num_drafts)

    for state in states:
        state.start(rows)
    for side in range(2):
        kernels.propose(states[side], pair[side], rows, num_drafts)
    saved = [tensor.clone() for tensor in (*states[0].volatile, *_buffers(pair[0]))]
    outputs = [states[0].out_length.clone(), states[0].out_reason.clone()]
    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for tensor, value in zip((*states[0].volatile, *_buffers(pair[0])), saved, strict=True):
        tensor.copy_(value)
    states[0].out_length.copy_(outputs[0])
    states[0].out_reason.copy_(outputs[1])
    states[0].out_tokens.zero_()
    states[0].out_logprobs.zero_()
    for _ in range(40):
        for static, fresh in zip(
            (tokens, logprobs), _draws(rng, pair[1], wide, end_frac=0.01), strict=True
        ):
            static.copy_(fresh)
        graph.replay()
        kernels.accept(states[1], pair[1], tokens, logprobs, rows, num_drafts)
        kernels.propose(states[1], pair[1], rows, num_drafts)
        assert_same(*states)
    assert pair[0].read() == pair[1].read()
    assert pair[0].read().accepted > 100


def _buffers(drafts):
    return [getattr(drafts, name) for name in (*FED, "counts")]
