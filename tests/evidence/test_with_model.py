"""Replay and fresh items of a little dossier that the embedded model really made."""

import gzip
import json
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from pellucid.errors import DataError
from pellucid.evaluate.records import Origin
from pellucid.evaluate.runner import evaluate
from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.samples import redact_sample
from pellucid.evidence.fresh import FreshFinding
from pellucid.evidence.fresh_dossier import fresh_dossier
from pellucid.evidence.recording import dossier_sample
from pellucid.evidence.replay import GAP_CEILING
from pellucid.evidence.replay_causes import Cause
from pellucid.evidence.replay_dossier import replay_dossier
from pellucid.evidence.with_model import open_model, root_of
from pellucid.records import SamplingParams
from pellucid.rewards.table import find_grader
from pellucid.tasks.chain import problems
from pellucid.tasks.templates import get_template

PARAMS = SamplingParams(temperature=1.0, max_new_tokens=60)


class PlainGrader:
    def submit(self, problems, responses):
        pending = Future()
        pending.set_result(self.grade(problems, responses))
        return pending

    def grade(self, problems, responses):
        return [find_grader(p.grader)(p, r) for p, r in zip(problems, responses, strict=True)]


@pytest.fixture(scope="module")
def recorded():
    """The dossier's records of 8 problems, two samples each."""
    torch.set_num_threads(1)
    opened = open_model("tiny-base", dtype="float32", device="cpu")
    kept = []
    result = evaluate(
        opened.engine,
        opened.loaded.tokenizer,
        problems("test", 8),
        template=get_template("tiny"),
        params=PARAMS,
        k=2,
        seed=77,
        arm="after",
        suite="chain",
        grader=PlainGrader(),
        origin=Origin(
            eval_serial=1,
            weights=opened.root,
            grader_sha256="ab" * 32,
            engine={"name": "pellucid", "version": "1", "dtype": "float32", "exact": False},
        ),
        sink=kept.append,
    )
    return [dossier_sample(record) for record in kept], result.pass_at_1


