"""Attention over shared prompts equals attention over rows that repeat them."""

import pytest
import torch
from attention_by_token import STRUCTURES, by_token, random_heads

from pellucid.model import shared_attention
from pellucid.model.attention import PackedCausal
from pellucid.model.shared_attention import SharedPromptAttention


@pytest.mark.parametrize("name", STRUCTURES)
def test_output_and_gradients_are_those_of_attention_token_by_token(name: str) -> None:
    bodies, own = STRUCTURES[name]
    heads = random_heads(sum(bodies) + sum(map(sum, own)))
    out = SharedPromptAttention(bodies, own).attend(*heads)
    expected = by_token(*heads, bodies, own)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)
    up = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    for got, want in zip(
        torch.autograd.grad(out, heads, up), torch.autograd.grad(expected, heads, up), strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_positions_go_on_from_the_body_in_every_own_row() -> None:
    attend = SharedPromptAttention([2, 0, 3], [[3, 1], [2], [1]])
    bodies, own = [0, 1, 0, 1, 2], [2, 3, 4, 2, 0, 1, 3]
    assert attend.positions.tolist() == bodies + own
    assert attend.num_body_tokens == 5
    assert attend.context == 5


def test_where_rows_and_groups_lie_is_hand_readable() -> None:
    segments = SharedPromptAttention([2, 0, 3], [[3, 1], [2], [1]])._segments
    assert segments.rows.tolist() == [0, 2, 5, 8, 9, 11, 12]  # the empty body is no row
    assert segments.groups.tolist() == [0, 4, 6, 7]
    assert segments.bodies.tolist() == [0, 2, 2, 5]
    assert (segments.longest_row, segments.largest_group, segments.longest_body) == (3, 4, 3)
    assert segments.rows.dtype == segments.groups.dtype == segments.bodies.dtype == torch.int32


def test_bodies_are_copied_for_parts_of_their_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_attention, "SMALLEST_PART", 3)
    parts = SharedPromptAttention([2, 0, 3], [[3, 2], [2], [1]])._segments.parts  # two parts each
    assert parts.queries.tolist() == [0, 2, 5, 6, 7, 7, 8]
    assert parts.largest == 3
    assert parts.bodies.tolist() == [0, 2, 4, 4, 4, 7, 10]
    assert parts.copied.tolist() == [0, 1, 0, 1, 2, 3, 4, 2, 3, 4]
    assert parts.copies.tolist() == [[0, 1, 4, 5, 6], [2, 3, 7, 8, 9]]


def test_the_keys_of_each_token_are_hand_readable() -> None:
    keys = SharedPromptAttention([2, 1], [[2, 1], [1]])._keys
    assert keys.own_start.tolist() == [0, 0, 2, 3, 3, 5, 6]
    assert keys.own_length.tolist() == [1, 2, 1, 1, 2, 1, 1]
    assert keys.body_start.tolist() == [0, 0, 0, 0, 0, 0, 2]
    assert keys.body_length.tolist() == [0, 0, 0, 2, 2, 2, 1]
    assert keys.group.tolist() == [2, 2, 2, 0, 0, 0, 1]


def test_packed_sequences_see_only_themselves() -> None:
    heads = random_heads(9)
    attend = PackedCausal(torch.tensor([4, 2, 3]))
    assert attend.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert attend.longest == 4
    parts = [tuple(x[rows] for x in heads) for rows in (slice(0, 4), slice(4, 6), slice(6, 9))]
    alone = [PackedCausal(torch.tensor([len(q)])).attend(q, k, v) for q, k, v in parts]
    torch.testing.assert_close(attend.attend(*heads), torch.cat(alone), atol=1e-12, rtol=1e-12)
