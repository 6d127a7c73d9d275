"""`generate` and `chat` ask a run's model as it was trained, and say so."""

import json

import pytest
from small_model import write_small_model

from pellucid.cli import run_command
from pellucid.rollout.engine import InProcessEngine
from pellucid.tasks.templates import TEMPLATES, get_template

FAST = ["--device", "cpu", "--max-new-tokens", "3"]
PIPELINE = """\
template = "plain"
stages = [{ kind = "zero", template = "%s" }]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def make_run(model, tmp_path):
    def make(recipe):
        (tmp_path / "recipe.toml").write_text(recipe)
        (tmp_path / "stages/01-zero").mkdir(parents=True)
        (tmp_path / "stages/01-zero/model").symlink_to(model)
        return str(tmp_path)

    return make


@pytest.fixture
def asked(monkeypatch):
    """Every prompt the engine is given, as text, with the stop strings."""
    prompts, generate = [], InProcessEngine.generate

    def spy(self, requests, params, **named):
        prompts.extend((self.tokenizer.decode(r.prompt_ids), params.stop) for r in requests)
        return generate(self, requests, params, **named)

    monkeypatch.setattr(InProcessEngine, "generate", spy)
    return prompts


def says(monkeypatch, *lines):
    messages = iter([*lines, "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(messages))


def rendered(template, question):
    return TEMPLATES[template].text.replace("{question}", question)


@pytest.mark.parametrize(
    "recipe", ['task = { template = "r1-zero" }', PIPELINE % "r1-zero"], ids=["one", "several"]
)
def test_generate_asks_a_runs_model_under_the_runs_template_and_says_so(
    recipe, make_run, asked, capsys
):
    run = make_run(recipe)
    assert run_command(["generate", run, "2 + 2", *FAST]) == 0
    assert asked == [(rendered("r1-zero", "2 + 2"), ("</answer>",))]
    assert "prompt template r1-zero, as the run's recipe has it" in capsys.readouterr().err
    assert run_command(["generate", run, "2 + 2", "--json", *FAST]) == 0
    assert json.loads(capsys.readouterr().out)["template"] == "r1-zero"


def test_generate_takes_another_template_or_the_bare_text_where_it_is_told_to(
    make_run, asked, capsys
):
    run = make_run('task = { template = "r1-zero" }')
    assert run_command(["generate", run, "2 + 2", "--template", "plain", *FAST]) == 0
    assert run_command(["generate", run, "2 + 2", "--template", "none", *FAST]) == 0
    assert asked == [("2 + 2\n", ()), ("2 + 2", ())]
    assert "as the run's recipe" not in capsys.readouterr().err


def test_generate_leaves_the_text_of_a_model_that_is_no_run_bare(model, asked):
    assert run_command(["generate", str(model), "2 + 2", *FAST]) == 0
    assert asked == [("2 + 2", ())]


def test_chat_asks_every_message_on_its_own_under_a_template_of_one_question(
    make_run, asked, capsys, monkeypatch
):
    says(monkeypatch, "2 + 2", "3 + 3")
    assert run_command(["chat", make_run('task = { template = "r1-zero" }'), *FAST]) == 0
    assert [prompt for prompt, _ in asked] == [rendered("r1-zero", q) for q in ("2 + 2", "3 + 3")]
    assert {stop for _, stop in asked} == {("</answer>",)}
    said = capsys.readouterr().err
    assert "prompt template r1-zero, as the run's recipe has it" in said
    assert "r1-zero takes one question: every message is asked on its own" in said


def test_chat_opens_the_thinking_as_the_runs_chat_template_does_and_remembers(
    make_run, asked, capsys, monkeypatch
):
    says(monkeypatch, "hello", "again")
    assert run_command(["chat", make_run('task = { template = "r1-chat" }'), *FAST]) == 0
    first, second = (prompt for prompt, _ in asked)
    prefill = get_template("r1-chat").prefill
    assert first == f"user: hello\nassistant: {prefill}"
    assert second.startswith(f"user: hello\nassistant: {prefill}")
    assert second.endswith(f"\nuser: again\nassistant: {prefill}")
    out, err = capsys.readouterr()
    assert out.startswith(prefill)
    assert "every message" not in err


def test_chat_without_a_run_uses_the_models_own_chat_template(model, asked, monkeypatch):
    says(monkeypatch, "hello")
    assert run_command(["chat", str(model), *FAST]) == 0
    assert asked == [("user: hello\nassistant: ", ())]


def test_chat_with_a_model_that_has_no_chat_template_is_one_line(capsys):
    assert run_command(["chat", "tiny-base", *FAST]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "tiny-base has no chat template: use `pellucid generate` instead, or give" in line