def _write(folder, samples, claims=(), device="cpu, 1 threads"):
    place = folder / "evals" / "chain" / "after"
    place.mkdir(parents=True)
    lines = b"".join(canonical_json(s) + b"\n" for s in samples)
    (place / "samples.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "claims.json").write_text(json.dumps({"claims": list(claims)}))
    (folder / "env").mkdir()
    stages = {"01-zero": {"device": device}}
    (folder / "env" / "environment.json").write_text(json.dumps(stages))
    return folder


def _claim(value, low, high, **more):
    return {
        "id": "C1",
        "kind": "pass_at_1",
        "metric": {"fn": "pass_at_1", "k": 1},
        "arms": {"a": "evals/chain/after"},
        "reported": {"value": str(value), "low": str(low), "high": str(high)},
    } | more


def test_an_honest_dossier_replays(recorded, tmp_path):
    report = replay_dossier(_write(tmp_path, recorded[0]), "tiny-base", 12, "1234")
    assert report.verdict == "holds"
    assert (report.eligible, len(report.checks), report.withheld) == (16, 12, 0)
    assert report.match_frac == 1.0
    assert report.tolerance.hardware == "cpu float32"
    assert report.tolerance.tokens > 100
    assert report.to_dict()["detectable_share"] == pytest.approx(0.221, abs=1e-3)


def test_the_referees_seed_chooses(recorded, tmp_path):
    folder = _write(tmp_path, recorded[0])
    one, same, other = (
        [c.where for c in replay_dossier(folder, "tiny-base", 4, seed).checks]
        for seed in ("1", "1", "2")
    )
    assert one == same != other


def test_an_edited_sample_is_found_where_it_lies(recorded, tmp_path):
    samples = [dict(s) for s in recorded[0]]
    samples[5]["token_ids"] = [*samples[5]["token_ids"]]
    samples[5]["token_ids"][3] = (samples[5]["token_ids"][3] + 1) % 700
    report = replay_dossier(_write(tmp_path, samples), "tiny-base", 16, "1234")
    assert report.verdict == "fails"
    assert report.cause == Cause.FORGED
    assert [c.where for c in report.failed] == [f"evals/chain/after {samples[5]['item']} #1"]


def test_another_seed_than_recorded_is_named(recorded, tmp_path):
    samples = [s | {"seed": 78} for s in recorded[0]]
    report = replay_dossier(_write(tmp_path, samples), "tiny-base", 10, "1234")
    assert report.cause == Cause.SEED


def test_another_prompt_than_the_template_gives_is_named(recorded, tmp_path):
    samples = [s | {"prompt_sha256": "cd" * 32} for s in recorded[0]]
    report = replay_dossier(_write(tmp_path, samples), "tiny-base", 10, "1234")
    assert report.verdict == "fails"
    assert report.cause == Cause.PROMPT


def test_withheld_samples_are_counted_and_not_replayed(recorded, tmp_path):
    samples = [redact_sample(s) if i < 15 else s for i, s in enumerate(recorded[0])]
    report = replay_dossier(_write(tmp_path, samples), "tiny-base", 16, "1")
    assert (len(report.checks), report.withheld) == (1, 15)
    assert report.holds
    every = _write(tmp_path / "all", [redact_sample(s) for s in recorded[0]])
    report = replay_dossier(every, "tiny-base", 16, "1")
    assert report.verdict == "unchecked"
    assert "withheld" in report.lines()[0]


def test_samples_from_other_hardware_get_the_widest_limits(recorded, tmp_path):
    folder = _write(tmp_path, recorded[0], device="NVIDIA H200")
    report = replay_dossier(folder, "tiny-base", 4, "1")
    assert report.holds
    assert report.tolerance.gap == GAP_CEILING
    assert "drawn on NVIDIA H200" in report.tolerance.hardware


def test_a_model_that_no_sample_claims_is_a_users_mistake(recorded, tmp_path):
    samples = [s | {"model": "ef" * 32} for s in recorded[0]]
    folder = _write(tmp_path, samples)
    with pytest.raises(DataError, match=r"no sample claims the weights .* efefefefefef"):
        replay_dossier(folder, "tiny-base", 4, "1")
    with pytest.raises(DataError, match="of the weights"):
        fresh_dossier(folder, "tiny-base", 4, "1")
    with pytest.raises(DataError, match="cannot be replayed"):
        replay_dossier(tmp_path / "nowhere", "tiny-base", 4, "1")


def test_a_template_of_another_version_is_named(recorded, tmp_path):
    samples = [s | {"template_sha256": "cd" * 32} for s in recorded[0]]
    with pytest.raises(DataError, match="no prompt template has the digest cdcd"):
        replay_dossier(_write(tmp_path, samples), "tiny-base", 4, "1")


def test_fresh_items_are_of_the_claims_family_and_refute_what_is_claimed_too_high(
    recorded, tmp_path, monkeypatch
):
    class Pool(PlainGrader):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("pellucid.evidence.fresh_dossier.GraderPool", Pool)
    samples, measured = recorded
    honest = _claim(measured.value, measured.low, measured.high)
    result = fresh_dossier(_write(tmp_path / "a", samples, [honest]), "tiny-base", 24, "9")
    assert result.families == ("chain",)
    assert result.weights_root == root_of("tiny-base")
    assert [c.finding for c in result.comparisons] == [FreshFinding.CONSISTENT]
    boast = _claim(0.97, 0.95, 0.99)
    result = fresh_dossier(_write(tmp_path / "b", samples, [boast]), "tiny-base", 24, "9")
    assert [c.finding for c in result.comparisons] == [FreshFinding.LOWER]
    assert result.to_dict()["comparisons"][0]["finding"] == "lower"

    other = [s | {"item": f"gsm8k/test/{i}"} for i, s in enumerate(samples)]
    result = fresh_dossier(_write(tmp_path / "c", other, [boast]), "tiny-base", 10, "9")
    assert "chain" not in result.families
    assert [c.finding for c in result.comparisons] == [FreshFinding.OTHER_DISTRIBUTION]


def test_a_gain_is_asked_of_both_models_on_the_same_items(recorded, tmp_path, monkeypatch):
    from pellucid.evidence import fresh_dossier as module

    asked = []

    def fake(sample, model, device, root, nonce, n, families):
        asked.append((model, root, families))
        return results[model]

    samples, _ = recorded
    before = [s | {"arm": "before", "model": root_of("tiny-base")} for s in samples]
    after = [s | {"model": "ef" * 32} for s in samples]
    folder = _write(tmp_path, after)
    place = folder / "evals" / "chain" / "before"
    place.mkdir()
    lines = b"".join(canonical_json(s) + b"\n" for s in before)
    (place / "samples.jsonl.gz").write_bytes(gzip.compress(lines))
    arms = {"a": "evals/chain/after", "b": "evals/chain/before"}
    claim = _claim(0.9, 0.85, 0.95, kind="paired_difference", arms=arms)
    (folder / "claims.json").write_text(json.dumps({"claims": [claim]}))
    trained = module._measure(samples[0], "tiny-base", "cpu", "ef" * 32, "3", 20, ("chain",))
    results = {"trained": trained, "tiny-base": replace(trained)}
    roots = {"trained": "ef" * 32, "tiny-base": root_of("tiny-base")}
    monkeypatch.setattr(module, "_measure", fake)
    monkeypatch.setattr(module, "root_of", roots.get)
    result = fresh_dossier(folder, "trained", 20, "3", base="tiny-base")
    assert asked == [("trained", "ef" * 32, ("chain",)), ("tiny-base", "ef" * 32, ("chain",))]
    assert [(c.claim, c.finding) for c in result.comparisons] == [("C1", FreshFinding.LOWER)]
