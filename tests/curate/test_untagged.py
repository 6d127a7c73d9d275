"""Answers without tags: which paragraph concludes, and what becomes of the sample."""

from dataclasses import replace

import pytest

from pellucid.config_curate import FilterConfig
from pellucid.curate.candidate import Candidate, make_candidate
from pellucid.curate.example import make_examples
from pellucid.curate.filters import apply_filters
from pellucid.curate.untagged import split_untagged, tell_apart
from pellucid.records import Completion, Problem, Score, StopReason, Verdict
from pellucid.rewards.extract import extract_answer
from pellucid.rewards.format import format_reward
from pellucid.tasks.templates import TEMPLATES

BOXED, CHAT = TEMPLATES["r1-zero-boxed"], TEMPLATES["r1-chat"]
STEPS = "Let us count.\n\n1. She has 16 eggs and eats 3:\n   \\[16 - 3 = 13\\]"
END = "Therefore, she sells\n\\[\n\\boxed{13}\n\\]"
OPEN_ANSWER = f" {STEPS}\n\n{END}\n"


@pytest.mark.parametrize(
    ("response", "thinking", "summary"),
    [
        (OPEN_ANSWER, STEPS, END),
        (f"{STEPS}\n \t\n\n  {END}", STEPS, END),
        # What leads on to a formula belongs to it.
        (f"{STEPS}\n\nSo she sells:\n\n\\[\n\n\\boxed{{13}}\n\n\\]", STEPS, None),
        ("三加四。\n\n答案是：\n\n\\boxed{7}", "三加四。", "答案是：\n\n\\boxed{7}"),
        # The last box counts, as for graders, and what follows it stays.
        ("\\boxed{1}\n\n\\boxed{2}\n\nGood.", "\\boxed{1}", "\\boxed{2}\n\nGood."),
        ("a\n\n\\boxed{b\n\nc}", "a", "\\boxed{b\n\nc}"),
    ],
)
def test_the_paragraph_of_the_final_box_is_the_summary(response, thinking, summary) -> None:
    reply = split_untagged(response)
    assert reply.thinking == thinking
    assert reply.summary == (summary or "So she sells:\n\n\\[\n\n\\boxed{13}\n\n\\]")


@pytest.mark.parametrize(
    "response",
    [
        "",
        "She sells 13.",
        f"{STEPS}\n\nShe sells \\boxed{{13",
        END,
        f"So it is:\n\n{END}",
        f"<think> {STEPS} </think>\n\n{END}",
        f"{STEPS}\n\n{END}</answer>",
    ],
)
def test_without_a_box_or_steps_before_it_or_with_tags_nothing_is_told_apart(response) -> None:
    assert split_untagged(response) is None


def sampled(response: str, language: str = "en") -> Candidate:
    problem = Problem(id="g/0", question="Q?", gold="13", grader="math", language=language)
    completion = Completion(
        sample_id=0, token_ids=(4, 2), logprobs=(0.0, 0.0), stop=StopReason.EOS, text=response
    )
    return make_candidate(problem, 1, completion, response, Score(verdict=Verdict.CORRECT))


def test_a_sample_without_tags_passes_the_filters_and_is_learnt_in_the_form_of_the_chat() -> None:
    open_answer, tagged = sampled(OPEN_ANSWER), sampled(" <think> a </think> <answer> 13 </answer>")
    assert apply_filters([open_answer], FilterConfig()).counts.dropped["format"] == 1
    told = tell_apart([open_answer, tagged], BOXED)
    assert told.candidates[1] is tagged
    assert told.rewritten == {"g/0#1"}
    made = told.candidates[0]
    assert made.language_share == 1.0 != open_answer.language_share
    assert format_reward(made.response) == 1.0
    kept = apply_filters(told.candidates[:1], FilterConfig()).kept
    examples, changed, _ = make_examples(kept, BOXED, CHAT, rewritten=told.rewritten)
    assert examples[0].response == f"<think>\n{STEPS}\n</think>\n\n{END}"
    assert extract_answer(examples[0].response) == extract_answer(OPEN_ANSWER) == "13"
    assert (examples[0].token_ids, changed) == (None, kept)


def test_the_language_is_that_of_the_thinking_that_was_told_apart() -> None:
    told = tell_apart([sampled("First three.\n\n答案是 \\boxed{13}。", "zh")], BOXED)
    assert told.candidates[0].language_share == 0.0


def test_in_the_samplers_own_form_rewritten_text_has_no_sampled_tokens() -> None:
    told = tell_apart([sampled(OPEN_ANSWER)], BOXED)
    examples, changed, _ = make_examples(told.candidates, BOXED, BOXED, rewritten=told.rewritten)
    assert examples[0].response == f" <think> {STEPS} </think> <answer> {END} </answer>"
    assert (examples[0].token_ids, changed) == (None, told.candidates)
    twin = [replace(c, response=told.candidates[0].response) for c in told.candidates]
    assert make_examples(twin, BOXED, BOXED).examples[0].token_ids == (4, 2)
