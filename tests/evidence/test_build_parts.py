"""Parts of a dossier by themselves: keys, weights, default claims, controls, generated scans."""

import hashlib
import json
import shutil
import stat

import pytest
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448
from safetensors.torch import load_file

from pellucid.config import ControlsConfig, RewardConfig, RunConfig, TrainConfig
from pellucid.config_io import parse_recipe
from pellucid.errors import ConfigError, ModelError, RunError
from pellucid.evaluate.records import SampleRecord, item_sha256
from pellucid.evaluate.suites import Suite
from pellucid.evidence.claims import (
    CONTROLS,
    NO_CONTROLS,
    PlannedEvaluation,
    claim_limits,
    claim_text,
    compared_claims,
    default_claims,
    labelled_text,
)
from pellucid.evidence.core import canonical
from pellucid.evidence.core.ed25519 import is_signed_by
from pellucid.evidence.recording import dossier_sample
from pellucid.evidence.seal import make_key, read_key
from pellucid.evidence.weights import model_files, tensor_digests, weights_root
from pellucid.model.load import ASSETS
from pellucid.pipeline.controls import control_config, control_names
from pellucid.pipeline.generated_scan import scan_generated
from pellucid.records import Problem, SamplingParams, StopReason, Verdict


def problem(number, question="How many?", suite="toy"):
    return Problem(id=f"{suite}/test/{number}", question=question, gold="2", grader="math")


def suite(key="toy", variant="", baseline_only=False, problems=None):
    return Suite(
        key=key, label=key, problems=tuple(problems or [problem(0)]), template="plain",
        params=SamplingParams(), k=2, pass_at=(2,), baseline_only=baseline_only, variant=variant,
    )  # fmt: skip


# Keys


def test_a_key_is_readable_by_its_owner_alone_and_signs(tmp_path):
    path = tmp_path / "keys" / "mine"
    key = make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path).id == key.id == hashlib.sha256(key.public).hexdigest()
    assert is_signed_by(key.public, b"text", key.sign(b"text"))
    assert not is_signed_by(key.public, b"test", key.sign(b"text"))
    with pytest.raises(RunError, match="never replaced"):
        make_key(path)


def test_what_is_no_ed25519_key_is_refused(tmp_path):
    with pytest.raises(RunError, match="make one with `pellucid dossier keygen`"):
        read_key(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RunError, match="no unencrypted PEM key"):
        read_key(tmp_path / "text")
    other = ed448.Ed448PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "other").write_bytes(other)
    with pytest.raises(RunError, match="no Ed25519 key"):
        read_key(tmp_path / "other")


# Weights


def test_the_root_changes_with_weights_configuration_and_tokenizer_alone(tmp_path):
    folder = shutil.copytree(ASSETS / "tiny-base", tmp_path / "model")
    root = weights_root(folder)
    assert root == weights_root(ASSETS / "tiny-base")
    (folder / "README.md").write_text("other words")
    assert weights_root(folder) == root
    roots = {root}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data + b" ")
        roots.add(weights_root(folder))
        (folder / name).write_bytes(data)
    assert len(roots) == 4
    with pytest.raises(ModelError, match="holds no weights"):
        model_files(tmp_path)


def test_tensors_are_digested_where_they_lie():
    tensors = tensor_digests(ASSETS / "tiny-base")
    loaded = load_file(ASSETS / "tiny-base" / "model.safetensors")
    assert tensors.keys() == loaded.keys()
    for name, tensor in loaded.items():
        assert tensors[name]["shape"] == list(tensor.shape)
        assert (
            tensors[name]["sha256"]
            == hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()
        )


# Samples


def test_items_have_the_verifiers_digest():
    own = item_sha256(problem(0))
    parts = {"item": "toy/test/0", "question": "How many?", "gold": "2", "grader": "math"}
    assert own == canonical.item_sha256(**parts)


def test_a_sample_without_its_origin_gives_no_record():
    old = SampleRecord(
        arm="before", suite="toy", problem_id="toy/test/0", question="How many?", gold="2",
        family="f", k_index=0, sample_id=1, prompt_sha256="ab", response="2", token_ids=(1,),
        stop=StopReason.EOS, verdict=Verdict.CORRECT, extracted="2", method="strict", detail="",
        retried=False, n_prompt=1, n_completion=1, logprob_sum=-1.0,
    )  # fmt: skip
    with pytest.raises(RunError, match="do not say which weights, seed and grader made them"):
        dossier_sample(old)


# Claims


def test_the_trained_model_is_held_against_the_base_under_every_prompt():
    chat = suite("toy-chat", variant="chat", baseline_only=True)
    evaluations = [
        PlannedEvaluation(model="before", suite=suite()),
        PlannedEvaluation(model="before", suite=chat),
        PlannedEvaluation(model="after", suite=suite()),
    ]
    claims = default_claims(evaluations, base="before", subject="after")
    gains = [c for c in claims if c["test"] == "sign_flip"]
    assert [c["arms"]["b"] for c in gains] == ["evals/toy/before", "evals/toy-chat/before-chat"]
    assert all(c["rule"] == "low > 0 and p_adj < 0.05" and c["requires"] == [] for c in gains)
    assert claim_limits(gains[0], 1).startswith(NO_CONTROLS)
    numbers = [(c["kind"], c["arms"]["a"]) for c in claims if not c["test"]]
    assert ("pass_at_k", "evals/toy/after") in numbers
    assert len({c["id"] for c in claims}) == len(claims)


