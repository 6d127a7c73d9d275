"""The floor's arithmetic, against numbers counted by hand."""

import pytest
from floor import (
    BYTES_PER_S,
    FLOPS_PER_S,
    Counts,
    Group,
    body_parameters,
    head_parameters,
    kv_bytes,
    rollout_floor,
    training_counts,
    training_floor_s,
    training_flops,
)
from shapes import SPECS

from pellucid.model.spec import ModelSpec

SPEC = ModelSpec(
    family="llama", vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=2,
    ffn_width=3,
)  # fmt: skip
BODY = 4 * (4 + 2 * 2) + 4 * 4 + 3 * 4 * 3 + 2 * 4 + 4
"""qkv, out, feed-forward, two norms of the block, the last norm."""
HEAD = 40
KV = 2 * 1 * 2 * 2


def test_parameters_and_cache_of_a_small_decoder() -> None:
    assert body_parameters(SPEC) == BODY
    assert head_parameters(SPEC) == HEAD
    assert kv_bytes(SPEC) == KV


def test_decoding_reads_weights_once_a_step_and_a_prompt_once_a_group() -> None:
    floor = rollout_floor(SPEC, [Group(prompt=4, completions=(1, 2))])
    weights = 2 * (BODY + HEAD)
    first = weights + KV * (3 + 1 + 1)  # the body once, one own token a row
    second = weights + KV * (3 + 2)  # one row is left, two own tokens
    prefill = 2 * BODY
    assert floor.num_bytes == prefill + first + second
    attention = 4 * 1 * 2 * 2
    pairs = (1 + 2 + 3) + 2 * (3 + 1) + (3 + 2)
    products = 2 * BODY * 3 + 2 * (BODY + HEAD) * 3
    assert floor.flops == products + attention * pairs


def test_a_step_takes_the_larger_of_bytes_and_flops() -> None:
    few = rollout_floor(SPECS["0.5b"], [Group(prompt=1, completions=(1,))])
    assert few.seconds == pytest.approx(few.num_bytes / BYTES_PER_S)
    many = rollout_floor(SPECS["7b"], [Group(prompt=1, completions=(1,) * 4096)])
    prefill_s = 2 * body_parameters(SPECS["7b"]) / BYTES_PER_S
    assert many.seconds == pytest.approx(many.flops / FLOPS_PER_S + prefill_s)


def test_a_group_whose_samples_have_ended_is_read_no_more() -> None:
    alone = rollout_floor(SPEC, [Group(prompt=9, completions=(3,))])
    beside = rollout_floor(
        SPEC, [Group(prompt=9, completions=(3,)), Group(prompt=5, completions=(1,))]
    )
    assert beside.num_bytes - alone.num_bytes == KV * (4 + 1)


def test_qwen_has_the_parameters_it_is_known_for() -> None:
    known = {"0.5b": 494_032_768, "1.5b": 1_543_714_304, "7b": 7_615_616_512}
    assert {name: SPECS[name].num_parameters for name in known} == known
    assert [kv_bytes(SPECS[name]) for name in known] == [12_288, 28_672, 57_344]


def test_training_counts_a_shared_prompt_once() -> None:
    groups = [Group(prompt=3, completions=(2, 1))]
    assert training_counts(groups, shares_prompts=True) == Counts(
        fed=2 + 3, completion=3, pairs=3 + (2 * 2 + 3) + (2 + 1)
    )
    assert training_counts(groups, shares_prompts=False) == Counts(
        fed=4 + 3, completion=3, pairs=6 + (2 * 2 + 3) + (2 + 1)
    )


def test_plain_pairs_are_those_of_causal_attention() -> None:
    counts = training_counts([Group(prompt=5, completions=(4,))], shares_prompts=False)
    fed = 5 + 4 - 1
    assert (counts.fed, counts.pairs) == (fed, fed * (fed + 1) // 2)


def test_training_flops_follow_the_formula() -> None:
    counts = Counts(fed=7, completion=3, pairs=11)
    flops = 6 * BODY * 7 + 6 * HEAD * 3 + 12 * 1 * 2 * 2 * 11
    assert training_flops(SPEC, counts) == flops
    alone = training_floor_s(SPEC, counts, has_optimizer=False)
    assert alone == pytest.approx(flops / FLOPS_PER_S)
    state_s = 30 * SPEC.num_parameters / BYTES_PER_S
    assert training_floor_s(SPEC, counts) == pytest.approx(alone + state_s)
