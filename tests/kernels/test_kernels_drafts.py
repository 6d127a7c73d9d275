"""Drafts in kernels and in the twins: the same rows, the same tokens, bit for bit."""

import numpy as np
import pytest
import torch
from loop_cases import assert_same, new_state, random_draws, random_work

from pellucid.rollout.drafts import DraftRows, accept_plain, propose_plain
from pellucid.rollout.loop_state import LoopState, Work

triton = pytest.importorskip("triton")
from pellucid.kernels import drafts as kernels  # noqa: E402  (after the check for triton)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FED = ["token", "slot", "position", "own", "own_length", "group", "body", "body_start", "uniform"]


def few_letters(rng: np.random.Generator, wide: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws of three letters mostly, so that the last tokens have been there before."""
    tokens, logprobs = random_draws(rng, wide, bad_frac=0.002, end_frac=0.02)
    tokens = np.where((tokens == 5) | (tokens > 7), rng.integers(1, 4, wide), tokens)
    return torch.from_numpy(tokens).to(DEVICE), torch.from_numpy(logprobs).to(DEVICE)


def as_drafted(drafts, tokens, rng, share):
    """Draws [W] that meet the drafts with probability `share`."""
    is_met = torch.from_numpy(rng.random(len(tokens)) < share).to(DEVICE)
    after = drafts.token[1 : len(tokens) + 1]
    is_real = drafts.own_length[1 : len(tokens) + 1] > 0
    tokens[: len(after)] = torch.where(is_met[: len(after)] & is_real, after, tokens[: len(after)])
    return tokens


@pytest.mark.parametrize("has_stops", [False, True])
@pytest.mark.parametrize(("slots", "num_prompts", "num_drafts"), [(1, 1, 1), (4, 2, 3), (7, 3, 2)])
def test_kernels_and_twins_agree_bit_for_bit(slots, num_prompts, num_drafts, has_stops):
    rng = np.random.default_rng(slots)
    work = random_work(rng, num_prompts, longest=12)
    states = [new_state(work, slots, has_stops=has_stops, device=DEVICE) for _ in range(2)]
    pair = [DraftRows.create(DEVICE, sources=8) for _ in range(2)]
    for state in states:
        state.start(slots)
    wide = slots * (num_drafts + 1)
    for _ in range(400):
        kernels.propose(states[0], pair[0], slots, num_drafts)
        propose_plain(states[1], pair[1], slots, num_drafts)
        for name in FED:
            assert torch.equal(getattr(pair[0], name)[:wide], getattr(pair[1], name)[:wide]), name
        tokens, logprobs = few_letters(rng, wide)
        tokens = as_drafted(pair[0], tokens, rng, 0.7)
        kernels.accept(states[0], pair[0], tokens, logprobs, slots, num_drafts)
        accept_plain(states[1], pair[1], tokens, logprobs, slots, num_drafts)
        assert_same(*states)
        assert pair[0].read() == pair[1].read()
        if not states[0].read().live:
            break
    assert states[0].read().finished == states[0].read().total
    if slots > 1:
        assert pair[0].read().accepted > 0, "drafts came true"


def one_row(tokens: list[list[int]], *, limit: int = 40, has_stops: bool = False) -> LoopState:
    """Samples of one prompt that have ended with these tokens, and the first, in a row."""
    count = len(tokens)
    work = Work(
        sample_ids=np.arange(count), prompts=np.zeros(count), limits=np.full(count, limit),
        body_starts=np.zeros(1), bodies=np.full(1, 3), last_tokens=np.ones(1),
    )  # fmt: skip
    state = new_state(work, 1, has_stops=has_stops, device=DEVICE)
    state.start(1)
    for sample, line in enumerate(tokens):
        state.out_tokens[sample, : len(line)] = torch.tensor(line)
        state.out_length[sample] = len(line) if sample else 0
    mine = tokens[0]
    state.views["next_sample"].fill_(count)
    state.own[0], state.own_length[0], state.token[0] = len(mine), len(mine) + 1, mine[-1]
    state.position[0] = 3 + len(mine)
    return state


def drafted(state: LoopState, num_drafts: int = 3) -> list[int]:
    """The drafts of the first row."""
    drafts = DraftRows.create(DEVICE, sources=8)
    kernels.propose(state, drafts, 1, num_drafts)
    num_real = int((drafts.own_length[: num_drafts + 1] > 0).sum())
    return drafts.token[1:num_real].tolist()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([[1, 2, 3, 4, 5, 6, 1, 2, 3]], [4, 5, 6]),
        ([[1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3]], [5, 9, 1]),  # the latest
        ([[8, 2, 3, 4, 5, 6, 1, 2, 3]], [4, 5, 6]),  # two tokens do
        ([[1, 2, 1, 2]], [1, 2, 1]),  # its own repeat
        ([[2, 2, 2]], [2, 2, 2]),
        ([[1, 2, 3, 4]], []),
        ([[1]], []),
        ([[8, 2, 3, 4, 5, 6, 1, 2, 3], [1, 2, 3, 7, 7]], [7, 7]),  # three before two; it ends
        ([[5, 2, 3], [4, 4, 4], [4, 2, 3, 6], [5, 2, 3]], [6]),  # nothing follows the last
        ([[2, 3], [2, 3, 6, 6, 6]], [6, 6, 6]),
        ([[1, 2, 3, *[4] * 600, 1, 2, 3]], [4, 4, 4]),  # beyond one block
        ([[2, 3], [1] * 700 + [2, 3, 6, 6, 6]], [6, 6, 6]),
    ],
)
def test_drafts_follow_the_last_place_that_ends_alike(tokens, expected):
    state = one_row(tokens, limit=max(map(len, tokens)) + 10)
    assert drafted(state) == expected
    plain = DraftRows.create(DEVICE, sources=8)
    propose_plain(state, plain, 1, 3)
    assert plain.token[1 : 1 + len(expected)].tolist() == expected


def test_another_prompts_samples_are_not_searched():
    state = one_row([[2, 3], [2, 3, 6, 6, 6]])
    state.prompt[1] = 1
    assert drafted(state) == []


def test_drafts_stop_at_the_limit_and_rows_beyond_it_write_nothing():
    state = one_row([[1, 2, 1, 2, 1, 2]], limit=8)
    drafts = DraftRows.create(DEVICE, sources=8)
    kernels.propose(state, drafts, 1, 3)
    assert drafts.own_length[:4].tolist() == [7, 8, 0, 0]
    assert drafts.slot[:4].tolist() == [0, 0, -1, -1]
    assert drafts.own[:2].tolist() == [6, 7]
    assert drafts.position[:2].tolist() == [9, 10]


@pytest.mark.parametrize(
    ("draws", "filed", "reason"),
    [
        ([1, 2, 1, 5], [1, 2, 1, 5], 0),
        ([1, 2, 5, 5], [1, 2, 5], 0),
        ([5, 2, 1, 2], [5], 0),
        ([0, 2, 1, 2], [0], 1),
        ([1, 9, 1, 2], [1, 9], 2),
    ],
)
def test_tokens_are_filed_as_far_as_drafts_came_true(draws, filed, reason):
    state = one_row([[1, 2, 1, 2]], has_stops=True)
    drafts = DraftRows.create(DEVICE, sources=8)
    kernels.propose(state, drafts, 1, 3)
    assert drafts.token[:4].tolist() == [2, 1, 2, 1]
    tokens = torch.tensor(draws, device=DEVICE)
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -4.0], device=DEVICE)
    kernels.accept(state, drafts, tokens, logprobs, 1, 3)
    length = 4 + len(filed)
    assert state.out_tokens[0, 4:length].tolist() == filed
    assert state.out_logprobs[0, 4:length].tolist() == [-1.0, -2.0, -3.0, -4.0][: len(filed)]
    assert int(state.out_reason[0]) == reason
    assert int(state.generated) == len(filed)
    assert drafts.read() == (1, 1, len(filed) - 1)
    if reason:
        assert (int(state.out_length[0]), state.read().live) == (length, 0)
    else:
        assert (int(state.own[0]), int(state.token[0])) == (length, filed[-1])
        assert int(state.position[0]) == 3 + length


@pytest.mark.parametrize("draft", [0, 4])
def test_a_draft_that_would_end_a_row_ends_it(draft):
    state = one_row([[3, draft, 6, 3]], has_stops=True)  # 3, 4 is a stop string, 0 an end token
    state.stop_state[0] = 1
    state.out_tokens[0, :6] = torch.tensor([6, 3, draft, 6, 6, 3])
    state.own[0], state.own_length[0] = 6, 7
    drafts = DraftRows.create(DEVICE, sources=8)
    kernels.propose(state, drafts, 1, 2)
    assert drafts.token[:3].tolist() == [3, draft, 6]
    tokens = torch.tensor([draft, 6, 6], device=DEVICE)
    kernels.accept(state, drafts, tokens, torch.full((3,), -1.0, device=DEVICE), 1, 2)
    assert int(state.out_length[0]) == 7
    assert int(state.generated) == 1
