"""Thinking and summary, and the forms in which templates write them."""

import pytest

from pellucid.curate.candidate import make_candidate
from pellucid.curate.example import CuratedExample, make_examples, read_examples, write_examples
from pellucid.curate.reply import Reply, convert, read_reply, write_reply
from pellucid.errors import DataError
from pellucid.records import Completion, Problem, Score, StopReason, Verdict
from pellucid.rewards.code import extract_program
from pellucid.rewards.extract import extract_answer
from pellucid.rewards.format import format_reward, format_strict_reward
from pellucid.tasks.templates import TEMPLATES

ZERO, CHAT = TEMPLATES["r1-zero"], TEMPLATES["r1-chat"]
TAGGED = " <think> two and two </think> <answer> 4 </answer>"
CHATTED = "<think>\ntwo and two\n</think>\n\n\\boxed{4}"


def test_a_tagged_answer_becomes_thinking_and_a_boxed_summary() -> None:
    assert convert(TAGGED, ZERO, CHAT, grader="integer") == CHATTED
    assert extract_answer(CHATTED) == extract_answer(TAGGED) == "4"


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        ("so \\boxed{4}", "so \\boxed{4}"),
        ("```python\nx = 4\n```", "```python\nx = 4\n```"),
        ("first\nthen 4", "first\nthen 4"),
        ("\\frac{1}{2}", "\\boxed{\\frac{1}{2}}"),
    ],
)
def test_only_a_bare_line_gets_a_box(answer: str, summary: str) -> None:
    response = f"<think> a </think> <answer> {answer} </answer>"
    assert convert(response, ZERO, CHAT, grader="integer") == f"<think>\na\n</think>\n\n{summary}"


def test_a_program_gets_a_code_block() -> None:
    response = "<think> a </think> <answer>\ndef f():\n    return 4\n</answer>"
    converted = convert(response, ZERO, CHAT, grader="code")
    assert converted == "<think>\na\n</think>\n\n```python\ndef f():\n    return 4\n```"
    assert extract_program(converted) == extract_program(response) == "def f():\n    return 4"


@pytest.mark.parametrize("grader", ["open", "smalltalk", "constraints"])
def test_answers_in_free_form_get_no_box(grader: str) -> None:
    response = "<think> a greeting </think> <answer> Hello! </answer>"
    converted = convert(response, ZERO, CHAT, grader=grader)
    assert converted == "<think>\na greeting\n</think>\n\nHello!"


def test_the_same_form_is_left_alone_to_the_last_character() -> None:
    odd = "<think>  two and two</think><answer>4</answer> "
    assert convert(odd, ZERO, TEMPLATES["tiny"], grader="integer") == odd
    assert (
        convert("<think>\nx</think>  y", TEMPLATES["chat"], CHAT, grader="math")
        == "<think>\nx</think>  y"
    )
    # r1-chat opens the thinking in the prompt, with a line of its own
    assert (
        convert("<think>x</think>y", TEMPLATES["chat"], CHAT, grader="math")
        == "<think>\nx\n</think>\n\ny"
    )


def test_what_has_no_parts_is_not_converted() -> None:
    assert convert("<think> two and", ZERO, CHAT, grader="integer") is None
    assert convert("<think> two </think> <answer>  </answer>", ZERO, CHAT, grader="integer") is None
    assert read_reply("<think> two </think>  ") is None


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_every_template_reads_back_what_it_writes(name: str) -> None:
    template = TEMPLATES[name]
    for reply in (Reply("two and two", "\\boxed{4}"), Reply("", "Hello!")):
        response = write_reply(reply, template)
        assert response.startswith(template.prefill)
        assert read_reply(response) == reply
    response = write_reply(Reply("two and two", "4"), template)
    assert format_reward(response) == 1.0
    assert format_strict_reward(response) == float("</answer>" in template.stop)


def test_a_reply_without_thinking_has_tags_only_where_the_prompt_opens_them() -> None:
    assert write_reply(Reply("", "Hi"), TEMPLATES["chat"]) == "Hi"
    assert write_reply(Reply("", "Hi"), CHAT) == "<think>\n\n</think>\n\nHi"


def sampled(response: str, *, verdict: Verdict = Verdict.CORRECT):
    problem = Problem(id="t/0", question="2 + 2?", gold="4", grader="integer", language="en")
    completion = Completion(
        sample_id=1, token_ids=(9, 4), logprobs=(0.0, 0.0), stop=StopReason.EOS, text=""
    )
    return make_candidate(problem, 3, completion, response, Score(verdict=verdict))


def test_tokens_are_kept_as_sampled_only_where_the_text_stays() -> None:
    same = make_examples([sampled(TAGGED)], ZERO, ZERO)
    assert (same.examples[0].token_ids, same.changed) == ((9, 4), [])
    changed = make_examples([sampled(TAGGED), sampled("<think> a")], ZERO, CHAT)
    assert changed.num_formless == 1
    assert [c.id for c in changed.changed] == ["t/0#3"]
    assert changed.examples == [
        CuratedExample(
            id="t/0#3",
            kind="reasoning",
            prompt="2 + 2?",
            thinking="two and two",
            summary="\\boxed{4}",
            response=CHATTED,
            template="r1-chat",
            gold="4",
            grader="integer",
            problem_id="t/0",
        )
    ]
    assert changed.examples[0].problem == sampled("").problem
    # Another prefill: the sampled tokens would begin at another place.
    moved = make_examples([sampled("<think>\nx</think>y")], TEMPLATES["chat"], CHAT)
    assert moved.examples[0].token_ids is None


def test_another_reply_takes_the_tokens_away() -> None:
    example = make_examples([sampled(TAGGED)], ZERO, ZERO).examples[0]
    assert example.with_reply(Reply("two and two", "4"), ZERO) is example
    edited = example.with_reply(Reply("two, two", "4"), ZERO)
    assert edited.token_ids is None
    assert edited.response == " <think> two, two </think> <answer> 4 </answer>"


def test_the_curated_set_survives_the_disk(tmp_path) -> None:
    examples = make_examples([sampled(TAGGED)], ZERO, ZERO).examples
    messages = CuratedExample(
        id="g/1",
        kind="general",
        prompt=({"role": "user", "content": "Hi\u2028there"},),
        thinking="",
        summary="Hello",
        response="Hello",
        template="chat",
    )
    path = tmp_path / "examples.jsonl"
    digest = write_examples(path, [*examples, messages])
    assert read_examples(path) == [*examples, messages]
    assert write_examples(path, [*examples, messages]) == digest
    path.write_text(path.read_text() + '{"id": 3}\n')
    with pytest.raises(DataError, match=r"examples.jsonl line 3 is no example"):
        read_examples(path)
