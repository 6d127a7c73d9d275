"""Programs of a model without isolation: refused before any work, unless asked for by name."""

import json

import pytest

from pellucid.cli import run_command

WHY = "code cannot be judged without isolation: install bubblewrap"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The ways to have programs judged, on a machine that cannot isolate them."""
    monkeypatch.setattr("pellucid.data.load.why_missing", lambda: WHY)
    monkeypatch.chdir(tmp_path)
    data = str(tmp_path / "data")
    one = tmp_path / "one.toml"
    one.write_text(f'name = "one"\n[task]\nname = "mbpp"\ndata_dir = "{data}"\n')
    many = tmp_path / "many.toml"
    many.write_text(
        f'name = "many"\ndata_dir = "{data}"\n[[stages]]\nkind = "zero"\n'
        'tasks = [{ name = "chain", limit = 9 }, { name = "mbpp" }]\n'
    )
    return {
        "run": ["run", str(one)],
        "stages": ["run", str(many)],
        "stage": ["zero", str(many)],
        "eval": ["eval", "tiny-base", "--suite", "mbpp", "--data-dir", data],
    }


@pytest.mark.parametrize("name", ["run", "stages", "stage", "eval"])
def test_code_problems_need_isolation_or_a_word(name, commands, tmp_path, capsys):
    assert run_command(commands[name]) == 2
    assert capsys.readouterr().err == f"error: mbpp has programs judged, but {WHY}\n"
    assert not (tmp_path / "runs").exists()
    assert run_command([*commands[name], "--unsafe"]) == 2
    assert "data set 'mbpp' is not in" in capsys.readouterr().err  # past the first refusal


def test_unsafe_is_a_value_of_the_recipe(commands, capsys):
    for name in ("run", "stages"):
        assert run_command([*commands[name], "--unsafe", "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["unsafe_code"] is True
