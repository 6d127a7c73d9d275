"""The page of a pipeline: models by suites, curves by stage, and one problem in every model."""

import json

import pytest
from run_builder import HOSTILE, build_run

from pellucid.errors import RunError
from pellucid.report.made import curated_sets, drop_reasons, reward_rows
from pellucid.report.page import write_report
from pellucid.report.read import read_run
from pellucid.report.stages import model_readings, stage_views, suite_tables

RECIPE = """
name = "steps to R1"
[[stages]]
kind = "zero"
name = "zero"
[[stages]]
kind = "reason-rl"
name = "dev2"
"""
GAIN = {"value": 0.25, "ci95": [0.125, 0.375]}


@pytest.fixture
def pipeline(tmp_path):
    """A run of one stage as that stage of a pipeline; the second has not begun."""
    root = build_run(tmp_path / "run", steps=6, problems=12, k=2)
    (root / "ledger.jsonl").unlink()
    (root / "recipe.toml").write_text(RECIPE)
    zero = root / "stages" / "01-zero"
    base = root / "stages" / "00-base"
    (base / "evals").mkdir(parents=True)
    for arm, name, folder in (("before", "base", base), ("after", "zero", zero)):
        for path in sorted((zero / "evals").glob(f"{arm}-*")):
            new = folder / "evals" / path.name.replace(arm, name, 1)
            path.rename(new)
            if new.suffix == ".json":
                new.write_text(json.dumps(json.loads(new.read_text()) | {"arm": name}))
    suites = json.loads((root / "result.json").read_text())["suites"]
    result = {
        "table": [{"suite": s["suite"], "key": s["key"]} for s in suites],
        "stages": [
            {"name": "base", "seconds": None, "suites": {}},
            {
                "name": "zero",
                "seconds": 75.0,
                "suites": {suites[0]["key"]: {"from_base": GAIN, "from_above": GAIN}},
            },
        ],
        "wall_s": 90.0,
        "device": "cpu, 1 threads",
    }
    (root / "result.json").write_text(json.dumps(result))
    return root


def test_the_page_has_a_row_for_every_model_and_curves_for_every_stage(pipeline):
    view = read_run(pipeline)
    first = suite_tables(view)[0]
    assert [(row.name, row.evaluation.arm) for row in first.rows] == [
        ("base", "base"),
        ("zero", "zero"),
    ]
    assert first.rows[1].from_base == GAIN
    assert first.rows[0].from_base is None
    stages = stage_views(view)
    assert [(s.name, s.is_finished, s.seconds) for s in stages] == [
        ("zero", True, 75.0),
        ("dev2", False, None),
    ]
    assert "Reward" in [panel.title for panel in stages[0].panels]
    assert stages[1].panels == ()
    page = write_report(pipeline).read_text(encoding="utf-8")
    assert "+25.0" in page
    assert "zero, step by step" in page
    assert "1 min 15 s" in page
    assert "steps to R1: a pipeline of 2 stages" in page


def test_the_page_tells_where_samples_went_and_what_reward_models_are_worth(pipeline):
    zero = pipeline / "stages" / "01-zero"
    counts = {"candidates": 2400, "kept": 316, "general": 52}
    dropped = {"correct": 253, "language": 1732, "finished": 99, "paragraphs": 0}
    (zero / "filters.json").write_text(json.dumps(counts | {"dropped": dropped}))
    accuracy = {"value": 0.875, "ci95": [0.8125, 0.9375], "n": 38}
    pairs = {"accuracy": accuracy, "length_only": {"value": 0.5625}, "gain_over_length": GAIN}
    labels = {"accuracy": accuracy | {"n": 41}, "majority_only": 0.6875}
    (zero / "accuracy.json").write_text(
        json.dumps(
            {
                "helpful": {"trained_on": 9, "held-out": pairs, f"{HOSTILE}.json": pairs},
                "safety": {"held-out": labels},
            }
        )
    )
    view = read_run(pipeline)
    [curated] = curated_sets(view)
    assert (curated.stage, curated.candidates, curated.kept, curated.general) == (
        "zero", 2400, 316, 52
    )  # fmt: skip
    assert drop_reasons([curated]) == ["finished", "correct", "language"]  # as they apply
    rows = reward_rows(view)
    assert [(r.name, r.accuracy["n"], r.trivial, r.gain) for r in rows] == [
        ("helpful", 38, 0.5625, GAIN),
        ("helpful", 38, 0.5625, GAIN),
        ("safety", 41, 0.6875, None),
    ]
    page = " ".join(write_report(pipeline).read_text(encoding="utf-8").split())
    assert "<td>2,400</td> <td>99</td><td>253</td><td>1,732</td>" in page
    assert "<td>316<small>13.2" in page
    assert "<td>87.5" in page
    assert "+25.0" in page.partition('id="reward-models"')[2].partition("</section>")[0]
    assert HOSTILE not in page
    (zero / "accuracy.json").write_text('{"helpful": {"held-out": {"accuracy": {}}}}')
    with pytest.raises(RunError, match=r"accuracy\.json does not measure"):
        write_report(pipeline)
    (zero / "filters.json").write_text("{}")
    with pytest.raises(RunError, match="candidates"):
        write_report(pipeline)


def test_one_problem_is_shown_as_every_model_answered_it(pipeline):
    readings = model_readings(read_run(pipeline))
    assert 0 < len(readings) <= 4
    for group in readings:
        assert [r.title for r in group] == ["base", "zero"]
        assert len({r.problem for r in group}) == 1


def test_an_unfinished_pipeline_says_so_and_hostile_text_stays_text(pipeline):
    (pipeline / "result.json").unlink()
    page = write_report(pipeline).read_text(encoding="utf-8")
    assert "This run is not finished." in page
    assert "Of its stages 1 is done." in " ".join(page.split())
    assert HOSTILE not in page
    assert "<script" not in page


def test_a_result_without_its_table_is_damage(pipeline):
    result = json.loads((pipeline / "result.json").read_text())
    del result["wall_s"]
    (pipeline / "result.json").write_text(json.dumps(result))
    with pytest.raises(RunError, match="wall_s"):
        write_report(pipeline)
