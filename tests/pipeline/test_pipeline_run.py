"""A pipeline of two stages on a model of some thousand weights: really run, killed, changed."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from curated_world import byte_tokenizer

from pellucid.artifacts import RunFolder
from pellucid.cli import run_command
from pellucid.jsonl import read_jsonl
from pellucid.ledger import EventKind, Ledger, verify_ledger
from pellucid.model.export import export_model
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights

pytestmark = pytest.mark.slow

RECIPE = """
name = "two"
seed = 3
device = "cpu"
threads = 1
template = "plain"
math_verify = false
[eval]
max_new_tokens = 8
suites = [
  {name = "chain", limit = 4, k = 2},
  {name = "chain", limit = 4, template = "tiny", label = "tiny", baseline_only = true},
]
[[stages]]
kind = "zero"
tasks = [{name = "chain", limit = 20}]
rollout = {prompts = 2, group_size = 4, max_new_tokens = 12}
reward = {terms = {random = 1.0}, math_verify = false}
train = {steps = 2, learning_rate = 1e-3, checkpoint_every = 1}
[[stages]]
kind = "reason-rl"
start = "zero"
tasks = [{name = "chain", limit = 20}, {name = "countdown", limit = 10, weight = 0.5}]
rollout = {prompts = 2, group_size = 4, max_new_tokens = 12}
reward = {terms = {random = 1.0, language = 0.5}, math_verify = false}
train = {steps = 2, learning_rate = 1e-3, checkpoint_every = 1, eval_every = 2}
"""

# Runs the command line, but kills it (or asks it to stop) at the n-th call of one function.
STOPPER = """
import importlib, os, signal, sys
deed, place, count, arguments = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
module, _, path = place.partition(":")
owner = importlib.import_module(module)
*parents, name = path.split(".")
for parent in parents:
    owner = getattr(owner, parent)
real, calls = getattr(owner, name), 0

def stopping(*given, **named):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGTERM if deed == "ask" else signal.SIGKILL)
    return real(*given, **named)

