"""What a teacher may change and what it may not; a teacher that is a program."""

import pytest

from pellucid.config_curate import EditorConfig, FilterConfig, TeacherConfig
from pellucid.curate.candidate import make_candidate
from pellucid.curate.editors import BilingualEditor, Operation, open_editor, prompt_of
from pellucid.curate.example import CuratedExample, make_examples
from pellucid.curate.filters import FilterCounts
from pellucid.curate.teacher import edit_all
from pellucid.endpoint import Answer
from pellucid.errors import ConfigError
from pellucid.records import Completion, Problem, Score, StopReason, Verdict
from pellucid.rewards.pool import GraderPool
from pellucid.runlog import Progress
from pellucid.tasks import bilingual
from pellucid.tasks.templates import TEMPLATES

CHAT = TEMPLATES["r1-chat"]
PROBLEM = Problem(id="t/0", question="2 + 2?", gold="4", grader="integer")


def example(
    thinking: str = "two and two are 4",
    summary: str = "\\boxed{4}",
    problem: Problem = PROBLEM,
    index: int = 0,
) -> CuratedExample:
    response = f"<think>\n{thinking}\n</think>\n\n{summary}"
    completion = Completion(
        sample_id=1, token_ids=(5,), logprobs=(0.0,), stop=StopReason.EOS, text=""
    )
    score = Score(verdict=Verdict.CORRECT)
    candidate = make_candidate(problem, index, completion, response, score)
    return make_examples([candidate], CHAT, CHAT).examples[0]


class Says:
    """An editor that answers all alike, and remembers what it was asked."""

    def __init__(self, *answers: Answer | str | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Operation, list[str]]] = []

    def edit(self, operation, examples):
        self.asked.append((operation, [e.id for e in examples]))
        answer = self.answers.pop(0)
        return [answer if isinstance(answer, Answer) else Answer(text=answer)] * len(examples)


def config(**operations) -> EditorConfig:
    return EditorConfig(name="bilingual", **operations)


def taught(editor, examples, filters=None, **operations):
    counts = FilterCounts(candidates=len(examples))
    with GraderPool(math_verify=False) as grader:
        kept = edit_all(
            examples, editor, config(**operations), filters or FilterConfig(), CHAT, grader, counts
        )
    return kept, {reason: n for reason, n in counts.dropped.items() if n}


def test_an_edit_replaces_text_and_tokens() -> None:
    kept, dropped = taught(Says("First I add: 4."), [example()], rewrite=True)
    assert (kept[0].thinking, kept[0].summary) == ("First I add: 4.", "\\boxed{4}")
    assert kept[0].response == "<think>\nFirst I add: 4.\n</think>\n\n\\boxed{4}"
    assert (kept[0].token_ids, dropped) == (None, {})


def test_a_teacher_that_changes_nothing_leaves_the_tokens() -> None:
    given = example()
    kept, _ = taught(Says(given.thinking), [given], rewrite=True)
    assert kept[0] is given


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(text=None, failure="HTTP 500"), "teacher-failed"),
        ("  ", "teacher-empty"),
        ("<think> I wonder </think> ", "teacher-empty"),
        (Answer(text="4 and", is_cut=True), "teacher-nonsense"),
        ("4 <answer> 4 </answer>", "teacher-nonsense"),
        ("4 " * 40, "teacher-nonsense"),
        ("I cannot help with that.", "teacher-changed"),
        ("It is 14, or 4.5x", "teacher-changed"),
        ("это равно 4", "language"),
        ("It is 4 .\n" + "word " * 500, "paragraphs"),
    ],
)
def test_spoilt_thinking_is_dropped_by_its_kind(answer, reason) -> None:
    limit = 1.0 if reason == "paragraphs" else 0.2
    filters = FilterConfig(max_paragraph_chars=1000, max_repetition=limit)
    kept, dropped = taught(Says(answer), [example()], filters, rewrite=True)
    assert (kept, dropped) == ([], {reason: 1})


@pytest.mark.parametrize(
    "summary", ["So it is \\boxed{5}.", "So it is 4.", "\\boxed{4} or \\boxed{}"]
)
def test_a_summary_with_another_answer_is_dropped(summary) -> None:
    kept, dropped = taught(Says(summary), [example()], summarise=True)
    assert (kept, dropped) == ([], {"teacher-changed": 1})


