import pytest
import tokenizers
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from pellucid.errors import ConfigError
from pellucid.rewards.table import GRADERS
from pellucid.tasks.templates import FREE_FORM, TEMPLATES, Template, get_template

QUESTION = "If f(x) = {x}, what is 2 + 2? Naïve — 答案 {question}"


class ByteTokenizer:
    """A byte-level BPE with merges and a ChatML template: what real models have, in small."""

    def __init__(self, chat_template: str | None = "chatml") -> None:
        self.chat_template = chat_template
        self.backend = tokenizers.Tokenizer(BPE())
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.backend.decoder = decoders.ByteLevel()
        trainer = BpeTrainer(
            vocab_size=400,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|im_start|>", "<|im_end|>"],
        )
        self.backend.train_from_iterator([t.text for t in TEMPLATES.values()], trainer)
        self.eos_ids = (self.backend.token_to_id("<|im_end|>"),)

    def encode(self, text):
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def chat(self, messages, add_generation_prompt=True):
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return turns + ("<|im_start|>assistant\n" if add_generation_prompt else "")


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer()


def test_r1_zero_is_the_papers_text(tokenizer):
    assert get_template("r1-zero").render("What is 2 + 2?", tokenizer) == (
        "A conversation between User and Assistant. The User asks a question and the Assistant "
        "solves it. The Assistant first thinks about the reasoning process in the mind and then "
        "provides the User with the answer. The reasoning process and answer are enclosed within "
        "<think>...</think> and <answer>...</answer> tags, respectively, that is, <think> "
        "reasoning process here </think> <answer> answer here </answer>. User: What is 2 + 2? "
        "Assistant:"
    )


def test_the_boxed_form_changes_only_what_it_says_about_the_answer(tokenizer):
    plain = get_template("r1-zero").render("Q?", tokenizer)
    boxed = get_template("r1-zero-boxed").render("Q?", tokenizer)
    head, _, tail = plain.partition("<answer> answer here </answer>.")
    assert boxed.startswith(head + "<answer> \\boxed{answer here} </answer>.")
    assert boxed.endswith(tail)


def test_the_thinking_form_writes_the_opening_tag_for_the_model(tokenizer):
    template = get_template("r1-zero-think")
    assert template.render("Q?", tokenizer).endswith(" User: Q? Assistant: <think>")
    assert template.response(" 4</think>") == "<think> 4</think>"


def test_chat_forms_ask_as_the_user(tokenizer):
    assert get_template("chat").render("Q?", tokenizer) == (
        "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert get_template("chat-boxed").render("Q?", tokenizer) == (
        "<|im_start|>user\nQ?\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (
        get_template("r1-chat").render("Q?", tokenizer).endswith("<|im_start|>assistant\n<think>\n")
    )


@pytest.mark.parametrize("grader", sorted(FREE_FORM))
def test_no_box_is_asked_for_where_the_grader_reads_none(grader, tokenizer):
    assert grader in GRADERS
    for name in TEMPLATES:
        assert "boxed" not in get_template(name).render("Q?", tokenizer, grader=grader)
    pairs = {"r1-zero-boxed": "r1-zero", "chat-boxed": "chat"}
    for name, bare in pairs.items():
        asked = get_template(name).prompt_ids("Q?", tokenizer, grader=grader)
        assert asked == get_template(bare).prompt_ids("Q?", tokenizer)
    thought = get_template("r1-chat").render("Q?", tokenizer, grader=grader)
    assert thought == get_template("chat").render("Q?", tokenizer) + "<think>\n"


@pytest.mark.parametrize("grader", sorted(GRADERS.keys() - FREE_FORM))
def test_all_other_problems_are_asked_alike(grader, tokenizer):
    for name in TEMPLATES:
        template = get_template(name)
        assert template.render("Q?", tokenizer, grader=grader) == template.render("Q?", tokenizer)


def test_thinking_that_the_chat_template_opens_is_not_opened_twice():
    class Opening(ByteTokenizer):
        def chat(self, messages, add_generation_prompt=True):
            return super().chat(messages, add_generation_prompt) + "<think>\n"

    template = get_template("r1-chat")
    rendered = template.render("Q?", Opening())
    assert rendered.count("<think>\n") == 1
    assert template.response("4</think>") == "<think>\n4</think>"


def test_a_missing_chat_template_names_the_way_out():
    with pytest.raises(ConfigError, match=r"'chat' needs a chat template .* 'r1-zero'"):
        get_template("chat").render("Q?", ByteTokenizer(chat_template=None))


def test_an_unknown_template_is_answered_with_the_nearest():
    with pytest.raises(
        ConfigError, match="unknown template 'r1-zero-boxd': did you mean 'r1-zero-boxed'"
    ):
        get_template("r1-zero-boxd")


def test_the_r1_zero_family_stops_after_the_answer():
    family = [name for name in TEMPLATES if name.startswith("r1-zero")] + ["tiny"]
    assert {TEMPLATES[name].stop for name in family} == {("</answer>",)}


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_a_question_enters_unchanged_whatever_it_contains(name, tokenizer):
    rendered = TEMPLATES[name].render(QUESTION, tokenizer)
    assert rendered.count(QUESTION) == 1


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_prompt_tokens_and_completion_tokens_decode_to_prompt_and_completion(name, tokenizer):
    template: Template = TEMPLATES[name]
    text = template.render(QUESTION, tokenizer)
    prompt = template.prompt_ids(QUESTION, tokenizer)
    assert tokenizer.decode(prompt) == text
    assert tuple(tokenizer.encode(tokenizer.decode(prompt))) == prompt
    completion = tokenizer.encode(" reasoning</think> <answer> 4 </answer>")
    # Sampled ids are appended as they are: nothing merges across the boundary.
    assert tokenizer.decode([*prompt, *completion]) == text + tokenizer.decode(completion)
    assert text.endswith(template.prefill)
