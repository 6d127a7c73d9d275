"""A student is warmed once, every arm starts from it and pays for it, and the table shows it."""

import json
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from distill_world import SFT, examples, export_random, make_context, run, run_alone, weights
from safetensors.torch import load_file

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig
from pellucid.errors import ConfigError, Interrupted
from pellucid.evaluate.suites import Suite
from pellucid.model.load import load_model
from pellucid.pipeline import screening
from pellucid.pipeline.distill.setting import prepare
from pellucid.records import Problem, SamplingParams
from pellucid.runlog import read_metrics

BUDGET = 5000
VALUES = {
    "warm_start": {"examples": 16, "epochs": 2},
    "budget_tokens": BUDGET,
    "sft": SFT | {"learning_rate": 1e-2},
    "iterative": {"rounds": 1},
    "on_policy": {"learning_rate": 1e-9, "estimate": "vocabulary"},
    "rollout": {"prompts": 2, "group_size": 2, "max_new_tokens": 16},
}
KEPT = ("trained", "generated", "scored", "steps", "flops", "budget_share", "stopped")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    torch.set_num_threads(1)
    teacher = load_model(ModelConfig(), dtype=torch.float32, device="cpu")
    folder = tmp_path_factory.mktemp("models") / "student"
    export_random(folder, teacher.tokenizer, teacher.model.spec.vocab_size)
    return folder


@pytest.fixture(scope="module")
def warmed(tmp_path_factory, student):
    """(stage's folder, table) of all arms behind a warm start, undisturbed."""
    context = make_context(tmp_path_factory.mktemp("warmed"), student, **VALUES)
    return context.stage, run(context)


def largest_step(stage: StageFolder, arm: str) -> int:
    """Most tokens of a step, in trained ones."""
    records = list(read_metrics(stage.metrics))
    if arm == "sft":
        return max(r.values["tokens_fed"] for r in records if r.name == "sft/sft")
    spent = [0.0] + [r.values["spent"] for r in records if r.name == "on-policy/distill"]
    return max(b - a for a, b in pairwise(spent)) * BUDGET


def losses(stage: StageFolder, name: str) -> list[float]:
    return [r.values["loss"] for r in read_metrics(stage.metrics) if r.name == name]


def test_the_warm_start_is_a_row_and_in_the_costs_of_every_arm(warmed) -> None:
    stage, table = warmed
    budget, first = table["budget"], table["student, warmed"]
    tokens = budget["warm_start_tokens"]
    assert 0 < tokens < budget["tokens"] == BUDGET
    assert (first["trained"], first["steps"], first["generated"]) == (tokens, 4, 0)
    assert first["budget_share"] == tokens / BUDGET
    assert first["suites"]["chain"]["n"] == 4
    assert first["measured_as"] == "distill.warm-start"
    assert list(table)[:2] == ["student", "student, warmed"]
    for name in ("sft", "on-policy"):
        row = table[name]
        alone = json.loads((stage.root / "arms" / name / "arm.json").read_text())
        assert row["trained"] == tokens + alone["compute"]["trained"]
        assert row["steps"] == 4 + alone["steps"]
        assert row["seconds"] == pytest.approx(first["seconds"] + alone["seconds"], abs=2e-3)
        units = 3 * row["trained"] + row["generated"]
        assert row["budget_share"] == units / (3 * BUDGET) >= 1.0
        assert units < 3 * (BUDGET + largest_step(stage, name))
    assert not list(stage.root.glob("arms/*/checkpoints"))


def test_every_arm_starts_from_the_warmed_student(warmed, student) -> None:
    stage, table = warmed
    start = weights(stage.root / "arms" / "warm-start" / "model")
    assert start != weights(student)
    untaught, first = losses(stage, "warm-start/sft")[0], losses(stage, "sft/sft")[0]
    assert first < 0.9 * untaught
    # A random network gets nothing right, and at a rate of 1e-9 on-policy hardly moves.
    assert table["iterative-sft"]["stopped"] == "nothing right to learn"
    assert weights(stage.root / "arms" / "iterative-sft" / "model") == start
    assert distance(stage, "on-policy", "warm-start") < 1e-5


