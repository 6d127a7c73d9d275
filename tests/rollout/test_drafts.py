"""A rollout that drafts gives exactly the completions of one that does not."""

from itertools import chain

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.errors import NumericsError
from pellucid.records import Request, SamplingParams, StopReason
from pellucid.rollout import drafts as drafting
from pellucid.rollout.drafts import DraftCounts, DraftPolicy, DraftRows
from pellucid.rollout.engine import InProcessEngine

pytest.importorskip("triton")
from pellucid.rollout.resident_engine import ResidentEngine


class ByteLetters(LetterTokenizer):
    def token_bytes(self):
        return [text.encode() for text in self.texts]


SPEC = tiny_spec(num_heads=2, num_kv_heads=1, head_dim=16, num_layers=1)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """In the interpreter each costs milliseconds."""
    monkeypatch.setattr("pellucid.rollout.waves.LEAST_ROWS", 1)
    monkeypatch.setattr("pellucid.rollout.resident.CHUNK", 2)
    create = DraftRows.create
    monkeypatch.setattr(DraftRows, "create", lambda device: create(device, sources=4))


def requests(groups=1, size=3, **more):
    return [
        Request(
            prompt_ids=tuple(range(1, 3 + 4 * g)),
            sample_ids=tuple(100 * g + k for k in range(size)),
            **more,
        )
        for g in range(groups)
    ]


def repetitive(seed=1):
    """A model that mostly looks at its last token, and so falls into circles."""
    model = loud_model(SPEC, seed)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out.weight.mul_(0.05)
        model.head.weight.mul_(2.0)
    return model


def generate(model, wanted, params, drafts, *, slots=4, seed=7):
    model.reserve_context(model.spec.max_context)
    engine = ResidentEngine(model, ByteLetters(), slots=slots, drafts=drafts)
    with torch.inference_mode():
        return engine.generate(wanted, params, seed=seed), engine


def plainly(model, wanted, params, *, seed=7):
    """The loop on the host."""
    return InProcessEngine(model, ByteLetters(), slots=8).generate(wanted, params, seed=seed)


def assert_same(mine, plain):
    for left, right in zip(chain(*mine), chain(*plain), strict=True):
        assert left.sample_id == right.sample_id
        assert left.token_ids == right.token_ids
        assert (left.stop, left.text) == (right.stop, right.text)
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-4)


def test_tokens_are_those_without_drafts():
    params = SamplingParams(temperature=1.0, max_new_tokens=8)
    plain = plainly(loud_model(SPEC), requests(), params)
    mine, engine = generate(loud_model(SPEC), requests(), params, 2)
    assert_same(mine, plain)
    assert engine.drafted.counts.steps > 0


@pytest.mark.parametrize("drafts", [1, 2])
def test_drafts_come_true_and_change_nothing(drafts):
    params = SamplingParams(temperature=1.0, max_new_tokens=24)
    wanted = requests(limits=(3, 23, 24))
    plain = plainly(repetitive(), wanted, params)
    mine, engine = generate(repetitive(), wanted, params, drafts)
    assert_same(mine, plain)
    assert engine.drafted.counts.accepted > 5
    assert engine.drafted.counts.per_row_step > 0.15
    assert len(mine[0][2].token_ids) == 24, "drafts ran up to a limit"


def test_stop_strings_end_samples_inside_what_was_drafted():
    free = SamplingParams(temperature=1.0, max_new_tokens=24)
    texts = [c.text for row in plainly(repetitive(), requests(), free) for c in row]
    late = max(texts, key=len)[-6:-3]
    params = SamplingParams(temperature=1.0, max_new_tokens=24, stop=(late,))
    plain = plainly(repetitive(), requests(), params)
    mine, engine = generate(repetitive(), requests(), params, 3)
    assert_same(mine, plain)
    assert any(c.stop is StopReason.STOP_STRING for row in mine for c in row)
    assert engine.drafted.counts.accepted > 0


def test_bad_logits_are_named_with_drafts_too():
    model = loud_model(SPEC)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    params = SamplingParams(temperature=1.0, max_new_tokens=9)
    with pytest.raises(NumericsError, match="request 0, sample 0, token 0"):
        generate(model, requests(), params, 1)


def test_a_call_goes_on_without_drafts_that_bring_nothing(monkeypatch):
    monkeypatch.setattr(drafting, "WINDOW", 2)
    monkeypatch.setattr(drafting, "LEAST_ACCEPTED", 10.0)
    params = SamplingParams(temperature=1.0, max_new_tokens=20)
    plain = plainly(repetitive(), requests(), params)
    mine, engine = generate(repetitive(), requests(), params, 3)
    assert_same(mine, plain)
    assert engine.drafted.counts.steps < 15
    assert not engine.drafted.is_on


def test_after_a_failure_drafts_rest_for_some_calls():
    policy = DraftPolicy(3)
    policy.begin()
    policy.observe(DraftCounts(steps=31, row_steps=100, accepted=0))
    assert policy.is_on
    policy.observe(DraftCounts(steps=32, row_steps=100, accepted=14))
    assert not policy.is_on
    for _ in range(drafting.REST):
        policy.begin()
        assert not policy.is_on
    policy.begin()
    assert policy.is_on
    policy.observe(DraftCounts(steps=40, row_steps=100, accepted=16))
    assert policy.is_on
    assert policy.counts == (72, 200, 30)


def test_each_window_is_judged_by_itself():
    policy = DraftPolicy(3)
    policy.begin()
    policy.observe(DraftCounts(steps=40, row_steps=100, accepted=90))
    assert policy.is_on
    policy.observe(DraftCounts(steps=80, row_steps=200, accepted=95))
    assert not policy.is_on


def test_without_drafts_nothing_is_drafted():
    params = SamplingParams(temperature=1.0, max_new_tokens=5)
    _, engine = generate(loud_model(SPEC), requests(), params, 0)
    assert engine.drafted.counts == (0, 0, 0)
    engine.drafts = 2
    assert engine.drafted.drafts == 2
