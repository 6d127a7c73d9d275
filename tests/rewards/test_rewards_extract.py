import pytest

from pellucid.rewards.extract import extract_answer, last_box, split_thinking


def test_thinking_ends_at_the_last_closing_tag():
    parts = split_thinking("<think>a</think>b</think>c")
    assert parts == ("a</think>b", "c")


def test_a_prefilled_opening_tag_may_be_missing():
    assert split_thinking("a</think>c") == ("a", "c")


def test_thinking_that_never_ends_leaves_no_answer():
    assert split_thinking("<think>a") == ("a", None)
    assert split_thinking("<think>a</think>b<think>c").answer is None


def test_a_response_without_tags_is_all_answer():
    assert split_thinking("a") == (None, "a")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed {3}", "3"),
        (r"\boxed{}", None),
        (r"\boxed{1} \boxed{ }", None),
        ("<answer> 4 </answer>", "4"),
        ("<answer>3<answer>4</answer>", "4"),
        (r"<answer>5 \boxed{6}</answer>", "6"),
        ("<answer></answer>", None),
        ("4", None),
        ("", None),
        (r"<think>\boxed{1}</think>", None),
        (r"<think>\boxed{1}", None),
        (r"\boxed{x = \boxed{6}}", "x = 6"),
    ],
)
def test_the_answer_that_counts(response, answer):
    assert extract_answer(response) == answer


def test_ten_thousand_boxes_are_read_in_one_pass():
    opened = r"\boxed{" * 10_000
    assert last_box(opened + "1}") == "1"
    assert last_box(opened + "1" + "}" * 10_000) == "1"
    assert last_box(opened) is None


def test_braces_outside_of_boxes_do_not_disturb():
    assert last_box(r"} { \{ \boxed{5} } {") == "5"
    assert last_box(r"\boxed{\boxed{1}, \boxed{2}}") == "1, 2"
    assert last_box(r"\boxed{1} \boxed{2} \boxed{") == "2"
