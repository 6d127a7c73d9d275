import pytest

from pellucid.data.check import check, list_datasets, plain_words
from pellucid.data.fetch import get
from pellucid.data.registry import DATASETS
from pellucid.rewards.constraints import KindCoverage
from pellucid.tasks import PROCEDURAL


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find $x$.", "find  X"),
        ("Find \\(\\dfrac{1}{2}\\) of $4$?", "Find $\\frac12$ of 4"),
        ("Compute\n\\[\\left(a + b\\right)^2.\\]", "Compute $$(a+b)^2$$"),
    ],
)
def test_copies_that_differ_in_typesetting_are_the_same(one, other):
    assert plain_words(one) == plain_words(other)


@pytest.mark.parametrize(("one", "other"), [("7 - 3", "7 + 3"), ("cos(-150)", "cos(150)")])
def test_questions_that_differ_in_an_operator_are_not(one, other):
    assert plain_words(one) != plain_words(other)


def test_the_report_names_rows_that_are_refused_repeated_or_held_out_elsewhere(published, tmp_path):
    for name in ("dapo-math-17k", "math"):
        get(name, source_folder=published.folder, data_dir=tmp_path)
    report = check("dapo-math-17k", data_dir=tmp_path)
    (split,) = report.splits
    assert (split.rows, split.repeated, split.refused) == (4, (), ())
    (overlap,) = report.overlaps
    assert (overlap.train, overlap.held_out) == ("dapo-math-17k/train", "math/test")
    assert [row for row, _ in overlap.pairs] == [3]
    assert not report.is_clean
    assert "gsm8k/test" in report.not_compared
    assert report.rights == "B"

    math = check("math", data_dir=tmp_path)
    assert [r.reason for r in math.splits[0].refused] == ["the publisher gives no answer"]
    assert [o.pairs for o in math.overlaps] == [()]


def test_instructions_without_a_rule_are_named_with_the_items_that_hold_them(published, tmp_path):
    get("ifbench", source_folder=published.folder, data_dir=tmp_path)
    (split,) = check("ifbench", data_dir=tmp_path).splits
    assert split.kinds == KindCoverage(checked=2, named=3, missing={"words:start_verb": 1})
    assert [row.row for row in split.refused] == [2]
    assert "words:start_verb is not checked here: which words are verbs" in split.refused[0].reason


def test_every_instruction_of_ifeval_has_a_rule(published, tmp_path):
    get("ifeval", source_folder=published.folder, data_dir=tmp_path)
    (split,) = check("ifeval", data_dir=tmp_path).splits
    assert split.kinds.checked == split.kinds.named > 0
    assert split.kinds.missing == {}
    assert split.refused == ()


def test_a_clean_set_is_clean(published, tmp_path):
    get("gsm8k", source_folder=published.folder, data_dir=tmp_path)
    report = check("gsm8k", data_dir=tmp_path)
    assert report.is_clean
    assert [(s.split, s.rows) for s in report.splits] == [("train", 5), ("test", 3)]


def test_procedural_tasks_share_no_question_between_splits():
    report = check("arithmetic")
    assert report.is_clean
    assert [s.rows for s in report.splits] == [10_000, 500]


def test_the_list_tells_what_is_there(published, tmp_path):
    get("svamp", source_folder=published.folder, data_dir=tmp_path)
    listed = {entry.name: entry for entry in list_datasets(tmp_path)}
    assert [
        name for name, entry in listed.items() if entry.is_fetched and not entry.is_procedural
    ] == ["svamp"]
    assert set(listed) == {*DATASETS, *PROCEDURAL}
    assert listed["svamp"].rows == {"test": 4}
