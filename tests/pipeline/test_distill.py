"""Three ways to teach a student at equal compute: costs, resumption, refusals, their table."""

import json

import pytest
import torch
from curated_world import byte_tokenizer
from distill_world import export_random, make_context, recipe_of, run, run_alone, weights

from pellucid.artifacts import StageFolder
from pellucid.cli import run_command
from pellucid.config import ModelConfig
from pellucid.errors import ConfigError, Interrupted
from pellucid.model.export import export_model
from pellucid.model.load import ASSETS, load_model
from pellucid.pipeline.check import check_recipe
from pellucid.pipeline.distill.setting import prepare
from pellucid.pipeline.distill.steps import step_costs, steps_within
from pellucid.runlog import read_metrics

PIPELINE = """
seed = 1
device = "cpu"
threads = 1
template = "tiny"
math_verify = false
[eval]
max_new_tokens = 32
suites = [{name = "chain", limit = 4}]
[[stages]]
kind = "cold-start"
name = "curated"
sampler = "base"
template = "tiny"
problems = 24
samples = 4
temperature = 0.5
max_new_tokens = 48
math_verify = false
sft = {epochs = 1, batch_sequences = 8}
[[stages]]
kind = "distill"
data_from = "curated"
arms = ["sft", "iterative-sft"]
sft = {epochs = 4, batch_sequences = 8, learning_rate = 1e-3}
rollout = {prompts = 2, group_size = 4, max_new_tokens = 48, temperature = 0.5}
iterative = {rounds = 1}
math_verify = false
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of students: `small` is random and has tiny-base's tokens, `bytes` is random and has
    others, `noisy` is tiny-base with noise in its weights.
    """
    root = tmp_path_factory.mktemp("models")
    torch.set_num_threads(1)
    teacher = load_model(ModelConfig(), dtype=torch.float32, device="cpu")
    export_random(root / "small", teacher.tokenizer, teacher.model.spec.vocab_size)
    export_random(root / "bytes", byte_tokenizer(), byte_tokenizer().vocab_size)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in (p for p in teacher.model.parameters() if p.dim() > 1):
            noise = torch.randn(matrix.shape, generator=generator)
            matrix.add_(noise * matrix.std() * 0.4)
    export_model(teacher.model, teacher.tokenizer, root / "noisy")
    return root


@pytest.fixture(scope="module")
def taught(tmp_path_factory, models):
    """(root, table) of tiny-base taught by itself in all three ways, undisturbed."""
    root = tmp_path_factory.mktemp("taught") / "run"
    context = make_context(root, ASSETS / "tiny-base")
    return root, run(context)


def test_all_arms_spend_the_same_and_stand_in_one_table(taught) -> None:
    root, table = taught
    budget, stage = table["budget"], StageFolder(root / "stages" / "03-distill")
    assert budget["flops"] == 6 * budget["student_parameters"] * budget["tokens"]
    for name in ("sft", "on-policy", "iterative-sft"):
        row = table[name]
        student = budget["student_parameters"]
        assert row["flops"] == 2 * student * (3 * row["trained"] + row["generated"])
        largest = max(_batches(root, name)) / budget["tokens"]
        assert 1.0 <= row["budget_share"] < 1.0 + largest, name
        assert row["stopped"] == "budget"
        assert row["suites"]["chain"]["n"] == 4
        assert row["seconds"] > 0
    assert table["sft"]["trained"] == budget["tokens"]
    assert (table["sft"]["steps"], table["sft"]["generated"], table["sft"]["scored"]) == (6, 0, 0)
    assert table["on-policy"]["teacher_flops"] == (
        2 * budget["teacher_parameters"] * table["on-policy"]["scored"]
    )
    assert table["on-policy"]["scored"] >= table["on-policy"]["trained"] > 0
    assert table["iterative-sft"]["generated"] > 0
    assert "flops" not in table["student"]
    assert stage.model.is_dir()
    assert not (stage.root / "arms" / "sft" / "model").exists()
    assert not list(stage.root.glob("arms/*/checkpoints"))
    assert {p.stem for p in stage.evals.glob("*.json")} == {
        "distill-chain",
        "distill.student-chain",
        "distill.on-policy-chain",
        "distill.iterative-sft-chain",
    }


