"""From a zero model's answer to the next stage's prompt, under a chat template as Qwen has it: what
would go wrong without a word."""

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from pellucid.curate.candidate import make_candidate
from pellucid.curate.example import make_examples
from pellucid.curate.general import GeneralRow, to_example
from pellucid.curate.untagged import tell_apart
from pellucid.data.readers import read_arc, read_mbpp, read_mgsm
from pellucid.model.tokenizer import TextTokenizer
from pellucid.pipeline.sft_stage import tokenize
from pellucid.records import Completion, Problem, Score, StopReason, Verdict
from pellucid.rewards.language import language_reward
from pellucid.rewards.table import GRADERS
from pellucid.tasks.templates import TEMPLATES

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZERO, CHAT = TEMPLATES["r1-zero-boxed"], TEMPLATES["r1-chat"]
ASKED = "Please reason step by step, and put your final answer within \\boxed{}."


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={text: i for i, text in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    settings = {"eos_token": "<|endoftext|>"}  # as Qwen's: turns end otherwise
    return TextTokenizer(backend, eos_ids=(0, 2), chat_template=CHATML, settings=settings)


def text_of(tokenizer: TextTokenizer, ids) -> str:
    return tokenizer.backend.decode(list(ids), skip_special_tokens=False)


def prompt(tokenizer: TextTokenizer, problem: Problem) -> str:
    return CHAT.render(problem.question, tokenizer, grader=problem.grader)


MATH = Problem(id="g/0", question="16 - 3 = ?", gold="13", grader="math")


@pytest.mark.parametrize(
    ("response", "thinking", "summary"),
    [
        (" <think> 3 off 16 </think> <answer> 13 </answer>", "3 off 16", "\\boxed{13}"),
        (
            " <think> 3 off 16 </think> <answer> She keeps \\boxed{13}. </answer>",
            "3 off 16",
            "She keeps \\boxed{13}.",
        ),
        (
            " 3 off 16.\n\nSo it is:\n\\[\\boxed{13}\\]",
            "3 off 16.",
            "So it is:\n\\[\\boxed{13}\\]",
        ),
    ],
)
def test_a_zero_models_answer_is_learnt_as_the_next_stage_is_asked(
    tokenizer, response, thinking, summary
) -> None:
    completion = Completion(
        sample_id=0, token_ids=(9,), logprobs=(0.0,), stop=StopReason.STOP_STRING, text=response
    )
    candidate = make_candidate(MATH, 0, completion, response, Score(verdict=Verdict.CORRECT))
    told = tell_apart([candidate], ZERO)
    [example] = make_examples(told.candidates, ZERO, CHAT, rewritten=told.rewritten).examples
    assert (example.thinking, example.summary) == (thinking, summary)
    assert GRADERS["math"](MATH, example.response).verdict is Verdict.CORRECT
    [learnt] = tokenize([example], CHAT, tokenizer).examples
    assert learnt.prompt_ids == CHAT.prompt_ids(MATH.question, tokenizer, grader="math")
    asked = text_of(tokenizer, learnt.prompt_ids)
    assert asked.endswith(f"{ASKED}<|im_end|>\n<|im_start|>assistant\n<think>\n")
    assert asked.count("<think>") == 1
    answer = text_of(tokenizer, learnt.completion_ids)
    assert answer == f"{thinking}\n</think>\n\n{summary}<|im_end|>"


def test_a_program_is_asked_for_in_a_code_block_and_learnt_so(tokenizer) -> None:
    row = read_mbpp(
        {
            "text": "Add.",
            "code": "",
            "task_id": 700,
            "test_setup_code": "",
            "test_list": ["assert add(1, 2) == 3"] * 3,
        }
    )
    problem = Problem(id="m/0", question=row.question, gold=row.gold, grader="code")
    assert "boxed" not in prompt(tokenizer, problem)
    assert "code block" in prompt(tokenizer, problem)
    response = "<think>\nsum\n</think>\n\n```python\ndef add(a, b):\n    return a + b\n```"
    completion = Completion(
        sample_id=0,
        token_ids=(*tokenizer.encode(response.removeprefix("<think>\n")), 2),
        logprobs=(0.0,),
        stop=StopReason.EOS,
        text=response,
    )
    candidate = make_candidate(problem, 0, completion, response, Score(verdict=Verdict.CORRECT))
    made = tokenize(make_examples([candidate], CHAT, CHAT).examples, CHAT, tokenizer)
    assert made.num_as_sampled == 1
    assert text_of(tokenizer, made.examples[0].prompt_ids) == prompt(tokenizer, problem)
    assert made.examples[0].completion_ids == completion.token_ids


def test_a_choice_is_a_letter_in_a_box(tokenizer) -> None:
    choices = [{"label": label, "text": text} for label, text in zip("1234", "wxyz", strict=True)]
    row = read_arc({"question": {"stem": "Which?", "choices": choices}, "answerKey": "2"})
    problem = Problem(id="a/0", question=row.question, gold=row.gold, grader="choice")
    assert prompt(tokenizer, problem).count(ASKED) == 1
    assert "D. z\nThe answer is the letter" in prompt(tokenizer, problem)
    verdicts = [
        GRADERS["choice"](problem, f"<think>\nA?\n</think>\n\nIt is \\boxed{{{letter}}}.").verdict
        for letter in "AB"
    ]
    assert verdicts == [Verdict.WRONG, Verdict.CORRECT]


def test_chinese_questions_are_graded_and_their_thinking_is_told_by_script(tokenizer) -> None:
    row = read_mgsm({"fields": ["十六减三是多少？", "13"], "file": "mgsm_zh.tsv"})
    problem = Problem(
        id="z/0", question=row.question, gold=row.gold, grader="math", language=row.language
    )
    assert "十六减三是多少？" in prompt(tokenizer, problem)
    mixed = "<think>\n十六减三 minus three\n</think>\n\n答案是 \\boxed{13}"
    assert GRADERS["math"](problem, mixed).verdict is Verdict.CORRECT
    assert language_reward(mixed, problem.language) == pytest.approx(4 / 6)
    # The summary is not looked at, nor what the prompt asks in English.
    assert language_reward(mixed.replace("答案是", "It is"), "zh") == pytest.approx(4 / 6)


def test_general_rows_are_bare_messages(tokenizer) -> None:
    example = to_example(GeneralRow(id="d/0", prompt="Who?", response="Me."), CHAT)
    [learnt] = tokenize([example], CHAT, tokenizer).examples
    assert text_of(tokenizer, learnt.prompt_ids) == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert text_of(tokenizer, learnt.completion_ids) == "\n</think>\n\nMe.<|im_end|>"
