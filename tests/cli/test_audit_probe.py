"""`audit probe` with tiny-base, and how it refuses what it cannot ask."""

import json
import re

import pytest

from pellucid.cli import run_command
from pellucid.records import Problem

PROBE = ["audit", "probe", "tiny-base", "--device", "cpu", "--limit", "3", "--suite"]


def choices(name, split, *, limit, data_dir, seed):
    text = "Which?\nA. one\nB. two\nC. three"
    return [
        Problem(id=f"{name}/{n}", question=text, gold="B", grader="exact") for n in range(limit)
    ]


@pytest.fixture
def as_choices(monkeypatch):
    """A data set of multiple-choice questions in place of a real one."""
    monkeypatch.setattr("pellucid.pipeline.measure.load_problems", choices)


def test_a_programs_items_are_completed_and_held_against_twins(capsys):
    assert run_command([*PROBE, "chain"]) == 0
    header, exact, overlap, twins, left, caveat = capsys.readouterr().out.splitlines()
    assert re.split("  +", header) == ["probe", "n", "result", "95 % interval", "baseline"]
    assert re.match(r"completion, word for word +3 +\S+ % +\S+ to \S+ +\S+ % on twins$", exact)
    assert overlap.startswith("completion, words in order")
    assert re.match(r"twins, points above +3 +[+-]\S+ +\S+ to \S+ +\S+ % on twins$", twins)
    assert left.startswith("not asked: options: no question has options")
    assert "A clean result proves little: after reinforcement learning" in caveat


def test_twins_are_new_questions_and_the_same_seed_gives_the_same_numbers(capsys, monkeypatch):
    from pellucid.pipeline import model_probes

    seen, compare = [], model_probes.compare_twins

    def spy(subject, pairs, template, grader):
        seen.append([(item.question, twin.question) for item, twin in pairs])
        return compare(subject, pairs, template, grader)

    monkeypatch.setattr(model_probes, "compare_twins", spy)
    found = []
    for seed in ("0", "0", "1"):
        assert run_command([*PROBE, "chain", "--json", "--seed", seed]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]
    assert seen[0] == seen[1] != seen[2]
    assert len({question for pair in seen[0] for question in pair}) == 6
    assert [len(re.findall(r"\d+", item)) for item, _ in seen[0]] == [
        len(re.findall(r"\d+", twin)) for _, twin in seen[0]
    ]
    assert found[0]["probes"]["twins"]["advantage"]["n"] == 3
    assert found[0]["completed_twins"]["exact"]["n"] == 3
    assert "proves little" in found[0]["caveat"]


def test_options_are_moved_where_a_data_set_has_them(as_choices, capsys):
    assert run_command([*PROBE, "mmlu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["probes"]["options"]["advantage"]["n"] == 3
    assert found["left_out"]["twins"] == "only a program's items have twins whose answers are known"
    assert "completion" in found["left_out"]
    assert found["completed_twins"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*PROBE, "nope"], "unknown data set or task 'nope'"),
        ([*PROBE, "smalltalk"], "no probe fits smalltalk (completion: no question hides"),
        ([*PROBE, "chain", "--limit", "0"], "limit = 0: must be at least 1"),
        ([*PROBE, "chain", "--seed", "-1"], "seed = -1: "),
        ([*PROBE, "chain", "--device", "tpu"], "device"),
        (["audit", "probe", "no-such-model", "--suite", "chain"], "no-such-model"),
    ],
)
def test_bad_input_is_one_line(arguments, line, capsys):
    assert run_command(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    said = [one for one in err.splitlines() if not one.startswith(("loading", "probing"))]
    assert len(said) == 1
    assert line in said[0]
