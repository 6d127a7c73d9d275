"""What stops a run stops it with one line, and leaves the last checkpoint usable."""

import dataclasses
import json

import pytest
import torch
from small_model import write_small_model

from pellucid.cli import run_command
from pellucid.ledger import EventKind, Ledger
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.collect import Batch
from pellucid.train.optimizer import Optimizer

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


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_weights, ("step 3: ", "logits of the rollout", "request 0")),
        (spoil_loss, ("step 3: ", "loss of pack 1 of 1 is nan")),
        (spoil_gradient, ("step 3: ", "gradient of norm.weight")),
    ],
)
def test_nan_names_step_and_tensor_and_the_run_goes_on_from_its_checkpoint(
    arguments, tmp_path, monkeypatch, capsys, spoil, words
):
    with monkeypatch.context() as spoilt:
        spoil(spoilt)
        assert run_command(arguments) == 3
    line = one_error(capsys)
    for word in words:
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