def _batches(root, arm) -> list[int]:
    """Cost of the single steps of an arm, in trained tokens."""
    records = list(read_metrics(root / "stages" / "03-distill" / "metrics.jsonl"))
    if arm == "on-policy":
        shares = [r.values["spent"] for r in records if r.name == "on-policy/distill"]
        tokens = json.loads((root / "stages/03-distill/arms.json").read_text())["budget"]["tokens"]
        return [round((b - a) * tokens) + 1 for a, b in zip([0, *shares], shares, strict=False)]
    return [r.values["tokens_fed"] for r in records if r.name == f"{arm}/sft"]


def test_what_sft_is_said_to_feed_is_what_it_feeds(taught) -> None:
    root, table = taught
    records = read_metrics(root / "stages" / "03-distill" / "metrics.jsonl")
    fed = sum(r.values["tokens_fed"] for r in records if r.name == "sft/sft")
    assert table["sft"]["trained"] == fed


def test_the_iterative_arm_learns_its_own_right_samples_in_rounds(taught) -> None:
    root, table = taught
    arm = root / "stages" / "03-distill" / "arms" / "iterative-sft"
    rounds = [json.loads((arm / f"round-{n}" / "arm.json").read_text()) for n in (1, 2)]
    assert sum(r["compute"]["generated"] for r in rounds) == table["iterative-sft"]["generated"]
    assert all(r["steps"] > 0 for r in rounds)
    for number in (1, 2):
        counts = json.loads((arm / f"round-{number}" / "filters.json").read_text())
        assert 0 < counts["kept"] == counts["verdicts"]["correct"] - counts["dropped"]["duplicate"]
        assert not (arm / f"round-{number}" / "model").exists()
    assert weights(arm / "model") != weights(ASSETS / "tiny-base")


@pytest.mark.slow
@pytest.mark.parametrize(
    "when",
    [
        "sft/checkpoints/step-000002",
        "on-policy/checkpoints/step-000003",
        "iterative-sft/round-1/checkpoints/step-000001",
        "iterative-sft/round-2/candidates.jsonl.zst",
    ],
)
def test_a_stopped_stage_ends_with_the_same_bytes(taught, tmp_path, when) -> None:
    root, table = taught
    student, path = ASSETS / "tiny-base", tmp_path / "stages" / "03-distill" / "arms" / when
    with pytest.raises(Interrupted):
        run(make_context(tmp_path, student, should_stop=path.exists))
    assert path.exists()
    again = run(make_context(tmp_path, student))
    for path in ("model", "arms/on-policy/model", "arms/iterative-sft/model"):
        whole = weights(root / "stages" / "03-distill" / path)
        assert weights(tmp_path / "stages" / "03-distill" / path) == whole, path
    for name in ("sft", "on-policy", "iterative-sft"):
        kept = ("trained", "generated", "scored", "steps", "flops", "budget_share", "stopped")
        assert [again[name][k] for k in kept] == [table[name][k] for k in kept]
        assert (
            again[name]["suites"]["chain"]["pass_at_1"]
            == (table[name]["suites"]["chain"]["pass_at_1"])
        )


def test_on_policy_the_student_draws_near_to_its_teacher(tmp_path, models) -> None:
    values = {"arms": ["on-policy"], "budget_tokens": 8_000}
    values |= {"rollout": {"prompts": 8, "group_size": 4, "max_new_tokens": 16}}
    values |= {"on_policy": {"learning_rate": 1e-3}}
    context = make_context(tmp_path, models / "noisy", **values)
    table = run(context)
    assert set(table) == {"student", "on-policy", "budget"}
    records = read_metrics(context.stage.metrics)
    apart = [r.values["reverse_kl"] for r in records if r.name == "on-policy/distill"]
    assert 0 < apart[-1] < 0.7 * apart[0], apart
    assert weights(context.stage.model) != weights(models / "noisy")


