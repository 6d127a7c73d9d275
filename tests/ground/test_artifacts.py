"""Run folder: what a killed or refused writer leaves, and what a reader is told."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid import artifacts
from pellucid.artifacts import (
    RunFolder,
    atomic_directory,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    canonical_json,
    damage_of,
    open_run,
    sha256_bytes,
    sha256_file,
    sha256_tree,
)
from pellucid.errors import RunError

RECIPE = 'name = "a"\n\n[train]\nsteps = 3\n'


def test_canonical_json_sorts_keys_keeps_unicode_and_refuses_nan():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


def test_atomic_write_returns_the_digest_of_what_is_on_disk(tmp_path):
    digest = atomic_write_bytes(tmp_path / "new" / "x.bin", b"abc")
    assert digest == sha256_file(tmp_path / "new" / "x.bin") == sha256_bytes(b"abc")
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_write_that_fails_leaves_the_old_file_and_no_leftover(tmp_path, monkeypatch):
    target = tmp_path / "result.json"
    atomic_write_json(target, {"v": 1})

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(RunError, match=r"no space left to write .*result.json: free some"):
        atomic_write_json(target, {"v": 2})
    assert json.loads(target.read_text()) == {"v": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def test_the_digest_of_a_folder_changes_with_a_name_and_with_a_byte(tmp_path):
    for name in ("one", "two", "three"):
        atomic_write_text(tmp_path / name / "f.txt", "same")
    (tmp_path / "two" / "f.txt").rename(tmp_path / "two" / "g.txt")
    (tmp_path / "three" / "f.txt").write_text("samE")
    digests = {sha256_tree(tmp_path / name) for name in ("one", "two", "three")}
    assert len(digests) == 3


def _fail_inside(target):
    with atomic_directory(target) as folder:
        (folder / "weights").write_bytes(b"123")
        raise ZeroDivisionError


def test_a_sealed_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "step-000001"
    with pytest.raises(ZeroDivisionError):
        _fail_inside(target)
    assert os.listdir(tmp_path) == []
    with atomic_directory(target) as folder:
        (folder / "weights").write_bytes(b"123")
        assert not target.exists()
    assert (target / "weights").read_bytes() == b"123"
    assert damage_of(target) is None


def test_a_sealed_folder_replaces_an_older_one_of_the_same_name(tmp_path):
    for content in (b"old", b"newer"):
        with atomic_directory(tmp_path / "model") as folder:
            (folder / "weights").write_bytes(content)
    assert (tmp_path / "model" / "weights").read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: (p / "weights").write_bytes(b"124"), "the bytes of weights have changed"),
        (lambda p: (p / "weights").write_bytes(b"12"), "weights has 2 bytes instead of 3"),
        (lambda p: (p / "weights").unlink(), "weights is missing"),
        (lambda p: (p / "digests.json").unlink(), "digests.json is missing"),
        (lambda p: (p / "digests.json").write_text("{"), "digests.json is not JSON"),
    ],
)
def test_damage_is_named_and_the_checkpoint_before_it_is_used(tmp_path, harm, words):
    stage = RunFolder(tmp_path).stage(1, "zero")
    for step in (20, 40):
        with atomic_directory(stage.checkpoint(step)) as folder:
            (folder / "weights").write_bytes(b"123")
    assert stage.newest_whole_checkpoint() == (40, [])
    harm(stage.checkpoint(40))
    assert stage.newest_whole_checkpoint() == (20, [f"step-000040: {words}"])


def test_pruning_keeps_the_newest_checkpoints(tmp_path):
    stage = RunFolder(tmp_path).stage(1, "zero")
    for step in (9, 10, 100):
        stage.checkpoint(step).mkdir()
    stage.prune_checkpoints(keep=2)
    assert stage.checkpoint_steps() == [100, 10]


def test_a_fresh_folder_is_made_and_the_same_recipe_continues_it(tmp_path):
    with open_run(tmp_path / "runs" / "x", RECIPE) as (folder, is_resumed):
        assert not is_resumed
        assert folder.recipe.read_text() == RECIPE
        assert folder.stage(1, "zero").name == "01-zero"
    with open_run(tmp_path / "runs" / "x", f"# other comment\n{RECIPE}") as (folder, is_resumed):
        assert is_resumed
        assert [stage.name for stage in folder.stages()] == ["01-zero"]


def test_a_folder_of_another_recipe_is_refused_with_the_key_that_differs(tmp_path):
    with open_run(tmp_path, RECIPE) as (folder, _):
        folder.stage(1, "zero").metrics.write_text("")
    other = RECIPE.replace("steps = 3", "steps = 4")
    with (
        pytest.raises(RunError, match=r"another recipe: train.steps is 3 there and 4 here; choose"),
        open_run(tmp_path, other),
    ):
        pass
    assert (tmp_path / "recipe.toml").read_text() == RECIPE


def test_a_run_that_failed_before_it_wrote_anything_gives_way_to_the_mended_recipe(tmp_path):
    with open_run(tmp_path, RECIPE) as (folder, _):
        folder.stage(1, "zero")
        folder.ledger.write_text("")
    mended = RECIPE.replace("steps = 3", "steps = 4")
    with open_run(tmp_path, mended) as (folder, _):
        assert folder.recipe.read_text() == mended


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(RunError, match=r"is no run folder \(it holds thesis.tex\)"),
        open_run(tmp_path, RECIPE),
    ):
        pass
    assert not (tmp_path / "recipe.toml").exists()


def test_a_file_in_the_way_of_the_run_folder_is_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(RunError, match="a file is in the way"), open_run(tmp_path / "x", RECIPE):
        pass


def test_a_folder_without_rights_is_one_line(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(RunError, match="permission denied; choose another folder"),
        open_run(tmp_path / "x", RECIPE),
    ):
        pass


def test_two_processes_cannot_write_one_run_and_a_killed_one_frees_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from pellucid.artifacts import open_run\n"
        f"with open_run(Path(sys.argv[1]), {RECIPE!r}):\n"
        "    print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(RunError, match="another process is writing"),
            open_run(tmp_path, RECIPE),
        ):
            pass
        other.kill()
        other.wait()
    with open_run(tmp_path, RECIPE) as (_, is_resumed):
        assert is_resumed


def test_leftovers_of_a_killed_writer_are_removed_on_opening(tmp_path):
    with open_run(tmp_path, RECIPE) as (folder, _):
        stage = folder.stage(1, "zero")
    (stage.checkpoints / ".partial-step-000003-77").mkdir()
    (stage.checkpoints / ".partial-step-000003-77" / "weights").write_bytes(b"1")
    (tmp_path / ".partial-result.json-77").write_text("{")
    with open_run(tmp_path, RECIPE):
        pass
    assert list(tmp_path.rglob(".partial*")) == []