def distance(stage: StageFolder, first: str, second: str) -> float:
    """Largest between two arms' weights."""
    paths = [stage.root / "arms" / name / "model" for name in (first, second)]
    a, b = (load_file(path / "model.safetensors") for path in paths)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize(
    "when",
    [
        "warm-start/checkpoints/step-000002",
        "sft/checkpoints/step-000003",
        "on-policy/checkpoints/step-000001",
    ],
)
def test_a_stage_stopped_in_or_behind_its_warm_start_ends_with_the_same_bytes(
    warmed, tmp_path, student, when
) -> None:
    stage, table = warmed
    path = tmp_path / "stages" / "03-distill" / "arms" / when
    with pytest.raises(Interrupted):
        run(make_context(tmp_path, student, should_stop=path.exists, **VALUES))
    assert path.exists()
    again = run(make_context(tmp_path, student, **VALUES))
    for name in ("model", "arms/warm-start/model", "arms/on-policy/model"):
        assert weights(tmp_path / "stages" / "03-distill" / name) == weights(stage.root / name)
    for name in ("student, warmed", "sft", "on-policy", "iterative-sft"):
        assert [again[name][k] for k in KEPT] == [table[name][k] for k in KEPT]


def test_rounds_may_sample_more_problems_in_one_go(tmp_path, student) -> None:
    values = VALUES | {"arms": ["iterative-sft"], "iterative": {"rounds": 1, "prompts": 5}}
    context = make_context(tmp_path, student, **values)
    assert run(context)["iterative-sft"]["stopped"] == "nothing right to learn"
    folder = context.stage.root / "arms" / "iterative-sft" / "round-1"
    steps = [r.step for r in read_metrics(folder / "sampling.jsonl") if r.name == "rollout"]
    counts = json.loads((folder / "filters.json").read_text())
    assert counts["candidates"] == len(steps) * 5 * 2


def test_without_one_nothing_of_it_is_there(tmp_path, student) -> None:
    context = make_context(tmp_path, student, arms=["sft"], budget_tokens=300)
    table = run(context)
    assert set(table) == {"student", "sft", "budget"}
    assert table["budget"]["warm_start_tokens"] == 0
    assert not (context.stage.root / "arms" / "warm-start").exists()


def test_its_examples_are_drawn_from_all_and_are_the_same_again(tmp_path, student) -> None:
    plans = [
        prepare(context, context.config)
        for context in (make_context(tmp_path, student, **VALUES) for _ in range(2))
    ]
    first, second = (plan.warm_start.examples for plan in plans)
    assert first == second
    assert len(first) == 16
    assert set(first) <= set(plans[0].examples)
    assert first != plans[0].examples[:16]
    assert plans[0].budget.tokens == BUDGET - plans[0].warm_start.steps.tokens


def test_more_than_there_is_and_more_than_is_paid_for_are_one_line(tmp_path, student) -> None:
    for values, line in (
        ({"warm_start": {"examples": 25}}, r"warm_start\.examples = 25, and .* only 24: lower it"),
        (
            {"warm_start": {"examples": 24, "epochs": 3}, "budget_tokens": 2000},
            r"the warm start takes \d+ tokens, and the whole budget is 2000: lower",
        ),
    ):
        context = make_context(tmp_path, student, **values)
        with pytest.raises(ConfigError, match=line):
            run_alone(context)
        assert not (context.stage.root / "arms").exists()


def test_what_is_screened_out_no_arm_learns_or_asks(tmp_path, student, monkeypatch) -> None:
    rng = random.Random(3)

    def text() -> str:
        return " ".join("".join(rng.choices("abcdeghiklmnop", k=5)) for _ in range(25))

    published = [
        replace(e, id=f"gsm8k/train/{n}#0", problem_id=f"gsm8k/train/{n}", prompt=text())
        for n, e in enumerate(examples())
    ]
    leaked = published[5]
    questions = [str(leaked.prompt), *(text() for _ in range(9))]
    items = [
        Problem(id=f"math/test/{n}", question=question, gold="1", grader="math")
        for n, question in enumerate(questions)
    ]
    exam = Suite(
        key="math",
        label="math",
        problems=tuple(items),
        template="tiny",
        params=SamplingParams(),
        k=1,
        pass_at=(),
        baseline_only=False,
    )
    monkeypatch.setattr(screening, "pipeline_suites", lambda recipe: (exam,))
    values = {"arms": ["sft", "iterative-sft"], "warm_start": {"examples": 23, "epochs": 1}}
    kinds = {}
    for mode in ("report", "drop"):
        context = make_context(
            tmp_path / mode, student, curated=published, contamination=mode, **values
        )
        kinds[mode] = prepare(context, context.config)
        assert (context.stage.root / screening.SCAN_FILE).is_file()
    assert len(kinds["report"].examples) == len(kinds["report"].mixture.problems) == 24
    left = kinds["drop"]
    assert len(left.examples) == len(left.mixture.problems) == len(left.warm_start.examples) == 23
    assert leaked.problem_id not in {problem.id for problem in left.mixture.problems}
    lost = set(kinds["report"].examples) - set(left.examples)
    assert len(lost) == 1
    assert not lost & set(left.warm_start.examples)
