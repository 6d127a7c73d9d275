"""Addresses of stages, and whose work lies in a folder."""

import json

import pytest

from pellucid.artifacts import RunFolder
from pellucid.config_io import parse_recipe
from pellucid.errors import RunError
from pellucid.pipeline import address as addresses
from pellucid.pipeline.address import (
    StageAddress,
    check_outputs,
    digest_outputs,
    input_digests,
    make_address,
    outputs_digest,
)
from pellucid.pipeline.stage import stage_seed
from pellucid.pipeline.stage_folders import claim

TREE = {
    "stages": [
        {"kind": "zero", "train": {"steps": 3}},
        {"kind": "cold-start"},
    ]
}


def _address(name="zero", inputs=None, seed=1, **more):
    recipe = parse_recipe({**TREE, **more})
    return make_address(recipe, recipe.stage(name), inputs or {"start": "b"}, seed)


def _made(values="v", **more):
    given = {"values": values, "inputs": {"start": "b"}, "seed": 1, "code": "c"} | more
    return StageAddress(**given)


def test_an_address_changes_with_values_inputs_seed_device_template_and_code(monkeypatch):
    first = _address()
    assert first == _address()
    assert first == _address(name="zero", eval={"temperature": 0.1}), "models do not depend on it"
    changed = [
        _address(stages=[{"kind": "zero", "train": {"steps": 4}}]),
        _address(inputs={"start": "c"}),
        _address(seed=2),
        _address(dtype="bfloat16"),
        _address(code_timeout_s=1.5),
        _address(math_verify_timeout_s=1.5),
        _address(template="plain"),
    ]
    monkeypatch.setattr(addresses, "computing_sources", lambda: "other sources")
    digests = {a.digest for a in (first, *changed, _address())}
    assert len(digests) == 9


def test_a_default_written_out_is_the_same_stage():
    written = [{"kind": "zero", "name": "zero", "start": "base", "train": {"steps": 3}}]
    assert _address(stages=written) == _address()


def test_inputs_are_named_by_their_role_so_that_two_are_not_mistaken_for_each_other():
    recipe = parse_recipe(TREE)
    manifests = {"zero": {"outputs": {"model/model.safetensors": "m", "metrics.jsonl": "1"}}}
    inputs = input_digests(recipe, recipe.stage("cold-start"), "base weights", manifests)
    assert inputs == {"start": "base weights", "sampler": outputs_digest(manifests["zero"])}
    manifests["zero"]["outputs"]["metrics.jsonl"] = "2"  # holds times
    assert input_digests(recipe, recipe.stage("cold-start"), "base weights", manifests) == inputs
    manifests["zero"]["outputs"]["model/model.safetensors"] = "n"
    assert input_digests(recipe, recipe.stage("cold-start"), "base weights", manifests) != inputs


def test_a_file_that_a_stage_names_is_one_of_its_inputs(tmp_path):
    stage = {"kind": "reward-models", "start": "base", "helpful": {"sources": ["pairs.jsonl"]}}
    recipe = parse_recipe({"data_dir": str(tmp_path), "stages": [stage]})
    (tmp_path / "pairs.jsonl").write_text("1\n")
    before = input_digests(recipe, recipe.stages[0], "b", {})
    (tmp_path / "pairs.jsonl").write_text("2\n")
    after = input_digests(recipe, recipe.stages[0], "b", {})
    assert before.keys() == after.keys() == {"start", "file pairs.jsonl"}
    assert before != after


def test_stages_have_seeds_of_their_own():
    seeds = {stage_seed(seed, name) for seed in (0, 1) for name in ("zero", "reason-rl")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert stage_seed(1, "zero") == stage_seed(1, "zero")


def test_a_folder_of_another_address_is_kept_and_comes_back_when_it_is_wanted(tmp_path):
    run = RunFolder(tmp_path)
    first, second = _made("v"), _made("w")
    folder = claim(run, 1, "zero", first).stage
    (folder.root / "work").write_text("first")
    again = claim(run, 1, "zero", first)
    assert (again.set_aside, again.stage.root) == (None, folder.root)
    other = claim(run, 1, "zero", second)
    assert other.set_aside.name == f"01-zero.before-{first.digest[:8]}"
    assert other.reason == "its values in the recipe have changed"
    assert not (other.stage.root / "work").exists()
    (other.stage.root / "work").write_text("second")
    assert [s.name for s in run.stages()] == ["01-zero"]
    assert (claim(run, 1, "zero", first).stage.root / "work").read_text() == "first"
    assert (claim(run, 1, "zero", second).stage.root / "work").read_text() == "second"


def test_a_stage_keeps_its_work_when_others_come_before_it(tmp_path):
    run = RunFolder(tmp_path)
    (claim(run, 1, "zero", _made()).stage.root / "work").write_text("here")
    moved = claim(run, 3, "zero", _made())
    assert moved.stage.name == "03-zero"
    assert (moved.stage.root / "work").read_text() == "here"
    assert moved.set_aside is None


def test_other_code_is_accepted_only_when_asked_for(tmp_path):
    run = RunFolder(tmp_path)
    first, newer = _made(), _made(code="d")
    claim(run, 1, "zero", first)
    accepted = claim(run, 1, "zero", newer, accepts_code=True)
    assert (accepted.address, accepted.set_aside) == (first.digest, None)
    refused = claim(run, 1, "zero", newer)
    assert refused.reason == "the code has changed"
    other = claim(run, 1, "zero", _made("w", code="e"), accepts_code=True)
    assert other.reason == "its values in the recipe have changed"


def test_a_changed_or_lost_output_is_named_and_logs_of_later_work_are_none(tmp_path):
    stage = claim(RunFolder(tmp_path), 1, "zero", _made()).stage
    stage.model.mkdir()
    (stage.model / "weights").write_text("w")
    (stage.root / "metrics.jsonl").write_text("m")
    (stage.evals / "zero-chain.json").write_text("{}")
    outputs = digest_outputs(stage)
    assert sorted(outputs) == ["metrics.jsonl", "model/weights"]
    (stage.evals / "zero-other.json").write_text("{}")
    check_outputs(stage, {"outputs": outputs})
    (stage.model / "weights").write_text("x")
    with pytest.raises(RunError, match="model/weights is not what the stage made"):
        check_outputs(stage, {"outputs": outputs})
    (stage.model / "weights").unlink()
    with pytest.raises(RunError, match=r"model/weights is gone.*restore it, or move"):
        check_outputs(stage, {"outputs": outputs})


def test_a_damaged_address_says_what_to_do(tmp_path):
    stage = claim(RunFolder(tmp_path), 1, "zero", _made()).stage
    path = stage.root / "address.json"
    assert json.loads(path.read_text())["digest"] == _made().digest
    path.write_text("{")
    with pytest.raises(RunError, match=r"move .*01-zero away"):
        claim(RunFolder(tmp_path), 1, "zero", _made())
