"""The command line as a user meets it: output, files, one line per mistake, exit codes."""

import errno
import json
import os
import subprocess
import sys
import tomllib

import pytest

from pellucid import doctor
from pellucid.cli import app, run, run_command
from pellucid.errors import Interrupted, NumericsError

HEAVY = ("torch", "numpy", "sympy", "transformers", "tokenizers", "gguf", "huggingface_hub")
HEAVY += ("matplotlib", "scipy", "jinja2", "safetensors", "math_verify")


def _python(code, *arguments, **more):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        **more,
    )


def _main(*arguments, **more):
    return _python("from pellucid.cli import main; main()", *arguments, **more)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('name = "small"\n[train]\nsteps = 3\n')
    return str(path)


def _fails(capsys, *arguments):
    """(exit code, the one line on stderr)"""
    code = run_command(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return code, captured.err.rstrip("\n")


def test_importing_the_command_line_and_the_configuration_loads_nothing_heavy():
    code = (
        "import sys, pellucid.cli, pellucid.config, pellucid.config_io\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = _python(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_names_every_command(arguments):
    done = _main(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("run", "eval", "generate", "chat", "report", "export", "doctor", "data"):
        assert f"\n  {command} " in done.stdout


def test_every_command_has_help_that_says_what_it_does(capsys):
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    for name in [*names, "data list", "data get", "data check"]:
        assert run_command([*name.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: pellucid {name}")
        assert "--json" in text or name == "chat"


def test_dry_run_prints_the_resolved_recipe_and_makes_nothing(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["run", recipe, "--set", "train.steps=5", "--out", str(out), "--dry-run"]
    assert run_command(arguments) == 0
    text = capsys.readouterr().out
    assert "steps = 5  # by --set" in text
    assert tomllib.loads(text)["name"] == "small"
    assert not out.exists()


def test_dry_run_prints_the_recipe_as_json_on_request(recipe, capsys):
    assert run_command(["run", recipe, "--set", "train.steps=5", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["steps"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "RECIPE", "--set", "train.stpes=5"],
            "unknown key train.stpes; did you mean train.s",
        ),
        (["run", "RECIPE", "--set", "train.steps=-1"], "train.steps = -1: must be at least 1"),
        (["run", "RECIPE", "--set", "reward=randm", "--dry-run"], "did you mean 'random'?"),
        (["run", "RECIPE", "--set", "task.template=tinyy", "--dry-run"], "did you mean 'tiny'?"),
        (["run", "RECIPE", "--set", "train.steps"], "write it as key=value"),
        (["run", "no-such-recipe"], "no recipe at no-such-recipe"),
        (["run"], "see pellucid run --help"),
        (["run", "RECIPE", "--ot", "x"], "see pellucid run --help"),
        (["rnu"], "see pellucid --help"),
        (["eval", "tiny-base"], "see pellucid eval --help"),
        (
            ["eval", "tiny-base", "--suite", "chain", "--k", "0"],
            "eval.suites.0.k = 0: must be at l",
        ),
        (
            ["eval", "tiny-base", "--suite", "chain", "--top-p", "2"],
            "eval.top_p = 2.0: must be at m",
        ),
        (["eval", "tiny-base", "--suite", "chain", "--device", "gpu"], "must be 'auto', 'cpu' or"),
        (["generate", "tiny-base", ""], "the prompt is empty"),
        (["generate", "tiny-base", "hi", "-n", "0"], "-n 0: must be at least 1"),
        (["report", "nowhere"], "nowhere is no run folder"),
        (["export", "tiny-base", "--out", "."], ". is not empty: choose another --out"),
        (["data", "get", "gsm9k"], "did you mean 'gsm8k'?"),
        (["data", "check", "gsm9k"], "did you mean 'gsm8k'?"),
        (["data", "get", "gsm8k", "--from", "nowhere"], "below nowhere: name the folder"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(recipe, capsys, tmp_path, arguments, message):
    arguments = [recipe if a == "RECIPE" else a for a in arguments]
    if arguments[0] == "data":
        arguments += ["--data-dir", str(tmp_path / "data")]
    code, line = _fails(capsys, *arguments)
    assert code == 2
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NumericsError("loss is nan in step 7"), 3, "error: loss is nan in step 7"),
        (Interrupted("after step 4"), 143, "stopped: after step 4: continue with the same command"),
        (KeyboardInterrupt(), 130, "interrupted: continue with the same command"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/a"),
            2,
            "error: no space left to write runs/x/a: free some and give the same command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs"),
            2,
            "error: cannot write runs: permission denied; choose another folder or change its "
            "rights",
        ),
    ],
)
def test_what_stops_a_run_is_one_line_with_its_own_exit_code(
    capsys, monkeypatch, error, code, line
):
    def stop(*_):
        raise error

    monkeypatch.setattr(run, "load_recipe", stop)
    assert _fails(capsys, "run", "x") == (code, line)


def test_an_error_of_the_code_itself_keeps_its_traceback(monkeypatch):
    def break_down(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(run, "load_recipe", break_down)
    with pytest.raises(OSError, match="Input/output error"):
        run_command(["run", "x"])


def test_main_exits_with_the_code_of_the_command():
    done = _main("run", "no-such-recipe")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe at no-such-recipe")
    assert done.stdout == ""


def test_a_reader_that_went_away_leaves_no_traceback():
    code = "from pellucid.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-c", code, "data", "list"],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_data_list_prints_a_table_and_json(capsys, tmp_path):
    assert run_command(["data", "list", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "here", "rows"]
    assert any(line.startswith("gsm8k ") and "test 1,319" in line for line in lines)
    assert run_command(["data", "list", "--json"]) == 0
    entries = {e["name"]: e for e in json.loads(capsys.readouterr().out)}
    assert entries["gsm8k"]["licence"] == "MIT"
    assert entries["countdown"]["is_procedural"]


def test_doctor_says_what_is_there_and_fails_where_something_is_wrong(capsys, monkeypatch):
    def findings(status):
        return [doctor.Finding(name="disk", status=status, found="1 GiB", remedy="buy more")]

    monkeypatch.setattr(doctor, "check", lambda progress: findings(doctor.Status.WARN))
    assert run_command(["doctor"]) == 0
    assert "warn  disk  1 GiB; buy more" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "check", lambda progress: findings(doctor.Status.FAIL))
    assert run_command(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "findings": [
            {"name": "disk", "status": "fail", "found": "1 GiB", "remedy": "buy more"},
        ],
    }
