"""A referee's file, in three forms; what is wrong is said with file and line."""

import json

import pytest

from pellucid.errors import ReviewError
from pellucid.evidence.review.letter import read_letter
from pellucid.evidence.review.points import Known, split_items
from pellucid.evidence.review.records import PointKind, Severity
from pellucid.evidence.review.retest import check_test

CLAIMS = ("C2", "C3")
KNOWN = Known(claims=CLAIMS, check_test=lambda test: check_test(test, CLAIMS))


def read(tmp_path, text, name="letter.md", **options):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text, indent=1))
    return read_letter(path, KNOWN, **options)


def test_json_and_markdown_say_the_same(tmp_path):
    points = [
        {
            "id": "R2.4",
            "text": "Is it so?",
            "claim_refs": ["C3"],
            "severity": "blocking",
            "kind": "dispute",
            "test": "C3.subsets.fresh.ci95.low > 0",
        },
        {"text": "Typo."},
    ]
    (one,) = read(tmp_path, {"referee": "R2", "points": points}, "r.json")
    text = (
        "---\nreferee: R2\n---\n# A title\n## R2.4 · blocking · dispute · C3\nIs it so?\n"
        "Test: C3.subsets.fresh.ci95.low > 0\n\n## Another thing\nTypo.\n"
    )
    (other,) = read(tmp_path, text)
    assert one.to_dict() == other.to_dict()
    first, second = one.points
    assert (first.id, first.severity, first.kind) == ("R2.4", Severity.BLOCKING, PointKind.DISPUTE)
    assert (second.id, second.severity, second.claim_refs) == ("R2.2", Severity.MAJOR, ())


def test_a_plain_letter_with_a_list_has_a_point_for_each_item(tmp_path):
    (report,) = read(tmp_path, "Thank you.\n\n1. First\n   goes on\n2) Second\n", referee="Anna")
    assert [(p.id, p.text, p.line) for p in report.points] == [
        ("Anna.1", "First\ngoes on", 3),
        ("Anna.2", "Second", 5),
    ]


def test_headings_in_code_are_no_points(tmp_path):
    (report,) = read(tmp_path, "## One\n```\n# not a point\n```\n## Two\nx\n", referee="R1")
    assert [p.text for p in report.points] == ["```\n# not a point\n```", "x"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_openreview_notes_of_both_apis_are_read(tmp_path, wrapped):
    def note(invitation, signature, **content):
        values = {k: {"value": v} if wrapped else v for k, v in content.items()}
        invited = {"invitations": [invitation]} if wrapped else {"invitation": invitation}
        return {"id": "x", "signatures": [f"V/Paper1/{signature}"], "content": values} | invited

    notes = [
        note("V/-/Official_Comment", "Authors", comment="Thanks"),
        note(
            "V/-/Official_Review",
            "Reviewer_AbCd",
            summary="Nice",
            weaknesses="- too small\n- too fast",
            questions="Why?",
            rating=6,
        ),
    ]
    (report,) = read(tmp_path, {"notes": notes} if wrapped else notes, "notes.json")
    assert report.referee == "Reviewer_AbCd"
    assert [p.text for p in report.points] == ["too small", "too fast", "Why?"]
    assert {p.line for p in report.points} == {report.points[0].line} != {1}


def test_items_of_a_list():
    assert split_items("Intro\n- a\n  b\n* c") == [(1, "a\n  b"), (3, "c")]
    assert split_items("\n\nAll of it\nis one") == [(2, "All of it\nis one")]
    assert split_items("  \n") == []


J = '{\n "referee": "R2",\n "points": [\n  {"text": "ok"},\n  %s\n ]\n}'
M = "---\nreferee: R2\n---\n"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.json", '{"referee": "R2",\n "points": [}', "a.json line 2: not JSON"),
        ("a.json", '{"referee": "R2",\n "points": 1}', "a.json line 2: points is a list"),
        ("a.json", '{"referee": "../x",\n "points": []}', "a.json line 1: '../x' is no referee"),
        ("a.json", '{"referee": "R2",\n "points": []}', "a.json line 2: there is no point"),
        ("a.json", J % "7", "a.json line 5: a point is an object"),
        ("a.json", J % '{"text": " "}', "a.json line 5: the point has no text"),
        ("a.json", J % '{"text": "x", "txt": 1}', "a.json line 5: 'txt' is unknown"),
        ("a.json", J % '{"text": "x", "severity": "huge"}', "line 5: 'huge' is none of blocking"),
        ("a.json", J % '{"text": "x", "claim_refs": ["C9"]}', "line 5: there is no claim 'C9'"),
        ("a.json", J % '{"text": "x", "id": "R3.1"}', "line 5: 'R3.1' is no point of R2"),
        ("a.json", J % '{"text": "x", "id": "R2.1"}', "line 4: point R2.1 is there twice"),
        ("a.json", J % '{"text": "x", "test": "C3.low > "}', "line 5: test .* ends too early"),
        ("a.json", J % '{"text": "x", "test": "C9.low > 0"}', "line 5: test .* no claim 'C9'"),
        ("a.json", J % '{"text": "x", "test": "1 > 0"}', "line 5: test .* names no claim"),
        ("a.json", J % '{"text": "x", "test": "__import__"}', "line 5: test"),
        ("a.json", J % ('{"text": "x", "test": "%s"}' % ("(" * 499)), "line 5: test"),
        ("a.json", "[" * 100_000, "a.json line 1: "),
        ("a.json", '{"a": ' + "9" * 5000 + "}", "a.json line 1: this cannot be a report"),
        ("a.json", '{"notes": [{"id": 1}]}', "a.json line 1: not a list of OpenReview notes"),
        ("a.md", "---\nreferee: R2\nmood: bad\n---\nx", "a.md line 3: 'mood: bad' is no"),
        ("a.md", "---\nreferee: R2\n", "a.md line 1: the front matter has no closing"),
        ("a.md", M, "a.md line 1: there is no point"),
        ("a.md", "just text", "a.md line 1: None is no referee name"),
        ("a.md", M + "## R2.1 · big\nx", "a.md line 4: 'big' is none of"),
        ("a.md", M + "## R2.1\nx\nTest: C2.size > 1", "a.md line 4: test .* names no number"),
        ("a.md", M + "## R2.1\nx\nCloses-with: abc", "a.md line 4: closes_with is 64"),
    ],
)
def test_bad_input_gets_one_line_with_file_and_line(tmp_path, name, text, complaint):
    with pytest.raises(ReviewError, match=complaint) as caught:
        read(tmp_path, text, name)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "a.md"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ReviewError, match="not UTF-8 text"):
        read_letter(path, KNOWN)
    with pytest.raises(ReviewError, match="cannot be read"):
        read_letter(tmp_path / "gone.md", KNOWN)
