"""`pellucid plan` on this machine's CPU, for a GPU that is not here."""

import json

import pytest
from small_model import write_small_model

from pellucid.cli import run_command
from pellucid.config import AUTO
from pellucid.config_io import load_recipe
from pellucid.data.load import load_problems
from pellucid.errors import ConfigError
from pellucid.pipeline.plan import settle
from pellucid.tasks.templates import get_template


@pytest.fixture
def recipe(tmp_path):
    model = write_small_model(tmp_path / "model")
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[model]\nid = "{model}"\n[task]\ntemplate = "plain"\nlimit = 40\n'
        "[rollout]\nprompts = 4\ngroup_size = 4\nmax_new_tokens = 64\n"
    )
    return str(path)


def test_the_table_names_every_class_and_says_what_it_assumes(recipe, capsys):
    assert run_command(["plan", recipe, "--device-name", "NVIDIA H200"]) == 0
    out = capsys.readouterr().out
    for name in ("weights", "optimizer states", "keys and values", "activations", "logits kept"):
        assert name in out
    assert "whole step" in out
    assert "of 139.0 GiB, NVIDIA H200" in out


def test_json_has_bytes_choices_and_seconds(recipe, capsys):
    options = ["--device-name", "H100", "--memory-gib", "3", "--mean-length", "32", "--json"]
    assert run_command(["plan", recipe, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["free_bytes"] == 3 * 2**30
    assert report["bytes"]["peak"] == max(
        report["bytes"]["rollout_peak"], report["bytes"]["training_peak"]
    )
    assert report["choices"]["slots"] == 16
    assert report["mean_length"] == 32
    assert report["seconds"]["step"] == pytest.approx(
        sum(s for name, s in report["seconds"].items() if name != "step")
    )


def test_weights_are_not_needed(recipe, tmp_path, capsys):
    for file in (tmp_path / "model").glob("*.safetensors"):
        file.unlink()
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert run_command(["plan", recipe, "--device-name", "H200"]) == 0
    assert "prompts of 256 tokens assumed" in capsys.readouterr().out
    assert run_command(["plan", recipe, "--device-name", "H200", "--prompt-tokens", "30"]) == 0
    assert "assumed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device-name", "H200", "--memory-gib", "0.5"], "weights need"),
        (["--device-name", "H200", "--set", "rollout.max_new_tokens=5000"], "context of 1024"),
        (["--device-name", "Voodoo 2"], "add --memory-gib"),
        (["--set", "device=cpu"], "plans are for bfloat16 on a GPU"),
        (["--set", "rollout.slots=0"], 'at least 1, or "auto"'),
    ],
)
def test_what_cannot_be_planned_is_one_line(recipe, options, words, capsys):
    assert run_command(["plan", recipe, *options]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_on_a_cpu_auto_means_the_defaults(recipe):
    config, _ = load_recipe(recipe, ["device=cpu"])
    assert config.rollout.slots == AUTO
    assert config.model_dump(mode="json")["rollout"]["slots"] == "auto"
    settled = settle(config, [], get_template("plain"))
    assert settled.memory is None
    assert settled.config.rollout.slots == 512
    assert settled.config.train.tokens_per_pack == 8192
    by_hand, _ = load_recipe(
        recipe, ["device=cpu", "rollout.slots=7", 'train.tokens_per_pack="auto"']
    )
    assert settle(by_hand, [], get_template("plain")).config.rollout.slots == 7


def test_on_a_gpu_a_continued_run_keeps_its_choices(recipe, monkeypatch):
    free = [3 * 2**30]
    monkeypatch.setattr("pellucid.pipeline.plan.resolve_device", lambda wanted: "cuda")
    monkeypatch.setattr("pellucid.pipeline.plan.triton_ready", lambda device: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free[0], free[0]))
    config, _ = load_recipe(recipe, ["train.minibatches=2"])
    template = get_template("plain")
    problems = load_problems("chain", "train", limit=9)
    first = settle(config, problems, template)
    assert first.memory is not None
    assert first.config.rollout.slots == first.memory.slots == 16
    assert first.config.train.tokens_per_pack == first.memory.tokens_per_pack == 1024
    earlier = {"slots": 8, "tokens_per_pack": 300, "checkpointed_blocks": 0}
    again = settle(config, problems, template, earlier=earlier)
    assert (again.config.rollout.slots, again.config.train.tokens_per_pack) == (8, 300)
    free[0] = 2**29
    with pytest.raises(ConfigError, match="weights need"):
        settle(config, problems, template, earlier=earlier)
