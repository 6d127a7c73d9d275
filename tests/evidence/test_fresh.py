"""A model on fresh items, and what may be concluded for a claim."""

from concurrent.futures import Future

import pytest

from pellucid.errors import DataError
from pellucid.evidence.fresh import Claimed, FreshFinding, compare, gain, run_fresh
from pellucid.evidence.fresh_items.make import generator_digest, make_items
from pellucid.records import Completion, SamplingParams, StopReason
from pellucid.rewards.table import find_grader
from pellucid.stats import Estimate
from pellucid.tasks.templates import get_template

ROOT = "ab" * 32


class Letters:
    eos_ids = (0,)
    chat_template = None

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


class Oracle:
    """Knows the golds of some questions and says `none` to the others."""

    def __init__(self, golds):
        self.golds = golds
        self.seeds = []

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        self.seeds.append(seed)
        groups = [[self._answer(r, i) for i in r.sample_ids] for r in requests]
        for index, group in enumerate(groups):
            on_group(index, group)
        return groups

    def _answer(self, request, identity):
        prompt = "".join(map(chr, request.prompt_ids))
        gold = next((g for q, g in self.golds.items() if q in prompt), "none")
        text = f"<think>x</think> <answer>{gold}</answer>"
        return Completion(
            sample_id=identity,
            token_ids=tuple(map(ord, text)),
            logprobs=(0.0,) * len(text),
            stop=StopReason.EOS,
            text=text,
        )


class PlainGrader:
    def submit(self, problems, responses):
        pending = Future()
        pending.set_result(self.grade(problems, responses))
        return pending

    def grade(self, problems, responses):
        return [find_grader(p.grader)(p, r) for p, r in zip(problems, responses, strict=True)]


@pytest.fixture
def grader():
    return PlainGrader()


def _measure(golds, grader, **changes):
    engine = Oracle(golds)
    arguments = {"families": ("chain", "modular"), "k": 1} | changes
    result = run_fresh(
        engine,
        Letters(),
        get_template("tiny"),
        ROOT,
        "77",
        20,
        grader=grader,
        params=SamplingParams(max_new_tokens=60),
        **arguments,
    )
    return result, engine


def test_a_model_is_measured_by_family_and_level_on_the_items_of_the_nonce(grader):
    items = make_items(ROOT, "77", 20, ("chain", "modular"))
    known = {p.question: p.gold for p in items if "/modular" in p.id or "chain-2" in p.id}
    result, engine = _measure(known, grader)
    assert result.by_family["modular"].value == 1.0
    assert result.by_family["chain"].value == 0.2
    assert result.by_level["chain-2"].value == 1.0
    assert result.by_level["chain-3"].value == 0.0
    assert result.result.pass_at_1.value == pytest.approx(0.6)
    plain = result.to_dict()
    assert plain["generator"] == generator_digest()
    assert (plain["n"], plain["nonce"], plain["weights_root"]) == (20, "77", ROOT)
    assert 0 <= engine.seeds[0] < 2**63


def test_two_models_are_compared_on_the_same_items_and_on_no_others(grader):
    items = make_items(ROOT, "77", 20, ("chain", "modular"))
    nothing, _ = _measure({}, grader)
    everything, _ = _measure({p.question: p.gold for p in items}, grader)
    assert gain(nothing, everything).value == 1.0
    other, _ = _measure({}, grader, families=("chain",))
    with pytest.raises(DataError, match="different fresh items"):
        gain(other, everything)


def _claim(value, half=0.05, suite="chain/test"):
    return Claimed(claim="C1", suite=suite, value=value, low=value - half, high=value + half)


def test_a_claim_far_above_fresh_items_of_its_own_distribution_is_called_so():
    fresh = {"chain": Estimate(0.40, 0.30, 0.50, n=100)}
    found = compare(fresh, _claim(0.80))
    assert found.finding is FreshFinding.LOWER
    # Newcombe: -0.4 ± sqrt(0.1² + 0.05²)
    assert found.ci95 == pytest.approx((-0.5118, -0.2882), abs=1e-4)
    assert "lower by at least 28.8%" in found.text


def test_a_claim_within_reach_is_consistent_and_the_unseen_loss_is_said():
    fresh = {"chain": Estimate(0.76, 0.66, 0.86, n=100)}
    found = compare(fresh, _claim(0.80))
    assert found.finding is FreshFinding.CONSISTENT
    assert "a loss of up to 15.2% would not have shown" in found.text


def test_better_on_fresh_items_is_not_held_against_a_claim():
    assert compare({"chain": Estimate(0.9, 0.85, 0.95, 99)}, _claim(0.6)).finding == "higher"


def test_another_distribution_concludes_nothing_for_the_number():
    fresh = {"modular": Estimate(0.1, 0.05, 0.15, n=100)}
    for suite in ("gsm8k/test", "chain/test"):
        found = compare(fresh, _claim(0.9, suite=suite))
        assert found.finding is FreshFinding.OTHER_DISTRIBUTION
        assert found.difference is None
        assert "neither confirm nor refute" in found.text
