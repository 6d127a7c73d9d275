"""Packs carry exactly the tokens, targets and per-token facts of their sequences."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.train.packing import TrainSequence, best_fit, build_pack, plan_packs


def sample(prompt: tuple[int, ...], completion: tuple[int, ...], advantage: float) -> TrainSequence:
    return TrainSequence(
        prompt_ids=prompt,
        completion_ids=completion,
        rollout_logprobs=tuple(-float(t) for t in completion),
        advantage=advantage,
    )


FIRST = sample((11, 12, 13), (21, 22, 23), 0.5)
SIBLING = sample((11, 12, 13), (24,), -0.5)
OTHER = sample((14,), (25, 26), -1.0)


def test_a_pack_is_hand_readable() -> None:
    pack = build_pack([[FIRST, SIBLING], [OTHER]], "cpu")
    bodies, own = [11, 12], [13, 21, 22, 13, 14, 25]  # the last token predicts nothing
    assert pack.token_ids.tolist() == bodies + own
    assert pack.attend.positions.tolist() == [0, 1, 2, 3, 4, 2, 0, 1]
    assert pack.attend.num_body_tokens == 2
    assert pack.targets.tolist() == [21, 22, 23, 24, 25, 26]
    assert pack.sequence.tolist() == [0, 0, 0, 1, 2, 2]
    assert pack.completion_lengths.tolist() == [3, 3, 3, 1, 2, 2]
    assert pack.advantages.tolist() == [0.5, 0.5, 0.5, -0.5, -1.0, -1.0]
    assert pack.rollout_logprobs.tolist() == [-21.0, -22.0, -23.0, -24.0, -25.0, -26.0]
    assert pack.num_sequences == 3
    wide = (pack.token_ids, pack.targets, pack.sequence, pack.completion_lengths)
    assert {t.dtype for t in wide} == {torch.int64}
    assert {t.dtype for t in (pack.advantages, pack.rollout_logprobs)} == {torch.float32}


def test_advantages_of_tokens_are_added_to_their_sequences() -> None:
    own = replace(FIRST, token_advantages=(0.25, 0.0, -1.0))
    pack = build_pack([[own, SIBLING], [OTHER]], "cpu")
    assert pack.advantages.tolist() == [0.75, 0.5, -0.5, -0.5, -1.0, -1.0]
    assert pack.advantages.dtype == torch.float32


def test_a_pack_wants_an_advantage_for_every_token_or_none() -> None:
    with pytest.raises(AssertionError, match="every completion token has its advantage"):
        build_pack([[replace(FIRST, token_advantages=(1.0, 2.0))]], "cpu")


def test_a_lone_one_token_prompt_has_no_body() -> None:
    pack = build_pack([[OTHER]], "cpu")
    assert pack.token_ids.tolist() == [14, 25]
    assert pack.attend.num_body_tokens == 0


def test_samples_of_a_prompt_meet_wherever_they_stand() -> None:
    assert plan_packs([FIRST, OTHER, SIBLING], 100) == [[[0, 2], [1]]]


def test_a_prompt_that_exceeds_a_pack_is_fed_again_in_the_next() -> None:
    big = [sample((1, 2, 3), (4,) * n, 1.0) for n in (5, 4, 3, 2)]  # a body of 2, 14 own tokens
    assert plan_packs(big, 11) == [[[0, 1]], [[2, 3]]]


sequences = st.builds(
    lambda prompt, length: sample((7,) * prompt, (1,) * length, 1.0),
    st.integers(min_value=1, max_value=9),
    st.integers(min_value=1, max_value=12),
)


@settings(max_examples=100, deadline=None)
@given(members=st.lists(sequences, max_size=40), capacity=st.integers(1, 60))
def test_every_sequence_is_in_one_pack_and_no_pack_overflows(
    members: list[TrainSequence], capacity: int
) -> None:
    packs = plan_packs(members, capacity)
    flat = [i for pack in packs for group in pack for i in group]
    assert sorted(flat) == list(range(len(members)))
    for pack in packs:
        prompts = [{members[i].prompt_ids for i in group} for group in pack]
        assert all(len(p) == 1 for p in prompts)
        fed = sum(len(members[g[0]].prompt_ids) - 1 for g in pack)
        fed += sum(len(members[i].completion_ids) for g in pack for i in g)
        assert fed <= capacity or sum(len(g) for g in pack) == 1


def test_bins_are_filled_best_fit() -> None:
    assert best_fit([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert best_fit([12, 3], 10) == [[0], [1]]


def test_packs_are_of_nearly_equal_size() -> None:
    lengths = [30, 30, 30, 30, 30, 10, 10]  # best fit alone would leave a pack of 30
    members = [sample((i,), (1,) * n, 1.0) for i, n in enumerate(lengths)]
    packs = plan_packs(members, 80)
    assert sorted(sum(lengths[i] for g in p for i in g) for p in packs) == [50, 60, 60]


def test_a_pack_wants_a_log_probability_for_every_token() -> None:
    short = TrainSequence(
        prompt_ids=(1,), completion_ids=(2, 3), rollout_logprobs=(-1.0,), advantage=1.0
    )
    with pytest.raises(AssertionError, match="log-probability"):
        build_pack([[short]], "cpu")
