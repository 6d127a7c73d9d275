"""Checklists: an answer needs its pointer, and the pointer something to point to."""

import json

import pytest
from small_dossier import build_dossier, write_json

from pellucid.cli import run_command
from pellucid.errors import RunError
from pellucid.evidence.checklists import NAMES, check_checklists, start_checklists


@pytest.fixture
def draft(tmp_path):
    dossier = build_dossier(tmp_path / "d")
    (dossier / "SEAL.dsse.json").unlink()
    start_checklists(dossier)
    return dossier


def fill(dossier, **first):
    """Answer everything well, but the first question of the first checklist with `first`."""
    for name in NAMES:
        path = dossier / f"checklists/{name}.json"
        value = json.loads(path.read_text())
        for row in value["answers"]:
            row |= {"answer": "yes", "pointer": "claims.json#C1"}
        if name == NAMES[0]:
            value["answers"][0] |= first
        write_json(path, value)


def test_empty_checklists_fail_on_every_question(draft):
    problems = check_checklists(draft)
    assert len(problems) == 14 + 16 + 17
    assert problems[0] == "nature-reporting: sample-size is not answered: say one of yes, no, n/a"


def test_good_answers_pass_and_the_command_says_so(draft, capsys):
    fill(draft, pointer="data/")
    assert check_checklists(draft) == []
    assert run_command(["dossier", "checklist", str(draft)]) == 0
    assert "Every answer has what it needs." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ({"pointer": None}, "says 'yes' without a pointer"),
        ({"pointer": "claims.json#C9"}, "points to 'claims.json#C9', which is no claim"),
        ({"pointer": "gone.json"}, "points to 'gone.json', which is not in the dossier"),
        ({"pointer": "../secret"}, "points to '../secret', which is not in the dossier"),
        ({"answer": "no", "comment": " "}, "says 'no' without saying why"),
        ({"answer": "maybe"}, "is not answered: say one of yes, no, n/a"),
        ({"id": "renamed"}, "is left out"),
    ],
)
def test_an_answer_without_what_it_needs_fails(draft, first, problem):
    fill(draft, **first)
    assert check_checklists(draft) == [f"nature-reporting: sample-size {problem}"]
    assert run_command(["dossier", "checklist", str(draft)]) == 1


def test_no_with_a_reason_passes(draft):
    fill(draft, answer="no", pointer=None, comment="Nobody was blinded.")
    assert check_checklists(draft) == []


def test_starting_keeps_answers_and_never_touches_a_seal(draft, tmp_path):
    fill(draft)
    assert start_checklists(draft) == []
    assert check_checklists(draft) == []
    sealed = build_dossier(tmp_path / "sealed")
    with pytest.raises(RunError, match="is sealed: answer the checklists before"):
        start_checklists(sealed)
    with pytest.raises(RunError, match="has no checklist"):
        check_checklists(sealed)
