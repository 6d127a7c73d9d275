"""Curated examples as a model learns them."""

import tokenizers
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from pellucid.curate.example import CuratedExample
from pellucid.model.tokenizer import TextTokenizer
from pellucid.pipeline.sft_stage import tokenize
from pellucid.tasks.templates import TEMPLATES

ALPHABET = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]


def tokenizer() -> TextTokenizer:
    vocabulary = {text: index for index, text in enumerate(ALPHABET)}
    backend = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=[("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return TextTokenizer(backend, eos_ids=(0,), settings={"eos_token": "<eos>"})


def example(response: str, ids: tuple[int, ...] | None) -> CuratedExample:
    return CuratedExample(
        id="t/0#0",
        kind="reasoning",
        prompt="Q?",
        thinking="",
        summary="",
        response=response,
        template="r1-zero-think",
        token_ids=ids,
    )


def test_sampled_tokens_are_learnt_unless_they_spell_another_text() -> None:
    words, template = tokenizer(), TEMPLATES["r1-zero-think"]
    t, h, joint = (ALPHABET.index(text) for text in ("t", "h", "th"))
    assert words.encode("th") == [joint]
    made = tokenize(
        [
            example("<think>th", (t, h)),
            example("<think>th", (t, h, 0)),
            example("<think>th", None),
            example("<think>th", (t, h, h)),  # a token went on behind the stop string
        ],
        template,
        words,
    )
    assert [e.completion_ids for e in made.examples] == [
        (t, h, 0),
        (t, h, 0),
        (joint, 0),
        (joint, 0),
    ]
    assert made.num_as_sampled == 2
    prompt = template.prompt_ids("Q?", words)
    assert {e.prompt_ids for e in made.examples} == {prompt}
