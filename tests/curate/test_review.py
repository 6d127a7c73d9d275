"""The review queue: written for a person, read back strictly."""

import pytest

from pellucid.curate.example import CuratedExample
from pellucid.curate.reply import Reply, write_reply
from pellucid.curate.review import read_queue, write_queue
from pellucid.errors import DataError
from pellucid.tasks.templates import TEMPLATES

CHAT = TEMPLATES["r1-chat"]
NASTY = "text\n  <!-- end -->\n\\<!-- question -->\n<!-- not ours -->\n  indented \n# Title"


def example(name: str, thinking: str = "two and two", summary: str = "\\boxed{4}"):
    return CuratedExample(
        id=name,
        kind="reasoning",
        prompt="2 + 2?\nReally?",
        thinking=thinking,
        summary=summary,
        response=write_reply(Reply(thinking, summary), CHAT),
        template="r1-chat",
        token_ids=(1, 2),
        gold="4",
        grader="integer",
    )


EXAMPLES = [example("t/0#1"), example("t/1#0", thinking=NASTY), example("t/2#3", summary=NASTY)]


@pytest.fixture
def queue(tmp_path):
    path = tmp_path / "review.md"
    write_queue(path, EXAMPLES)
    return path


def change(path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_an_untouched_queue_keeps_everything_as_it_was(queue) -> None:
    examples, num_dropped, num_edited = read_queue(queue, EXAMPLES, CHAT)
    assert (num_dropped, num_edited) == (0, 0)
    assert all(got is given for got, given in zip(examples, EXAMPLES, strict=True))


def test_space_and_line_ends_of_an_editor_change_nothing(queue) -> None:
    text = "".join(line.rstrip() + "\r\n" for line in queue.read_text().split("\n"))
    queue.write_bytes(text.encode())
    assert read_queue(queue, EXAMPLES, CHAT).examples == EXAMPLES


def test_decisions_drop_and_edit(queue) -> None:
    change(queue, "\ndecision: keep", "\nDecision:  DROP")
    change(queue, "\ndecision: keep", "\ndecision: edit")
    change(queue, "# Title", "# Title\n\nand a better end")
    examples, num_dropped, num_edited = read_queue(queue, EXAMPLES, CHAT)
    assert (num_dropped, num_edited) == (1, 1)
    assert [e.id for e in examples] == ["t/1#0", "t/2#3"]
    edited = examples[0]
    assert edited.thinking == NASTY + "\n\nand a better end"
    assert edited.summary == "\\boxed{4}"
    assert edited.token_ids is None
    assert edited.response == write_reply(Reply(edited.thinking, edited.summary), CHAT)
    assert examples[1] is EXAMPLES[2]


def test_edit_without_a_change_is_keep(queue) -> None:
    change(queue, "\ndecision: keep", "\ndecision: edit")
    assert read_queue(queue, EXAMPLES, CHAT).num_edited == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\ndecision: keep", "\ndecision: maybe", r"line 10: 'decision: maybe' is no decision"),
        ("\ndecision: keep", "\n", r"line 9: t/0#1 has no line `decision: keep`"),
        (
            "\ndecision: keep",
            "\ndecision: keep\ndecision: drop",
            r"line 11: 'decision: drop' is no",
        ),
        ("two and two", "two or two", r"line 10: the text of t/0#1 was changed: write `deci"),
        ("2 + 2?", "2 + 3?", r"line 12: the question of t/0#1 was changed"),
        ("<!-- example t/0#1 -->", "<!-- example t/9 -->", r"line 9: there is no example 't/9'"),
        ("<!-- example t/1#0 -->", "<!-- example t/0#1 -->", r"t/0#1 is here twice"),
        ("<!-- end -->", "", r"t/0#1 has no `<!-- end -->` before this line"),
        ("<!-- summary -->", "", r"t/0#1 has no `<!-- summary -->`"),
        ("<!-- summary -->", "<!-- thinking -->", r"t/0#1 has `<!-- thinking -->` twice"),
        ("<!-- example t/0#1 -->", "", r"`<!-- question -->` stands outside of any example"),
        ("<!-- examples ", "<!-- examples 0", r"was written for other examples: move it away"),
    ],
)
def test_what_cannot_be_meant_is_one_line(queue, old, new, message) -> None:
    change(queue, old, new)
    with pytest.raises(DataError, match=message) as caught:
        read_queue(queue, EXAMPLES, CHAT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("new", "message"),
    [("", "the summary of t/0#1 is empty"), ("a </think> b", "the summary of t/0#1 holds tags")],
)
def test_edits_that_break_an_answer_are_refused(queue, new, message) -> None:
    change(queue, "\ndecision: keep", "\ndecision: edit")
    change(queue, "\\boxed{4}", new)
    with pytest.raises(DataError, match=message):
        read_queue(queue, EXAMPLES, CHAT)


def test_a_block_that_is_cut_out_is_named(queue) -> None:
    text = queue.read_text()
    start, end = text.index("<!-- example t/1#0"), text.index("<!-- example t/2#3")
    queue.write_text(text[:start] + text[end:])
    with pytest.raises(DataError, match=r"t/1#0 is missing: to leave an example out, write"):
        read_queue(queue, EXAMPLES, CHAT)


def test_a_queue_of_other_examples_is_refused(queue) -> None:
    with pytest.raises(DataError, match="other examples"):
        read_queue(queue, [EXAMPLES[0], example("t/1#0")], CHAT)
