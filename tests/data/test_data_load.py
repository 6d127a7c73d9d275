import hashlib
import json

import pytest

from pellucid.data.fetch import get
from pellucid.data.load import Refusal, load, load_problems, require_sandbox, usable
from pellucid.errors import DataError
from pellucid.records import Problem
from pellucid.sandbox import SandboxError


@pytest.fixture
def data_dir(published, tmp_path):
    for name in ("gsm8k", "math", "gsm-plus"):
        get(name, source_folder=published.folder, data_dir=tmp_path)
    return tmp_path


def test_problems_come_in_order_and_up_to_the_limit(data_dir):
    everything = load_problems("gsm8k", "test", data_dir=data_dir)
    assert [p.gold for p in everything] == ["18", "3", "70000"]
    assert load_problems("gsm8k", "test", data_dir=str(data_dir), limit=2) == everything[:2]


def test_rows_without_a_usable_gold_are_refused_by_number_and_the_others_keep_theirs(data_dir):
    loaded = load("gsm-plus", "test", data_dir=data_dir)
    assert [p.id for p in loaded.problems] == [f"gsm-plus/test/{row}" for row in (0, 1, 3)]
    assert loaded.refused == [Refusal(row=2, gold="", reason="the publisher gives no answer")]
    assert len({p.family for p in loaded.problems}) == 2


def test_a_gold_that_the_grader_cannot_read_is_refused():
    good = Problem(id="x/test/0", question="?", gold="7", grader="integer")
    bad = Problem(id="x/test/1", question="?", gold="seven", grader="integer")
    kept, refused = usable([good, bad])
    assert kept == [good]
    assert [(r.row, r.gold) for r in refused] == [(1, "seven")]


def test_open_problems_need_no_gold():
    prompt = Problem(id="x/train/0", question="Hello!", gold="", grader="open", kind="helpful")
    assert usable([prompt]).problems == [prompt]


def test_the_limit_counts_usable_rows_only(data_dir):
    assert len(load_problems("gsm-plus", "test", data_dir=data_dir, limit=3)) == 3


def test_missing_data_names_the_command_that_fetches_it(published, tmp_path):
    command = f"pellucid data get svamp --from FOLDER --data-dir {tmp_path}"
    with pytest.raises(DataError) as caught:
        load_problems("svamp", "test", data_dir=tmp_path)
    assert command in str(caught.value)


def test_an_altered_copy_is_not_loaded(data_dir):
    path = data_dir / "gsm8k/test.jsonl"
    path.write_text(path.read_text().replace('"gold": "18"', '"gold": "19"'))
    with pytest.raises(DataError, match=r"test\.jsonl was altered: expected sha256 .*, got"):
        load_problems("gsm8k", "test", data_dir=data_dir)


def test_a_copy_whose_manifest_was_altered_with_it_is_not_loaded_either(data_dir):
    path = data_dir / "gsm8k/test.jsonl"
    path.write_text(path.read_text().replace('"gold": "18"', '"gold": "19"'))
    manifest = json.loads((data_dir / "gsm8k/manifest.json").read_text())
    manifest["splits"]["test"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (data_dir / "gsm8k/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="content sha256"):
        load_problems("gsm8k", "test", data_dir=data_dir)


def test_a_damaged_manifest_is_named(data_dir):
    (data_dir / "gsm8k/manifest.json").write_text('{"format": 1')
    with pytest.raises(DataError, match=r"manifest\.json .* is damaged"):
        load_problems("gsm8k", "test", data_dir=data_dir)


def test_unknown_names_and_splits_are_answered_with_the_nearest(data_dir):
    with pytest.raises(DataError, match="did you mean 'countdown'"):
        load_problems("countdwon", "test")
    with pytest.raises(DataError, match="did you mean 'train'"):
        load_problems("gsm8k", "trian", data_dir=data_dir)
    with pytest.raises(DataError, match="unknown split of arithmetic 'validation'"):
        load_problems("arithmetic", "validation")


def test_procedural_tasks_load_without_data():
    problems = load_problems("countdown", "test", limit=3, seed=1)
    assert [p.grader for p in problems] == ["countdown"] * 3
    assert problems == load_problems("countdown", "test", limit=5, seed=1)[:3]
    assert problems != load_problems("countdown", "test", limit=3, seed=2)


def test_programs_are_refused_in_one_line_where_they_cannot_be_isolated(monkeypatch):
    monkeypatch.setattr("pellucid.data.load.why_missing", lambda: "no bubblewrap: install it")
    with pytest.raises(SandboxError) as caught:
        require_sandbox(["gsm8k", "mbpp"], unsafe=False)
    assert str(caught.value) == "mbpp has programs judged, but no bubblewrap: install it"
    require_sandbox(["gsm8k", "mbpp"], unsafe=True)
    require_sandbox(["gsm8k", "chain"], unsafe=False)
    monkeypatch.setattr("pellucid.data.load.why_missing", lambda: None)
    require_sandbox(["mbpp"], unsafe=False)
