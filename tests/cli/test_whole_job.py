"""The main job on a model of 30 thousand weights: killed anywhere, it ends with the same bits."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_model import write_small_model

from pellucid.artifacts import RunFolder
from pellucid.cli import run_command
from pellucid.jsonl import read_jsonl, read_zstd_jsonl
from pellucid.ledger import EventKind, Ledger, verify_ledger

pytestmark = pytest.mark.slow

RECIPE = """
name = "whole"
seed = 3
device = "cpu"
threads = 1
[task]
template = "plain"
[rollout]
prompts = 4
group_size = 4
max_new_tokens = 24
[reward]
terms = {random = 1.0}
math_verify = false
[train]
steps = 5
learning_rate = 1e-3
checkpoint_every = 2
[eval]
max_new_tokens = 16
suites = [{name = "chain", limit = 6, k = 2}]
"""

# Runs the command line, but does something at the n-th call of one function of the package.
STOPPER = """
import errno, importlib, os, signal, sys
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
        if deed == "fill":
            raise OSError(errno.ENOSPC, "No space left on device")
        if deed == "tear":
            real(given[0], given[1][: len(given[1]) // 2])
        os.kill(os.getpid(), signal.SIGTERM if deed == "ask" else signal.SIGKILL)
    return real(*given, **named)

setattr(owner, name, stopping)
from pellucid.cli import main
main(arguments)
"""
DECODING = "pellucid.rollout.generation:Generation._advance"
APPENDING = "pellucid.jsonl:_Appender._append_blob"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """(arguments of the command without its folder, the run folder of an undisturbed run)"""
    root = tmp_path_factory.mktemp("job")
    model = write_small_model(root / "model")
    (root / "recipe.toml").write_text(RECIPE)
    arguments = ["run", str(root / "recipe.toml"), "--set", f"model.id={model}", "--out"]
    done = _command(*arguments, str(root / "undisturbed"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["suite"] == "chain"
    return arguments, root / "undisturbed"


def _command(*arguments):
    code = "from pellucid.cli import main; main()"
    return _python(code, *arguments)


def _python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _outcome(root: Path):
    """Everything that must not depend on how often a run was stopped."""
    stage = RunFolder(root).stages()[0]
    result = json.loads((root / "result.json").read_text())
    return {
        "model": (stage.model / "model.safetensors").read_bytes(),
        "states": [
            (stage.checkpoint(step) / "state.safetensors").read_bytes()
            for step in stage.checkpoint_steps()
        ],
        "steps": stage.checkpoint_steps(),
        "metrics": [r for r in read_jsonl(stage.metrics) if r["name"] != "timing"],
        "rollouts": stage.rollouts.read_bytes(),
        "samples": {
            # which attempt at the evaluation a sample is of, is said in it
            p.name: [record | {"eval_serial": 0} for record in read_zstd_jsonl(p)]
            for p in stage.evals.glob("*.zst")
        },
        "pass_at_1": [result[arm]["pass_at_1"] for arm in ("before", "after")],
    }


def test_an_undisturbed_run_leaves_the_folder_that_the_design_promises(job):
    _, root = job
    stage = RunFolder(root).stages()[0]
    result = json.loads((root / "result.json").read_text())
    assert {"pass_at_1", "ci95", "n", "k"} <= result["before"].keys()
    assert {"pass_at_1", "ci95", "n", "k"} <= result["after"].keys()
    assert {"value", "ci95"} <= result["difference"].keys()
    assert result["wall_s"] > 0
    assert result["device"] == "cpu, 1 threads"
    assert (result["before"]["n"], result["before"]["k"]) == (6, 2)
    assert "<html" in (root / "report.html").read_text()
    assert "learning_rate = 0.001  # by the recipe" in (root / "recipe.toml").read_text()
    assert verify_ledger(root / "ledger.jsonl") == []
    manifest = json.loads(stage.manifest.read_text())
    assert manifest["seed"] == 3
    assert {"model", "recipe"} <= manifest["inputs"].keys()
    assert stage.checkpoint_steps() == [5, 4]
    metrics = list(read_jsonl(stage.metrics))
    assert sorted({r["step"] for r in metrics}) == [1, 2, 3, 4, 5]
    rollouts = list(read_zstd_jsonl(stage.rollouts))
    assert len(rollouts) == 5 * 4 * 4
    assert max(abs(r["advantage"]) for r in rollouts) > 0


def test_a_run_killed_at_every_kind_of_moment_ends_with_the_same_bits(job, tmp_path):
    arguments, undisturbed = job
    moments = [
        ("kill", DECODING, 5),  # the evaluation before
        ("kill", DECODING, 60),  # a rollout before the first checkpoint
        ("kill", "pellucid.artifacts:_put_in_place", 1),  # a checkpoint written, not yet in place
        ("tear", APPENDING, 13),  # half a line or frame
        ("kill", DECODING, 40),  # a rollout after a checkpoint
        ("kill", "pellucid.pipeline.zero:build_result", 1),  # all but the result
    ]
    for deed, place, count in moments:
        done = _python(STOPPER, deed, place, str(count), *arguments, str(tmp_path / "run"))
        assert done.returncode == -signal.SIGKILL, (place, done.stderr)
        assert not (tmp_path / "run" / "result.json").exists()
    done = _command(*arguments, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "report.html in a browser" in done.stdout
    assert _outcome(tmp_path / "run") == _outcome(undisturbed)
    assert verify_ledger(tmp_path / "run" / "ledger.jsonl") == []
    assert list((tmp_path / "run").rglob(".partial*")) == []


@pytest.mark.parametrize(
    ("place", "count", "name"),
    [("os:write", 9, "jsonl"), ("pellucid.train.checkpoint:save_file", 2, "step-000004")],
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(job, tmp_path, place, count, name):
    arguments, undisturbed = job
    root = str(tmp_path / "run")
    done = _python(STOPPER, "fill", place, str(count), *arguments, root, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    # Within a training step it is named.
    assert re.match(rf"error: (step \d+: )?no space left to write {re.escape(root)}", line)
    assert name in line
    done = _command(*arguments, root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert _outcome(tmp_path / "run") == _outcome(undisturbed)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.id=no-such-model", "no model no-such-model: give tiny-base, an existing folder"),
        ("model.id=RECIPE", "RECIPE"),
        ("task.name=gsm8k", "pellucid data get gsm8k"),
        ("task.name=chian", "did you mean 'chain'?"),
        ("task.template=r1zero", "did you mean 'r1-zero'?"),
        ("reward=acuracy", "accuracy"),
        ("rollout.max_new_tokens=1020", "rollout.max_new_tokens = 1020 and a prompt of"),
        pytest.param(
            "device=cuda",
            "torch sees no GPU: set device=cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_a_job_lacks_is_one_line_before_any_work(job, tmp_path, capsys, setting, message):
    arguments, _ = job
    recipe = arguments[1]
    more = ["--set", setting.replace("RECIPE", recipe), "--set", f"task.data_dir={tmp_path}"]
    code = run_command([*arguments, str(tmp_path / "run"), *more, "--json"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    [line] = captured.err.splitlines()
    assert message.replace("RECIPE", recipe) in line
    assert list((tmp_path / "run").rglob("*.json")) == []


def test_a_run_asked_to_stop_saves_first_and_a_damaged_checkpoint_is_passed_over(job, tmp_path):
    arguments, undisturbed = job
    root = tmp_path / "run"
    done = _python(STOPPER, "ask", DECODING, "90", *arguments, str(root))
    assert done.returncode == 143, done.stderr
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("stopped: ")
    assert last_line.endswith("continue with the same command")
    stage = RunFolder(root).stages()[0]
    newest, older = stage.checkpoint_steps()[:2]
    state = stage.checkpoint(newest) / "state.safetensors"
    damaged = bytearray(state.read_bytes())
    damaged[-5] ^= 1
    state.write_bytes(damaged)
    done = _command(*arguments, str(root))
    assert done.returncode == 0, done.stderr
    assert _outcome(root) == _outcome(undisturbed)
    ledger = Ledger(root / "ledger.jsonl")
    event = ledger.last(EventKind.ARTEFACT_DAMAGED)
    ledger.close()
    assert f"step-{newest:06d}: the bytes of state.safetensors have changed" in str(event.payload)
    assert older < newest


def test_a_damaged_evaluation_is_named_and_measured_again(job, tmp_path, capsys):
    arguments, undisturbed = job
    root = tmp_path / "run"
    shutil.copytree(undisturbed, root)
    (root / "result.json").unlink()  # as if killed just before
    kept = RunFolder(root).stages()[0].evals / "before-chain.json"
    kept.write_bytes(kept.read_bytes()[:100])
    assert run_command([*arguments, str(root)]) == 0
    assert "damaged, not used: before-chain.json" in capsys.readouterr().err
    assert _outcome(root) == _outcome(undisturbed)


def test_metrics_that_lost_their_last_steps_are_named(job, tmp_path, capsys):
    arguments, undisturbed = job
    root = tmp_path / "run"
    shutil.copytree(undisturbed, root)
    (root / "result.json").unlink()
    metrics = RunFolder(root).stages()[0].metrics
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if json.loads(line)["step"] < 5))
    assert run_command([*arguments, str(root), "--json"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "metrics.jsonl ends before step 5" in line


def test_a_finished_run_is_not_run_again(job, capsys):
    arguments, undisturbed = job
    files = sorted(p for p in undisturbed.rglob("*") if p.is_file())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files[1:]}
    assert run_command([*arguments, str(undisturbed)]) == 0
    printed = capsys.readouterr()
    assert "is finished: this is its result" in printed.err
    assert "report.html in a browser" in printed.out
    assert sorted(p for p in undisturbed.rglob("*") if p.is_file()) == files
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_another_recipe_is_refused_and_the_finished_run_stays_as_it_is(job, capsys):
    arguments, undisturbed = job
    before = (undisturbed / "result.json").read_bytes()
    assert run_command([*arguments, str(undisturbed), "--set", "seed=4"]) == 2
    assert "holds a run of another recipe: seed is 3 there and 4 here" in capsys.readouterr().err
    assert (undisturbed / "result.json").read_bytes() == before


def test_the_trained_model_can_be_measured_exported_and_talked_to(
    job, tmp_path, capsys, monkeypatch
):
    _, root = job
    sample = ["--device", "cpu", "--max-new-tokens", "8"]
    assert run_command(["generate", str(root), "2 + 2 =", "-n", "2", "--json", *sample]) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first["completions"]) == 2
    assert run_command(["generate", str(root), "2 + 2 =", "-n", "2", "--json", *sample]) == 0
    assert json.loads(capsys.readouterr().out) == first

    assert run_command(["generate", str(root), "2 + 2 =", "--device", "cpu"]) == 0
    assert run_command(["generate", str(root), "2 + 2 =", "--max-new-tokens", "5000"]) == 2
    assert "the model's context is" in capsys.readouterr().err

    suite = ["--suite", "chain", "--limit", "3", "--k", "2", "--template", "plain"]
    arguments = ["eval", str(root), *suite, *sample, "--json", "--out", str(tmp_path / "eval")]
    assert run_command(arguments) == 0
    [summary] = json.loads(capsys.readouterr().out)
    assert (summary["suite"], summary["n"], summary["k"]) == ("chain", 3, 2)
    assert summary["folder"] == str(tmp_path / "eval")
    assert (tmp_path / "eval" / "ledger.jsonl").is_file()

    assert run_command(["export", str(root), "--out", str(tmp_path / "hf")]) == 0
    assert (tmp_path / "hf" / "model.safetensors").is_file()
    capsys.readouterr()

    lines = iter(["hello", "", "again", "/new", "hello", "/quit", "never read"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert run_command(["chat", str(tmp_path / "hf"), *sample]) == 0
    assert next(lines) == "never read"
    assert len(capsys.readouterr().out) > 0


def test_a_report_is_written_again_from_the_folder_alone(job, capsys):
    _, root = job
    (root / "report.html").unlink()
    assert run_command(["report", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(root / "report.html")}
    assert "<html" in (root / "report.html").read_text()


def test_an_evaluation_asked_to_stop_says_so_and_is_measured_again(job, tmp_path):
    arguments, undisturbed = job
    root = tmp_path / "run"
    done = _python(STOPPER, "ask", DECODING, "3", *arguments, str(root))
    assert done.returncode == 143, done.stderr
    ledger = Ledger(root / "ledger.jsonl")
    event = ledger.last(EventKind.EVALUATION_ABORTED)
    ledger.close()
    assert event is not None
    assert event.payload["arm"] == "before"
    done = _command(*arguments, str(root))
    assert done.returncode == 0, done.stderr
    assert _outcome(root) == _outcome(undisturbed)


def test_a_finished_run_is_evaluated_as_its_recipe_does(job, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where `evals/` is made
    _, undisturbed = job
    arguments = ["eval", str(undisturbed), "--suite", "chain", "--limit", "6", "--k", "2"]
    assert run_command([*arguments, "--seed", "3", "--device", "cpu", "--json"]) == 0
    [measured] = json.loads(capsys.readouterr().out)
    assert (tmp_path / measured["folder"]).parent == tmp_path / "evals"
    after = json.loads((undisturbed / "result.json").read_text())["after"]
    assert measured["template"] == after["template"]
    assert measured["length_mean"] == pytest.approx(after["length_mean"], rel=0.2)
