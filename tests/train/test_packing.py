"""Packs carry exactly the tokens, targets and per-token facts of their sequences."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.train.packing import TrainSequence, build_pack, plan_packs

FIRST = TrainSequence(
    prompt_ids=(11, 12),
    completion_ids=(21, 22, 23),
    rollout_logprobs=(-1.0, -2.0, -3.0),
    advantage=0.5,
)
SECOND = TrainSequence(
    prompt_ids=(13,), completion_ids=(24,), rollout_logprobs=(-4.0,), advantage=-1.0
)


def test_a_pack_is_hand_readable() -> None:
    pack = build_pack([FIRST, SECOND], "cpu")
    assert pack.token_ids.tolist() == [11, 12, 21, 22, 13]  # the last token predicts nothing
    assert pack.lengths.tolist() == [4, 1]
    assert pack.predicting.tolist() == [1, 2, 3, 4]
    assert pack.targets.tolist() == [21, 22, 23, 24]
    assert pack.sequence.tolist() == [0, 0, 0, 1]
    assert pack.completion_lengths.tolist() == [3, 3, 3, 1]
    assert pack.advantages.tolist() == [0.5, 0.5, 0.5, -1.0]
    assert pack.rollout_logprobs.tolist() == [-1.0, -2.0, -3.0, -4.0]
    assert pack.num_sequences == 2


def test_targets_are_the_tokens_that_follow_the_predicting_positions() -> None:
    pack = build_pack([FIRST], "cpu")
    whole = torch.tensor(FIRST.prompt_ids + FIRST.completion_ids)
    assert torch.equal(whole[pack.predicting + 1], pack.targets)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(min_value=1, max_value=40), max_size=40),
    capacity=st.integers(min_value=20, max_value=60),
)
def test_every_sequence_is_in_one_pack_and_no_pack_overflows(
    sizes: list[int], capacity: int
) -> None:
    packs = plan_packs(sizes, capacity)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sizes)))
    for pack in packs:
        assert len(pack) == 1 or sum(sizes[i] for i in pack) <= capacity


def test_packs_are_filled_best_fit() -> None:
    assert plan_packs([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
