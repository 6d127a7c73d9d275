"""`pellucid review`: the whole round by commands, and one line for mistakes."""

import json

import pytest
from small_dossier import build_dossier

from pellucid.cli import run_command


def command(capsys, *arguments, code=0):
    assert run_command(["review", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_a_round_by_commands(tmp_path, capsys):
    dossier = build_dossier(tmp_path / "d")
    letter = tmp_path / "letter.md"
    letter.write_text("1. Why?\n2. Is C2 so?\n   Test: C2.low > 0\n")
    command(capsys, "prepare", letter, "--referee", "R1", "--out", tmp_path / "r1.json", "--json")
    assert "Round 1 is on seal" in command(capsys, "start", dossier)
    assert "R1: R1.1, R1.2" in command(capsys, "import", dossier, tmp_path / "r1.json")
    taken = json.loads(command(capsys, "import", dossier, letter, "--referee", "R2", "--json"))
    answered = command(
        capsys, "answer", dossier, "R2.1", "--text", "So.", "--claim", "C1=corrected"
    )
    assert answered == "R2.1 is answered.\n"
    rerun = json.loads(command(capsys, "rerun", dossier, "R2.2", "--json"))
    assert rerun["holds"] is True
    assert "closed by its test" in command(capsys, "close", dossier, "R2.2")
    token = taken[0]["token"]
    assert "own word" in command(capsys, "close", dossier, "R2.1", "--token", token)
    rows = json.loads(command(capsys, "status", dossier, "--json"))["points"]
    assert [row["status"] for row in rows] == ["open", "open", "closed", "closed"]
    command(capsys, "export", dossier)
    assert (dossier / "reviews/history.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("answer", "{d}", "R1.1"), "say the answer with --text"),
        (("answer", "{d}", "R1.1", "--text", "x", "--claim", "C1"), "write CLAIM=WORD"),
        (("close", "{d}", "R1.1", "--token", "a", "--signature", "b"), "not both"),
        (("close", "{d}", "R1.1", "--signature", "gone"), "gone holds no signature"),
        (("status", "{d}"), "no review of"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, complaint):
    dossier = build_dossier(tmp_path / "d")
    line = command(capsys, *(a.format(d=dossier) for a in arguments), code=2)
    assert complaint in line
    assert line.count("\n") == 1