def test_operations_come_in_order_and_only_where_they_are_needed() -> None:
    english, mixed = example(), example("два and two are 4", index=1)
    silent = example("", index=2)
    open_one = Problem(id="o/0", question="Hi?", gold="", grader="open", kind="helpful")
    greeting = example("a greeting", "Hello", open_one)
    editor = Says("I say 4", "two and two are 4", "It is \\boxed{4}.")
    kept, dropped = taught(
        editor,
        [english, mixed, silent, greeting],
        FilterConfig(format=False, min_language_share=0.5),
        rewrite=True,
        summarise=True,
        translate=True,
    )
    assert editor.asked[0] == (Operation.REWRITE, ["t/0#0", "t/0#1", "o/0#0"])
    assert editor.asked[1] == (Operation.TRANSLATE, [])
    assert editor.asked[2] == (Operation.SUMMARISE, ["t/0#0", "t/0#1", "t/0#2"])
    assert kept[-1].summary == "Hello"
    # Without any thinking there is no share of a language: that filter has the last word.
    assert dropped == {"language": 1}


def test_only_mixed_thinking_is_translated() -> None:
    editor = Says("two and two are 4")
    kept, _ = taught(editor, [example(), example("два и two are 4", index=1)], translate=True)
    assert editor.asked == [(Operation.TRANSLATE, ["t/0#1"])]
    assert [e.thinking for e in kept] == ["two and two are 4"] * 2


def test_prompts_hold_what_they_are_about() -> None:
    asked = prompt_of(Operation.SUMMARISE, example("I {try} braces, 4"))
    assert "2 + 2?" in asked
    assert "I {try} braces, 4" in asked
    assert "inside \\boxed{}." in asked
    assert asked.endswith("The answer it came to: 4")
    assert "fenced" not in asked
    translate = prompt_of(Operation.TRANSLATE, example())
    assert translate.startswith(
        "Translate the thinking process to the same language as the question."
    )


def test_the_bilingual_teacher_translates_and_summarises_its_own_task() -> None:
    problems = bilingual.problems("train", 8)
    examples = []
    for problem in problems:
        other = bilingual.LANGUAGES[1 - bilingual.LANGUAGES.index(problem.language)]
        start = bilingual.STARTS[other][0].format(n=problem.gold)
        examples.append(example(start, f"\\boxed{{{problem.gold}}}", problem))
    with open_editor(config(translate=True, summarise=True), None, progress=Progress()) as editor:
        kept, dropped = taught(editor, examples, translate=True, summarise=True)
    assert dropped == {}
    for made, problem in zip(kept, problems, strict=True):
        assert made.thinking == bilingual.STARTS[problem.language][0].format(n=problem.gold)
        assert made.summary == bilingual.summarise(problem, problem.gold)
    with pytest.raises(ConfigError, match="knows its own task alone, not t/0#0"):
        BilingualEditor().edit(Operation.TRANSLATE, [example()])
    with pytest.raises(ConfigError, match="cannot rewrite"):
        BilingualEditor().edit(Operation.REWRITE, examples)


def test_a_teacher_is_a_program_or_a_model_and_does_something() -> None:
    model = TeacherConfig(base_url="http://127.0.0.1:1/v1/", model="m")
    assert model.base_url == "http://127.0.0.1:1/v1"
    for values in ({}, {"name": "bilingual", "endpoint": model}):
        with pytest.raises(ValueError, match="either name, a program, or endpoint"):
            EditorConfig(**values, rewrite=True)
    with pytest.raises(ValueError, match="set rewrite, translate or summarise"):
        EditorConfig(name="bilingual")
    with pytest.raises(ValueError, match="must start with http"):
        TeacherConfig(base_url="localhost:8000", model="m")
    unknown = EditorConfig(name="bilingul", rewrite=True)
    with (
        pytest.raises(ConfigError, match="unknown teacher 'bilingul': did you mean 'bilingual'"),
        open_editor(unknown, None, progress=Progress()),
    ):
        pass
