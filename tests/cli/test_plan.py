"""`pellucid plan` on this machine's CPU, for a GPU that is not here."""

import json
from functools import partial
from pathlib import Path

import pytest
from small_model import write_small_model

import pellucid
from pellucid.cli import run_command
from pellucid.config import AUTO
from pellucid.config_io import load_recipe
from pellucid.data.load import load_problems
from pellucid.errors import ConfigError
from pellucid.model import hub
from pellucid.model.known_shapes import KNOWN_SHAPES
from pellucid.model.load import read_outline, resolve
from pellucid.pipeline.plan import choices_of, longest_prompt, settle
from pellucid.records import Problem
from pellucid.tasks.templates import get_template
from pellucid.train.job import Beside


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


def test_an_older_gpu_gets_its_memory_planned_and_no_time_of_kernels_it_lacks(recipe, capsys):
    assert run_command(["plan", recipe, "--device-name", "A100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"]["peak"] > 0
    assert report["seconds"] is None
    assert any("the host leads decoding" in note for note in report["notes"])


def test_log_probabilities_of_the_rollout_save_a_pass(recipe, capsys):
    def training_seconds(*more):
        options = ["--device-name", "H200", "--json", "--set", "algo.beta=0", *more]
        options += ["--set", "train.minibatches=4"]
        assert run_command(["plan", recipe, *options]) == 0
        return json.loads(capsys.readouterr().out)["seconds"]["training"]

    fewer = training_seconds("--set", "algo.old_logprobs=rollout")
    assert fewer == pytest.approx(training_seconds() * 3 / 4)


class Counting:
    """Counts a question's tokens by the digits in it: its letters say nothing."""

    def __init__(self):
        self.count = 0

    def prompt_ids(self, question, tokenizer, *, grader):
        self.count += 1
        return (0,) * (int(question.split()[0]) + 1)


@pytest.mark.parametrize(("rare", "expected"), [(False, 500), (True, 999)])
def test_the_longest_prompt_is_found_among_many(rare, expected, monkeypatch):
    monkeypatch.setattr("pellucid.pipeline.plan.ALL_TRIED", 1000)
    texts = [f"{7 if rare else number % 500} {'x' * (number % 500)}" for number in range(3000)]
    if rare:  # many short questions of many tokens, one of them of the most
        texts[:1500] = ["900"] * 1499 + ["998"]
    problems = [
        Problem(id=str(n), question=text, gold="", grader="math") for n, text in enumerate(texts)
    ]
    few, many = Counting(), Counting()
    assert longest_prompt(problems[:900], few, None) == max(
        int(t.split()[0]) + 1 for t in texts[:900]
    )
    assert few.count == 900
    assert longest_prompt(problems, many, None) == expected
    assert many.count == (3250 if rare else 250)


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


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and nothing in its cache."""
    alone = partial(hub.describe, endpoint="http://127.0.0.1:1", cache=tmp_path / "cache")
    monkeypatch.setattr("pellucid.model.hub.describe", alone)


RECIPES = Path(pellucid.__file__).parents[2] / "recipes"
ALL_RECIPES = sorted(p.parent.name for p in RECIPES.glob("*/recipe.toml"))


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_every_shipped_recipe_is_planned_without_a_network(name, offline, tmp_path, capsys):
    options = ["--device-name", "H200", "--set", "device=auto", "--prompt-tokens", "50"]
    assert run_command(["plan", name, *options, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    [first, *_] = plan.get("phases", [plan])
    assert first["bytes"]["peak"] > first["bytes"]["weights"] > 0


def test_without_its_tokenizer_a_known_models_prompts_are_assumed_and_it_is_said(offline, capsys):
    assert run_command(["plan", "r1-zero-gsm8k-0.5b", "--device-name", "H200"]) == 0
    out = capsys.readouterr().out
    assert "prompts of 256 tokens assumed" in out
    assert "the tokenizer of Qwen/Qwen2.5-Coder-0.5B-Instruct is not here" in out
    assert "weights                        0.92" in out


def test_an_unknown_model_without_a_network_is_one_line_that_says_what_to_bring(
    offline, recipe, capsys
):
    unknown = ["--set", "model.id=owner/model", "--set", f"model.revision={'a' * 40}"]
    assert run_command(["plan", recipe, "--device-name", "H200", *unknown]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the shape of owner/model is not known here (cannot reach the hub" in line
    assert "add --set model.path=FOLDER" in line
    assert "Qwen/Qwen2.5-7B-Instruct" in line


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("0.5B", 494_032_768), ("1.5B", 1_543_714_304), ("7B", 7_615_616_512)],
)
def test_known_shapes_have_the_parameters_that_their_makers_count(name, parameters):
    of_the_size = [
        s for id, s in KNOWN_SHAPES.items() if id.removesuffix("-Instruct").endswith(name)
    ]
    assert len(of_the_size) == 4
    assert {spec.num_parameters for spec in of_the_size} == {parameters}


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
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    # By its number, as engine and trainer ask: what they cannot do is said once for each name.
    monkeypatch.setattr("pellucid.pipeline.plan.triton_ready", lambda device: device.index == 0)
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


def test_reward_models_that_lie_on_the_device_already_count_once(recipe, monkeypatch):
    monkeypatch.setattr("pellucid.pipeline.plan.resolve_device", lambda wanted: "cuda")
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("pellucid.pipeline.plan.triton_ready", lambda device: True)
    free = 3 * 2**30
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, free))
    config, _ = load_recipe(recipe)
    template, problems = get_template("plain"), load_problems("chain", "train", limit=9)
    alone = settle(config, problems, template).memory
    spec = read_outline(resolve(config.model)).spec
    models = Beside(specs=(spec, spec), element=2)
    memory = settle(config, problems, template, beside=models).memory
    assert memory.beside == models.weights == 2 * alone.weights
    assert memory.available - alone.available == pytest.approx(0.96 * models.weights, abs=2)
    chosen = choices_of(memory)
    assert chosen["scoring_tokens"] == memory.scoring_tokens == 8192
    assert "scoring_tokens" not in choices_of(alone)
    earlier = chosen | {"scoring_tokens": 1024}
    again = settle(config, problems, template, earlier=earlier, beside=models).memory
    assert again.scoring_tokens == 1024
