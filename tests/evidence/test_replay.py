"""Replay on the embedded model: the honest samples pass, and each fraud is named for what it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pellucid.config import ModelConfig
from pellucid.errors import DataError
from pellucid.evidence import replay as module
from pellucid.evidence.replay import (
    ReplayReport,
    ReplaySample,
    calibrate,
    check,
    choose,
    detectable_share,
    detection_probability,
    samples_to_detect,
)
from pellucid.evidence.replay_causes import Cause, Suspects, name_cause
from pellucid.model.load import load_model
from pellucid.records import Request, SamplingParams, sample_id
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.low_precision import SCHEMES, low_precision
from pellucid.rollout.teacher_force import replay
from pellucid.tasks.chain import problems
from pellucid.tasks.templates import get_template

SEED = 20261122
FREE = SamplingParams(temperature=1.0, max_new_tokens=60, stop=("</answer>",))
NARROW = SamplingParams(temperature=0.8, top_p=0.95, top_k=40, max_new_tokens=60)


def _model():
    loaded = load_model(ModelConfig(id="tiny-base"), dtype=torch.float32, device="cpu")
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def world():
    torch.set_num_threads(1)
    return _model()


def _draw(model, tokenizer, params, *, seed=SEED, count=6, split="test", claimed_seed=SEED):
    """Samples as a record has them; they claim `claimed_seed`, whatever they were drawn with."""
    template = get_template("tiny")
    asked = problems(split, count)
    requests = [
        Request(
            prompt_ids=template.prompt_ids(p.question, tokenizer),
            sample_ids=tuple(sample_id("eval", "chain", p.id, i) for i in range(2)),
        )
        for p in asked
    ]
    engine = InProcessEngine(model, tokenizer, slots=8)
    groups = engine.generate(requests, params, seed=seed)
    return [
        ReplaySample(
            where=f"{problem.id} #{number}",
            prompt_ids=request.prompt_ids,
            token_ids=completion.token_ids,
            text=completion.text,
            sample_id=completion.sample_id,
            seed=claimed_seed,
            params=params,
            logprob_sum=float(sum(completion.logprobs)),
            stop=completion.stop,
        )
        for problem, request, group in zip(asked, requests, groups, strict=True)
        for number, completion in enumerate(group)
    ]


@pytest.fixture(scope="module")
def honest(world):
    return _draw(*world, FREE)


@pytest.fixture(scope="module")
def tolerance(world):
    model, tokenizer = world
    known = _draw(model, tokenizer, FREE, seed=5, claimed_seed=5, split="train")
    return calibrate(model, known, "cpu float32")


def _report(world, samples, tolerance, seeds=(0, 3), **suspects):
    model, tokenizer = world
    replayed = replay(model, [s.recorded() for s in samples])
    checks = [check(s, r, tolerance, tokenizer) for s, r in zip(samples, replayed, strict=True)]
    report = ReplayReport(
        weights_root="ab" * 32,
        seed="1234",
        eligible=100,
        withheld=0,
        tolerance=tolerance,
        checks=tuple(checks),
    )
    return name_cause(model, report, samples, Suspects(seeds=seeds, **suspects))


def test_honest_samples_pass_token_for_token(world, honest, tolerance):
    report = _report(world, honest, tolerance)
    assert report.holds
    assert report.cause is None
    assert report.match_frac == 1.0
    assert report.to_dict()["verdict"] == "holds"
    assert max(c.logprob_error for c in report.checks) < 1e-4


@pytest.mark.parametrize("params", [NARROW, SamplingParams(temperature=0.0, max_new_tokens=40)])
def test_temperature_top_p_top_k_and_greedy_are_replayed_as_recorded(world, tolerance, params):
    samples = _draw(*world, params, count=4)[:: 2 if params.temperature == 0 else 1]
    assert _report(world, samples, tolerance).holds
    warmer = [replace(s, params=replace(params, temperature=1.5)) for s in samples]
    assert not _report(world, warmer, tolerance).holds


def test_a_batch_is_replayed_as_each_sample_alone(world, honest, monkeypatch):
    together = replay(world[0], [s.recorded() for s in honest])
    for sample, one in zip(honest[:4], together, strict=False):
        alone = replay(world[0], [sample.recorded()])[0]
        assert (alone.token_ids == one.token_ids).all()
        np.testing.assert_allclose(alone.logprobs, one.logprobs, atol=1e-4)


def _edited(sample, tokenizer, place=0.5):
    """Another answer in the middle: the text and the tokens agree, the draws do not."""
    at = int(len(sample.token_ids) * place)
    ids = list(sample.token_ids)
    ids[at] = next(t for t in tokenizer.encode("0123456789") if t != ids[at])
    return replace(sample, token_ids=tuple(ids), text=tokenizer.decode(ids))


def _with_right_logprobs(model, sample):
    """The forger computes the log-probabilities of the edited text too."""
    total = float(replay(model, [sample.recorded()])[0].logprobs.sum())
    return replace(sample, logprob_sum=total)


@pytest.mark.parametrize("is_careful", [True, False])
def test_forged_completions_are_named_among_honest_ones(world, honest, tolerance, is_careful):
    model, tokenizer = world
    forged = [_edited(s, tokenizer) if i % 4 == 0 else s for i, s in enumerate(honest)]
    if is_careful:
        forged = [_with_right_logprobs(model, s) for s in forged]
    report = _report(world, forged, tolerance)
    assert report.cause == Cause.FORGED
    assert {c.where for c in report.failed} == {s.where for s in honest[::4]}
    assert "3 of 12 samples" in report.text
    assert all(c.first_hard is not None for c in report.failed)


def test_forged_completions_are_named_where_all_are_forged(world, honest, tolerance):
    model, tokenizer = world
    forged = [_with_right_logprobs(model, _edited(s, tokenizer)) for s in honest]
    assert _report(world, forged, tolerance).cause == Cause.FORGED


def test_a_text_beside_honest_tokens_is_named(world, honest, tolerance):
    edited = [replace(honest[0], text=honest[0].text + "7"), *honest[1:]]
    report = _report(world, edited, tolerance)
    assert report.cause == Cause.FORGED
    assert report.failed[0].findings == ("the text is not that of the tokens",)


def test_a_completion_that_was_cut_short_is_named(world, honest, tolerance):
    model, tokenizer = world
    long = max(honest, key=lambda s: len(s.token_ids))
    ids = long.token_ids[: len(long.token_ids) // 2]
    cut = replace(long, token_ids=ids, text=tokenizer.decode(ids))
    report = _report(world, [_with_right_logprobs(model, cut)], tolerance)
    assert report.cause == Cause.FORGED
    assert "does not end as recorded" in report.failed[0].findings[0]


def test_nothing_is_drawn_after_an_end_token(world, honest, tolerance):
    _, tokenizer = world
    ids = list(honest[0].token_ids)
    ids[2] = tokenizer.eos_ids[0]
    sample = replace(honest[0], token_ids=tuple(ids), text=tokenizer.decode(ids))
    report = _report(world, [sample, *honest[1:]], tolerance)
    assert "it does not end as recorded (eos)" in report.failed[0].findings


def test_another_seed_is_named_and_found_where_it_is_a_usual_one(world, tolerance):
    for seed, words in ((3, "seed 3"), (987654321, "another seed")):
        report = _report(world, _draw(*world, FREE, seed=seed), tolerance)
        assert report.cause == Cause.SEED
        assert words in report.text


def test_another_checkpoint_is_named(world, tolerance):
    _, tokenizer = world
    other, _ = _model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * parameter.std() * noise)
    samples = _draw(other, tokenizer, FREE)
    assert _report(world, samples, tolerance).cause == Cause.CHECKPOINT
    report = _report(world, samples, tolerance, models={"the base": lambda: other})
    assert report.cause == Cause.CHECKPOINT
    assert "drawn from the base" in report.text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rounded_weights_are_named_with_their_scheme(world, tolerance, scheme):
    samples = _draw(low_precision(world[0], scheme), world[1], FREE)
    report = _report(world, samples, tolerance)
    assert report.cause == Cause.FOUR_BIT
    assert scheme in report.text


def test_rounding_of_an_unknown_kind_is_known_by_its_size(world, tolerance, monkeypatch):
    name = "int4, groups of 32"
    rounded = low_precision(world[0], name)
    samples = _draw(rounded, world[1], FREE)
    monkeypatch.delitem(SCHEMES, name)
    report = _report(world, samples, tolerance)
    assert report.cause == Cause.FOUR_BIT
    assert "about as many as 4-bit rounding" in report.text


def test_rounded_weights_are_named_although_their_logprobs_were_computed_again(world, tolerance):
    model, tokenizer = world
    samples = _draw(low_precision(model, "uint4, groups of 32"), tokenizer, FREE)
    report = _report(world, [_with_right_logprobs(model, s) for s in samples], tolerance)
    assert report.cause == Cause.FOUR_BIT


def test_bfloat16_samples_replay_within_its_rounding_and_4_bits_do_not():
    torch.set_num_threads(1)
    loaded = load_model(ModelConfig(id="tiny-base"), dtype=torch.bfloat16, device="cpu")
    model, tokenizer = world = loaded.model, loaded.tokenizer
    params = replace(NARROW, max_new_tokens=40)
    known = _draw(model, tokenizer, params, seed=5, claimed_seed=5, split="train")
    tolerance = calibrate(model, known, "cpu bfloat16")
    assert _report(world, _draw(model, tokenizer, params, count=12), tolerance).holds
    samples = _draw(low_precision(model, "int4, groups of 128"), tokenizer, FREE, count=20)
    report = _report(world, samples, tolerance)
    assert not report.holds
    assert report.cause == Cause.FOUR_BIT


def test_rounding_is_named_though_no_sample_alone_is_beyond_the_limit(world, tolerance):
    samples = _draw(low_precision(world[0], "uint4, groups of 32"), world[1], FREE)
    wide = replace(tolerance, gap=1.0, logprob=10.0, mismatch_frac=0.001)
    report = _report(world, samples, wide)
    assert not report.failed
    assert report.cause == Cause.FOUR_BIT


def test_too_many_near_misses_are_a_finding_though_each_is_small(world, honest, tolerance):
    wide = replace(tolerance, gap=1.0, logprob=10.0, mismatch_frac=0.001)
    samples = [replace(s, seed=9) for s in honest]
    report = _report(world, samples, wide)
    assert not report.failed
    assert not report.holds
    assert report.cause == Cause.ROUNDING


def test_a_calibration_that_could_hide_a_fraud_is_refused(world, honest):
    strangers = [replace(s, seed=1) for s in honest]
    with pytest.raises(DataError, match="replay cannot judge there"):
        calibrate(world[0], strangers, "cpu")


def test_samples_are_chosen_by_the_referees_seed_alone():
    leaves = [(bytes([i]) * 32, i) for i in range(200)]
    chosen = choose(leaves, "1234", 20)
    assert choose(reversed(leaves), "1234", 20) == chosen
    assert choose(leaves, "1234", 5) == chosen[:5]
    assert set(choose(leaves, "1235", 20)) != set(chosen)
    assert len(set(choose(leaves, "1", 999))) == 200
    with pytest.raises(DataError, match="at least one"):
        choose(leaves, "1", 0)


def test_detection_power_is_that_of_independent_draws():
    assert samples_to_detect(0.05) == 59
    assert samples_to_detect(0.01) == 299
    assert detection_probability(59, 0.05) > 0.95 > detection_probability(58, 0.05)
    assert detectable_share(59) == pytest.approx(0.0495, abs=1e-3)


def test_the_tail_of_the_pooled_count_is_right():
    assert module._poisson_tail(0, 3.0) == 1.0
    assert module._poisson_tail(1, 3.0) == pytest.approx(1 - np.exp(-3.0))
    assert module._poisson_tail(300, 250.0) == pytest.approx(0.0013, abs=6e-4)


def test_the_report_tells_power_and_tolerance(world, honest, tolerance):
    report = _report(world, honest, tolerance)
    text = "\n".join(report.lines())
    assert "12 of 100 samples replayed, 100.00% of the tokens came out again" in text
    assert "59 find 5 %, 299 find 1 %" in text
    assert "cpu float32" in text
