"""What stops a run stops it with one line, and leaves the last checkpoint usable."""

import dataclasses
import json

import pytest
import torch
from small_model import write_small_model

from pellucid.cli import run_command
from pellucid.ledger import EventKind, Ledger
from pellucid.model.transformer import Decoder
from pellucid.rollout.engine import InProcessEngine
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.collect import Batch, Collector
from pellucid.train.optimizer import Optimizer
from pellucid.train.update import PolicyUpdater

RECIPE = """
seed = 3
device = "cpu"
threads = 1
[task]
template = "plain"
limit = 40
[rollout]
prompts = 2
group_size = 2
max_new_tokens = 6
[reward]
terms = {random = 1.0}
math_verify = false
[train]
steps = 4
learning_rate = 1e-3
checkpoint_every = 2
[eval]
max_new_tokens = 4
suites = [{name = "chain", limit = 2}]
"""
NAN = float("nan")
OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 1.12 GiB is free. Including non-PyTorch memory, this process has 22.51 GiB in use.\n"
)


@pytest.fixture
def arguments(tmp_path):
    model = write_small_model(tmp_path / "model")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe, out = str(tmp_path / "recipe.toml"), str(tmp_path / "run")
    return ["run", recipe, "--set", f"model.id={model}", "--json", "--out", out]


def one_error(capsys):
    """The only line that starts with `error:`; stderr has nothing behind it."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    return lines[-1]


def spoil_weights(monkeypatch):
    """The rollout of step 3 meets NaN in the weights, behind the checkpoint of step 2."""
    real = Checkpoints.save

    def save(self, step, updater, offsets):
        real(self, step, updater, offsets)
        if step == 2:
            with torch.no_grad():
                updater.model.blocks[0].mlp.down.weight.fill_(NAN)

    monkeypatch.setattr(Checkpoints, "save", save)


def spoil_loss(monkeypatch):
    """An advantage of step 3 is NaN."""
    real, calls = Batch.sequences, []

    def sequences(self):
        calls.append(1)
        found = real(self)
        if len(calls) != 3:
            return found
        return [dataclasses.replace(found[0], advantage=NAN), *found[1:]]

    monkeypatch.setattr(Batch, "sequences", sequences)


def spoil_gradient(monkeypatch):
    """A gradient of step 3 is infinite."""
    real = Optimizer.step

    def step(self, learning_rate, *, where):
        if where == "step 3":
            self.masters["norm.weight"].grad[0] = float("inf")
        return real(self, learning_rate, where=where)

    monkeypatch.setattr(Optimizer, "step", step)


def exhaust_rollout(monkeypatch):
    """The GPU's memory ends in the rollout of step 3."""
    _exhaust(monkeypatch, Collector, "collect", 3)


def exhaust_update(monkeypatch):
    """The GPU's memory ends in the update of step 3."""
    _exhaust(monkeypatch, PolicyUpdater, "update", 3)


def _exhaust(monkeypatch, owner, name, call):
    real, calls = getattr(owner, name), []

    def exhausted(self, *arguments, **more):
        calls.append(1)
        if len(calls) == call:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return real(self, *arguments, **more)

    monkeypatch.setattr(owner, name, exhausted)


@pytest.mark.parametrize(
    ("spoil", "dtype", "code", "words"),
    [
        (spoil_weights, "float32", 3, ("logits of the rollout", "request 0")),
        (spoil_loss, "float32", 3, ("loss of pack 1 of 1 is nan",)),
        (spoil_gradient, "float32", 3, ("gradient of norm.weight",)),
        (spoil_gradient, "bfloat16", 3, ("gradient of norm.weight",)),
        (exhaust_rollout, "float32", 2, ("2.50 GiB more", "1.12 GiB of 23.64 GiB are free")),
        (exhaust_update, "float32", 2, ("2.50 GiB more", "1.12 GiB of 23.64 GiB are free")),
    ],
)
def test_what_stops_a_step_is_named_with_it_and_the_run_goes_on_from_its_checkpoint(
    arguments, tmp_path, monkeypatch, capsys, spoil, dtype, code, words
):
    arguments = [*arguments, "--set", f"dtype={dtype}"]
    with monkeypatch.context() as spoilt:
        spoil(spoilt)
        assert run_command(arguments) == code
    line = one_error(capsys)
    for word in ("error: step 3: ", *words):
        assert word in line
    assert run_command(arguments) == 0
    metrics = (tmp_path / "run/stages/01-zero/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in metrics]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    ledger = Ledger(tmp_path / "run" / "ledger.jsonl")
    saved = [e.payload["step"] for e in ledger.events if e.kind is EventKind.CHECKPOINT_SAVED]
    ledger.close()
    assert saved == [2, 4]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rollout.max_new_tokens=1020", "do not fit into the model's context of 1024"),
        ("rollout.slots=0", "rollout.slots = 0"),
        ("train.memory_gib=0", "train.memory_gib = 0"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(arguments, override, words, capsys):
    assert run_command([*arguments, "--set", override]) == 2
    assert words in one_error(capsys)


def test_a_model_that_does_not_fit_is_named_with_its_bytes(tmp_path, monkeypatch, capsys):
    model = write_small_model(tmp_path / "model")

    def full(self, *, device):
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    with monkeypatch.context() as small:
        small.setattr(Decoder, "to_empty", full)
        assert run_command(["generate", str(model), "2 + 2"]) == 2
    line = one_error(capsys)
    assert f"{model}: the model's weights take 0.00 GiB" in line
    assert "1.12 GiB of 23.64 GiB are free" in line


def test_memory_that_ends_outside_a_step_is_one_line_too(tmp_path, monkeypatch, capsys):
    model = write_small_model(tmp_path / "model")
    _exhaust(monkeypatch, InProcessEngine, "generate", 1)
    assert run_command(["generate", str(model), "2 + 2", "--max-new-tokens", "4"]) == 2
    assert "the GPU has no memory for 2.50 GiB more" in one_error(capsys)


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(tmp_path, capsys):
    model = write_small_model(tmp_path / "model")
    assert run_command(["generate", str(model), "x" * 2000, "--max-new-tokens", "4"]) == 2
    line = one_error(capsys)
    assert "context is 1024" in line
    assert "tokens" in line