def test_a_student_that_gets_nothing_right_ends_its_arm_and_says_so(tmp_path, models) -> None:
    values = {"arms": ["iterative-sft"], "budget_tokens": 2000}
    context = make_context(tmp_path, models / "small", **values)
    row = run(context)["iterative-sft"]
    assert (row["stopped"], row["trained"], row["steps"]) == ("nothing right to learn", 0, 0)
    assert 0 < row["budget_share"] < 1
    assert weights(context.stage.model) == weights(models / "small")


def test_a_budget_is_kept_to_within_a_step_whatever_the_epochs(tmp_path, models) -> None:
    for tokens in (300, 6000):
        values = {"arms": ["sft"], "budget_tokens": tokens}
        context = make_context(tmp_path / str(tokens), models / "small", **values)
        row = run(context)["sft"]
        setting = prepare(context, context.config)
        costs = step_costs(setting.examples, context.config.sft, seed=setting.seed("sft"))
        fed = [next(costs) for _ in range(row["steps"])]
        assert sum(fed) == row["trained"] >= tokens > sum(fed[:-1])
    assert row["steps"] > 6


def test_no_step_is_needed_for_no_tokens() -> None:
    config = recipe_of("x").stage("distill").sft
    assert steps_within([], config, seed=0, tokens=0) == (0, 0)


def test_another_tokenizer_is_one_line_before_any_work(tmp_path, models) -> None:
    context = make_context(tmp_path, models / "bytes")
    with pytest.raises(ConfigError, match=r"student .* has another tokenizer than its teacher"):
        run_alone(context)
    assert not (context.stage.root / "arms").exists()
    with pytest.raises(ConfigError, match=r"another tokenizer .*257 tokens against 743"):
        check_recipe(recipe_of(models / "bytes"), None)
    assert run(make_context(tmp_path / "sft", models / "bytes", arms=["sft"]))["sft"]["steps"] == 6


def test_problems_without_a_gold_are_refused_where_samples_are_kept_by_it(tmp_path, models) -> None:
    context = make_context(
        tmp_path, models / "small", arms=["iterative-sft"], tasks=[{"name": "smalltalk"}]
    )
    with pytest.raises(ConfigError, match=r"no problem has an answer that a program can check"):
        run_alone(context)


def test_a_recipe_names_curated_data_and_each_arm_once() -> None:
    with pytest.raises(ValueError, match="curates nothing"):
        recipe_of("x", data_from="taught")
    with pytest.raises(ValueError, match="names an arm twice"):
        recipe_of("x", arms=["sft", "sft"])
    assert "teacher" not in recipe_of("x", arms=["sft"], teacher="nobody").stages[2].references()


@pytest.mark.slow
def test_in_a_pipeline_every_arm_is_a_row_of_the_stage_table_and_of_the_page(tmp_path) -> None:
    (tmp_path / "recipe.toml").write_text(PIPELINE)
    arguments = ["run", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]
    assert run_command(arguments) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    names = [row["name"] for row in result["stages"]]
    assert names == ["base", "curated", "distill", "distill.student", "distill.iterative-sft"]
    assert all("chain" in row["suites"] for row in result["stages"])
    page = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "distill: ways to teach the student at equal compute" in page
    assert "<td>iterative-sft" in page
    assert "own right samples" in page
    files = sorted(p for p in (tmp_path / "run" / "stages").rglob("*") if p.is_file())
    before = {path: path.stat().st_mtime_ns for path in files}
    assert run_command(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["name"] for row in again["stages"]] == names