setattr(owner, name, stopping)
from pellucid.cli import main
main(arguments)
"""
UPDATING = "pellucid.train.update:PolicyUpdater.update"
MANIFEST = "pellucid.pipeline.pipeline:write_manifest"
MEASURING = "pellucid.pipeline.evaluations:measure_into"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """(arguments of the command without its folder, the run folder of an undisturbed run)"""
    root = tmp_path_factory.mktemp("pipeline")
    _write_model(root / "model")
    (root / "recipe.toml").write_text(RECIPE)
    arguments = ["run", str(root / "recipe.toml"), "--set", f"model.id={root / 'model'}", "--out"]
    assert run_command([*arguments, str(root / "undisturbed"), "--json"]) == 0
    return arguments, root / "undisturbed"


def _write_model(folder: Path):
    tokenizer = byte_tokenizer()
    spec = ModelSpec(
        family="llama",
        vocab_size=tokenizer.vocab_size,
        width=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        ffn_width=64,
        max_context=1024,
    )
    model = Decoder(spec)
    init_weights(model, seed=0)
    export_model(model, tokenizer, folder)


@pytest.fixture
def copy(job, tmp_path):
    """The undisturbed run, to be changed."""
    shutil.copytree(job[1], tmp_path / "run")
    return tmp_path / "run"


def _outcome(root: Path):
    """Everything that must not depend on how often a run was stopped."""
    result = json.loads((root / "result.json").read_text())
    return {
        "models": [(s.model / "model.safetensors").read_bytes() for s in _trained(root)],
        "rollouts": [s.rollouts.read_bytes() for s in _trained(root)],
        "metrics": [
            [r for r in read_jsonl(s.metrics) if r["name"] != "timing"] for s in _trained(root)
        ],
        "pass_at_1": [
            {key: measured["pass_at_1"] for key, measured in stage["suites"].items()}
            for stage in result["stages"]
        ],
        "addresses": [stage["address"] for stage in result["stages"]],
    }


def _trained(root: Path):
    return [stage for stage in RunFolder(root).stages() if stage.stage_name != "base"]


def _files(root: Path):
    """Of stages, with the time of their last change."""
    found = sorted(p for p in (root / "stages").rglob("*") if p.is_file())
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in found}


def _events(root: Path, kind: EventKind):
    ledger = Ledger(root / "ledger.jsonl")
    ledger.close()
    return [event.payload for event in ledger.events if event.kind is kind]


def test_every_stage_leaves_what_the_design_promises(job):
    _, root = job
    assert [s.name for s in RunFolder(root).stages()] == ["00-base", "01-zero", "02-reason-rl"]
    zero, reason = _trained(root)
    manifests = [json.loads(stage.manifest.read_text()) for stage in (zero, reason)]
    assert [m["kind"] for m in manifests] == ["zero", "reason-rl"]
    assert manifests[1]["builds_on"] == {"start": "zero"}
    assert "model/model.safetensors" in manifests[0]["outputs"]
    assert manifests[0]["inputs"]["start"] != manifests[1]["inputs"]["start"]
    assert manifests[0]["seed"] != manifests[1]["seed"]
    assert not zero.checkpoint_steps(), "nothing continues from a finished stage"
    assert verify_ledger(root / "ledger.jsonl") == []
    assert [p["stage"] for p in _events(root, EventKind.STAGE_ENDED)] == ["zero", "reason-rl"]
    mixed = {line["step"]: line["values"] for line in read_jsonl(reason.metrics)}
    assert set(mixed) == {1, 2}


def test_the_stage_table_has_every_model_on_every_suite_with_intervals(job):
    _, root = job
    result = json.loads((root / "result.json").read_text())
    assert [s["name"] for s in result["stages"]] == ["base", "zero", "reason-rl"]
    assert [sorted(s["suites"]) for s in result["stages"]] == [["chain", "tiny"], *[["chain"]] * 2]
    last = result["stages"][2]["suites"]["chain"]
    assert {"pass_at_1", "ci95", "length_mean", "truncated_frac"} <= last.keys()
    assert 0.0 <= last["readable"]["value"] <= 1.0
    assert 0.0 <= last["language"]["ci95"][0] <= last["language"]["value"] <= 1.0
    assert {"value", "ci95"} <= last["from_base"].keys() & last["from_above"].keys()
    assert result["stages"][1]["seconds"] > 0
    page = (root / "report.html").read_text()
    assert "Models by suites" in page
    assert "reason-rl, step by step" in page


def test_a_finished_pipeline_is_not_run_again(job, copy, capsys):
    before = _files(copy)
    assert run_command([*job[0], str(copy)]) == 0
    printed = capsys.readouterr()
    assert "reason-rl is finished: not run again" in printed.err
    assert "from base" in printed.out
    assert _files(copy) == before
    assert _outcome(copy) == _outcome(job[1])


def test_a_pipeline_killed_at_every_kind_of_moment_ends_with_the_same_bits(job, tmp_path):
    arguments, undisturbed = job
    moments = [
        (signal.SIGKILL, MEASURING, 1),  # the base
        (signal.SIGKILL, UPDATING, 2),  # zero, behind its first checkpoint
        (signal.SIGKILL, MANIFEST, 1),  # zero, all but the manifest
        (signal.SIGTERM, UPDATING, 1),  # reason-rl
        (signal.SIGKILL, MEASURING, 1),  # its model
    ]
    for how, place, count in moments:
        deed = "ask" if how is signal.SIGTERM else "kill"
        given = [deed, place, str(count), *arguments, str(tmp_path / "run")]
        done = subprocess.run(
            [sys.executable, "-c", STOPPER, *given], capture_output=True, text=True, check=False
        )
        expected = 143 if how is signal.SIGTERM else -signal.SIGKILL
        assert done.returncode == expected, (place, done.stderr)
    assert run_command([*arguments, str(tmp_path / "run"), "--json"]) == 0
    assert _outcome(tmp_path / "run") == _outcome(undisturbed)
    assert verify_ledger(tmp_path / "run" / "ledger.jsonl") == []
    assert _events(tmp_path / "run", EventKind.STAGE_SET_ASIDE) == []


def test_a_changed_stage_runs_anew_and_what_it_had_made_is_kept(job, copy):
    arguments, _ = job
    zero, reason = _trained(copy)
    before = _files(zero.root.parent.parent)
    changed = ["--set", "stages.reason-rl.train.learning_rate=0.01"]
    assert run_command([*arguments, str(copy), "--json", *changed]) == 0
    [aside] = _events(copy, EventKind.STAGE_SET_ASIDE)
    assert aside["stage"] == "reason-rl"
    kept = copy / "stages" / aside["folder"]
    assert kept.name.startswith("02-reason-rl.before-")
    assert (kept / "model" / "model.safetensors").is_file()
    after = _files(copy)
    assert {k: v for k, v in after.items() if "01-zero" in k} == {
        k: v for k, v in before.items() if "01-zero" in k
    }
    assert (reason.model / "model.safetensors").read_bytes() != (
        kept / "model" / "model.safetensors"
    ).read_bytes()
    # The old values again: what was set aside comes back, and nothing is trained.
    assert run_command([*arguments, str(copy), "--json"]) == 0
    assert _outcome(copy) == _outcome(job[1])
    assert len(_events(copy, EventKind.STAGE_STARTED)) == 3


def test_what_builds_on_a_changed_stage_runs_anew_too(job, copy):
    changed = ["--set", "stages.zero.train.learning_rate=0.01"]
    assert run_command([*job[0], str(copy), "--json", *changed]) == 0
    aside = _events(copy, EventKind.STAGE_SET_ASIDE)
    assert [event["stage"] for event in aside] == ["zero", "reason-rl"]
    assert _outcome(copy)["models"][1] != _outcome(job[1])["models"][1]


def test_a_stage_whose_input_was_edited_is_refused_and_nothing_is_overwritten(job, copy, capsys):
    weights = _trained(copy)[0].model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    before = _files(copy)
    assert run_command([*job[0], str(copy), "--json"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{weights} is not what the stage made" in line
    assert "move" in line
    assert _files(copy) == before


def test_changed_suites_measure_anew_and_train_nothing(job, copy):
    models = _outcome(copy)["models"]
    assert run_command([*job[0], str(copy), "--json", "--set", "eval.suites.0.limit=3"]) == 0
    assert _outcome(copy)["models"] == models
    assert len(_events(copy, EventKind.STAGE_STARTED)) == 2
    result = json.loads((copy / "result.json").read_text())
    assert [s["suites"]["chain"]["n"] for s in result["stages"]] == [3, 3, 3]


def test_a_stage_alone_needs_what_it_builds_on(job, tmp_path, capsys):
    _, recipe, *options = job[0]
    folder = str(tmp_path / "run")
    assert run_command(["reason-rl", recipe, *options, folder, "--json"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "stage reason-rl builds on zero, which is not finished" in line
    assert "`pellucid zero`" in line
    assert not _events(tmp_path / "run", EventKind.EVALUATION_STARTED)  # said at once
    assert run_command(["zero", recipe, *options, folder, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["name"] for stage in table] == ["base", "zero"]
    assert run_command(["reason-rl", recipe, *options, folder, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["name"] for stage in table] == ["base", "zero", "reason-rl"]
    assert _outcome(tmp_path / "run") == _outcome(job[1])


def test_a_stage_that_the_recipe_lacks_is_one_line(job, capsys):
    _, recipe, *options = job[0]
    assert run_command(["distill", recipe, *options, "unused"]) == 2
    assert "the recipe has no stage of kind distill" in capsys.readouterr().err
    assert run_command(["zero", recipe, *options, "unused", "--stage", "one"]) == 2
    assert "no stage of kind zero is called 'one'" in capsys.readouterr().err


def test_a_dry_run_prints_the_recipe_and_makes_nothing(job, tmp_path, capsys):
    _, recipe, *options = job[0]
    more = ["--set", "stages.zero.train.steps=9", "--dry-run"]
    assert run_command(["run", recipe, *options, str(tmp_path / "run"), *more]) == 0
    assert "steps = 9  # by --set" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.zero.tasks.chain.name=gsm8k", "pellucid data get gsm8k"),
        ("stages.zero.reward=acuracy", "did you mean 'accuracy'?"),
        ("stages.zero.template=r1zero", "did you mean 'r1-zero'?"),
        ("model.id=no-such-model", "no model no-such-model"),
    ],
)
def test_what_a_pipeline_lacks_is_one_line_before_any_work(
    job, tmp_path, capsys, override, message
):
    more = ["--set", f"data_dir={tmp_path}", "--set", override, "--json"]
    assert run_command([*job[0], str(tmp_path / "run"), *more]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_run_of_one_stage_is_not_continued_by_a_pipeline(job, tmp_path, capsys):
    (tmp_path / "run" / "stages" / "01-zero").mkdir(parents=True)
    (tmp_path / "run" / "stages" / "01-zero" / "metrics.jsonl").write_text("")
    (tmp_path / "run" / "recipe.toml").write_text('name = "run"\n[train]\nsteps = 3\n')
    assert run_command([*job[0], str(tmp_path / "run"), "--json"]) == 2
    assert "holds a run of another recipe" in capsys.readouterr().err


def test_the_trained_model_is_measured_under_its_own_stages_template(
    job, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where `evals/` is made
    suite = ["--suite", "chain", "--limit", "2", "--max-new-tokens", "4", "--device", "cpu"]
    assert run_command(["eval", str(job[1]), *suite, "--json"]) == 0
    [summary] = json.loads(capsys.readouterr().out)
    assert summary["template"] == "plain"
