"""What a claim compares was graded by the same settings: the ledger knows them."""

import json

import pytest
from honest_dossier import SUITE, Maker, write

from pellucid.evidence.core.verify import verify

SAME = {"math_verify": True, "math_verify_timeout_s": 5.0, "code_timeout_s": 3.0}
AFTER = f"evals/{SUITE}/after"


def dossier(gradings, settings=None):
    """`gradings`: by arm, as the ledger has them."""
    maker = Maker()
    maker.events = [
        (kind, payload | {"grading": gradings[payload["arm"]]})
        if kind == "evaluation_started" and payload["arm"] in gradings
        else (kind, payload)
        for kind, payload in maker.default_kinds()
    ]
    if settings is not None:
        told = {f"evals/{SUITE}/{arm}": grading for arm, grading in settings.items()}
        document = {"v": 1, "evaluations": told}
        maker.extra["graders/settings.json"] = json.dumps(document).encode()
    return maker.files()


def faults(verdict):
    return [f for f in verdict.findings if not f.kind.is_note]


def everywhere(grading):
    return dict.fromkeys(("before", "after", "random-reward"), grading)


@pytest.mark.parametrize("gradings", [{}, {"after": SAME}, everywhere(SAME)])
def test_arms_that_were_graded_alike_or_before_settings_were_kept_are_fine(gradings, tmp_path):
    files = dossier(gradings, gradings or None)
    assert faults(verify(write(files, tmp_path))) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (SAME | {"code_timeout_s": 60.0}, "code_timeout_s: 60.0 here, 3.0 there"),
        (SAME | {"math_verify": False}, "math_verify: False here, True there"),
        ({}, "code_timeout_s: None here"),
        ("\u202eodd", "no settings"),
    ],
)
def test_an_arm_that_was_graded_by_other_settings_spoils_the_claim(other, words, tmp_path):
    files = dossier(everywhere(SAME) | {"before": other})
    verdict = verify(write(files, tmp_path))
    found = faults(verdict)
    assert {f.code for f in found} == {"grader-changed"}
    assert all(words in f.text and AFTER in f.text for f in found)
    assert verdict.status(found[0].claims[0], "integrity") == "FAILS"


def test_settings_that_are_not_the_ledgers_are_named(tmp_path):
    files = dossier(everywhere(SAME), {"after": SAME | {"math_verify_timeout_s": 1.0}})
    found = faults(verify(write(files, tmp_path)))
    assert [(f.code, f.where) for f in found] == [("grader-changed", "graders/settings.json")]


def test_settings_of_another_shape_are_malformed(tmp_path):
    files = dossier(everywhere(SAME), {"after": 3})
    assert {f.code for f in faults(verify(write(files, tmp_path)))} == {"file-malformed"}