@pytest.mark.parametrize(
    ("controls", "says", "limit"),
    [
        ((), "is above that of", NO_CONTROLS),
        (("random-reward",), "is above that of", "The control format-only was not run"),
        (("random-reward", "format-only"), "RL improves", "One training run"),
    ],
)
def test_a_cause_is_claimed_with_both_controls_alone(controls, says, limit):
    evaluations = [PlannedEvaluation(model=m, suite=suite()) for m in ("before", "after")]
    claims = default_claims(evaluations, base="before", subject="after", controls=controls)
    (gain,) = [c for c in claims if c["test"] == "sign_flip"]
    assert says in claim_text(gain)
    assert claim_limits(gain, 1).startswith(limit)


def test_every_gain_has_a_format_control_that_is_decided_like_it():
    evaluations = [PlannedEvaluation(model=m, suite=suite()) for m in ("before", "after")]
    claims = default_claims(evaluations, base="before", subject="after", controls=CONTROLS)
    gain, control = [c for c in claims if c["test"]]
    assert control["metric"] == {"fn": "rate", "of": "correct", "among": "parsable"}
    same = ("kind", "arms", "unit", "cluster", "family", "rule")
    assert [control[key] for key in same] == [gain[key] for key in same]
    assert (
        claim_text(control) == "of the answers found on toy more are right of after than of before"
    )
    assert "missing ones" in claim_limits(control, 1)
    assert [int(c["id"][1:]) for c in claims] == list(range(1, len(claims) + 1))
    own = compared_claims(evaluations, ["before", "after"])
    assert [c["metric"]["fn"] for c in own if c["test"]] == ["pass_at_1", "rate"]


def test_comparisons_of_one_or_two_trainings_are_labelled_so():
    evaluations = [PlannedEvaluation(model=m, suite=suite()) for m in ("before", "after")]
    claims = default_claims(evaluations, base="before", subject="after")
    starts = {n: labelled_text(claims[0], n).partition(": ")[0] for n in (1, 2)}
    assert starts == {1: "single run", 2: "two runs"}
    for seeds in (0, 3):
        assert labelled_text(claims[0], seeds) == claim_text(claims[0])
    assert labelled_text(claims[-1], 1) == claim_text(claims[-1])  # a number of one arm


def test_a_base_measured_on_other_problems_is_no_rival():
    other = suite("far", variant="chat", baseline_only=True, problems=[problem(9)])
    evaluations = [
        PlannedEvaluation(model="before", suite=other),
        PlannedEvaluation(model="after", suite=suite()),
    ]
    claims = default_claims(evaluations, base="before", subject="after")
    assert [c for c in claims if c["test"]] == []


def test_a_cutoff_is_a_day():
    document = {"evidence": {"cutoff": "2024-09-19"}}
    assert parse_recipe(document).evidence.cutoff == "2024-09-19"
    with pytest.raises(ConfigError, match="cutoff"):
        parse_recipe({"evidence": {"cutoff": "September 2024"}})


# Controls


def test_a_control_differs_in_reward_and_steps_alone():
    config = RunConfig(
        reward=RewardConfig(terms={"accuracy": 1.0, "format": 0.5}, truncated="mask"),
        train=TrainConfig(steps=9, eval_every=3),
        controls=ControlsConfig(random_reward=True, format_only=True, steps=4),
    )
    assert control_names(config.controls) == ("random-reward", "format-only")
    control = control_config(config, "format-only")
    assert control.reward.terms == {"format": 1.0}
    assert (control.reward.truncated, control.train.steps) == ("mask", 4)
    same = {"reward": config.reward, "train": config.train}
    assert control.model_copy(update=same) == config
    whole = config.model_copy(update={"controls": ControlsConfig(random_reward=True)})
    assert control_names(whole.controls) == ("random-reward",)
    assert control_config(whole, "random-reward").train.steps == 9


# Generated problems


def test_a_generated_question_that_was_trained_on_is_found():
    asked = [problem(0, "A bus has 3 people."), problem(1, "A bus has 4 people.")]
    trained = [problem(0, "a BUS has  3 people"), problem(1, "A bus has 40 people.")]
    scan = scan_generated([suite(problems=asked)], trained)
    items = scan["suites"]["toy"]["items"]
    assert [one["containment"] for one in items.values()] == [1.0, 0.0]
    assert items["toy/test/0"]["matches"] == [{"source": "training problems", "row": 0}]
    assert scan["self_test"]["recall"] == {"verbatim": 1.0, "case": 1.0}
    assert scan["suites"]["toy"]["compared"] == "equal questions"
    json.dumps(scan)


def test_a_generated_question_with_other_operators_is_another_question():
    asked = ["Calculate 11 - 4 * (2 + 3).", "Let x = 5! / 2."]
    trained = ["Calculate 11 + 4 * (2 + 3).", "Calculate (11 - 4) * 2 + 3.", "Let x = 5 / 2."]
    suites = [suite(problems=[problem(n, text) for n, text in enumerate(asked)])]
    others = [problem(n, text) for n, text in enumerate(trained)]
    items = scan_generated(suites, others)["suites"]["toy"]["items"]
    assert [one["containment"] for one in items.values()] == [0.0, 0.0]
    others.append(problem(9, "calculate 11-4*(2+3)"))
    items = scan_generated(suites, others)["suites"]["toy"]["items"]
    assert [len(one["matches"]) for one in items.values()] == [1, 0]
