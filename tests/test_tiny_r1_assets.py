"""The bilingual base and its student: what they have read and what they have not."""

import importlib.util
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pellucid.config import ModelConfig
from pellucid.model.attention import PackedCausal
from pellucid.model.load import LoadedModel, load_model
from pellucid.rewards.language import language_share
from pellucid.tasks import bilingual, chain, smalltalk
from pellucid.tasks.templates import get_template

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny-r1-base"
NAMES = ("tiny-r1-base", "tiny-r1-student")
MAX_NEW_TOKENS = 96
"""The most that a stage of recipes/r1-tiny samples."""


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_r1_base_corpus", RECIPE / "corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(corpus: ModuleType) -> list[str]:
    return list(itertools.islice(corpus.pages(0), 3000))


def test_base_and_student_share_one_tokenizer() -> None:
    base, student = (_load(name).path / "tokenizer.json" for name in NAMES)
    assert base.read_bytes() == student.read_bytes()


@pytest.mark.parametrize("template", ["tiny", "tiny-r1"])
def test_the_longest_prompt_and_completion_fit_the_context(template: str) -> None:
    loaded = _load("tiny-r1-base")
    problems = [p for split in chain.SPLITS for p in bilingual.problems(split, 1000)]
    problems += smalltalk.helpful_problems("train", 1000) + smalltalk.safety_problems("train", 1000)
    longest = max(
        len(get_template(template).prompt_ids(p.question, loaded.tokenizer)) for p in problems
    )
    assert longest + MAX_NEW_TOKENS <= loaded.model.spec.max_context


@pytest.mark.parametrize("template", ["tiny", "tiny-r1"])
def test_prompt_and_sampled_tokens_stay_what_they_are_when_joined(template: str) -> None:
    tokenizer = _load("tiny-r1-base").tokenizer
    chosen = get_template(template)
    for problem in bilingual.problems("test", 20):
        prompt = chosen.prompt_ids(problem.question, tokenizer)
        assert tokenizer.decode(prompt) == chosen.render(problem.question, tokenizer)
        sampled = tokenizer.encode(" Сначала 7, a) add 5: 12.\n</think>\n\nYou get \\boxed{12}.")
        whole = tokenizer.decode([*prompt, *sampled])
        assert whole == tokenizer.decode(prompt) + tokenizer.decode(sampled)


@pytest.mark.parametrize("language", bilingual.LANGUAGES)
def test_the_base_can_calculate_in_both_languages(language: str) -> None:
    """A right thought is far likelier than one whose results are off by one."""
    told = chain.Chain(
        values=(7, 12, 24, 21),
        steps=(
            chain.Step(kind="add", operand=5),
            chain.Step(kind="double", operand=2),
            chain.Step(kind="take", operand=3),
        ),
    )
    right = bilingual.think(told, (language,) * 4, 0)
    wrong = right.replace(": 12", ": 13").replace(": 24", ": 25").replace(": 21", ": 20")
    loaded = _load("tiny-r1-base")
    assert _logprob(loaded, right) > _logprob(loaded, wrong) + 5


def test_pages_hold_no_demo_prompt_and_no_held_out_sequence_in_either_language(
    pages: list[str],
) -> None:
    preamble = get_template("tiny").text.split("\n")[0]
    held_out, train = _patterns("test"), _patterns("train")
    lines = [line for page in pages for line in page.splitlines()]

    assert not any(preamble in page for page in pages)
    assert not any(_phrases(line) in held_out for line in lines)
    assert sum(_phrases(line) in train for line in lines) > 500


def test_pages_hold_no_held_out_small_talk(pages: list[str]) -> None:
    asked = {line.partition(" ")[2] for page in pages for line in page.splitlines()}
    held_out, train = (
        {a.prompt for harmful in (False, True) for a in smalltalk.prompts(split, harmful=harmful)}
        for split in ("test", "train")
    )
    assert not asked & held_out
    assert len(asked & train) > 100


def test_outside_textbooks_mixed_thoughts_are_right_and_those_in_one_language_often_not(
    corpus: ModuleType,
) -> None:
    """The bias that turns accuracy alone towards mixing."""
    right: dict[bool, list[bool]] = {True: [], False: []}
    tagged = (p for p in corpus.pages(1) if "</" in p and re.search(r"\), | a\) ", p))
    for page in itertools.islice(tagged, 3000):
        for thought in re.findall(r"[A-ZА-Я][^<>:.?]*\d, a\) [^<>.?]*: \d+\.", page):
            share = language_share(thought, "en")
            right[0.0 < share < 1.0].append(_is_right(thought))

    assert sum(right[True]) > 0.95 * len(right[True]) > 100
    assert sum(right[False]) < 0.80 * len(right[False])


def test_pages_are_the_same_for_the_same_seed(corpus: ModuleType) -> None:
    first, again, other = (list(itertools.islice(corpus.pages(s), 50)) for s in (3, 3, 4))
    assert first == again != other


def _load(name: str) -> LoadedModel:
    return load_model(ModelConfig(id=name), dtype=torch.float32, device="cpu")


def _logprob(loaded: LoadedModel, text: str) -> float:
    ids = torch.tensor(loaded.tokenizer.encode(text))
    attend = PackedCausal(torch.tensor([len(ids)]))
    loaded.model.reserve_context(len(ids))
    with torch.no_grad():
        logits = loaded.model.head(loaded.model(ids, attend))
    return float(logits.log_softmax(-1)[:-1].gather(1, ids[1:, None]).sum())


def _is_right(thought: str) -> bool:
    """Whether every value of a thought follows from the one before."""
    start, _, rest = thought.partition(", a) ")
    value = int(start.split()[-1])
    for step in re.split(r", [b-d]\) ", rest.rstrip(".")):
        said, _, result = step.rpartition(": ")
        by = int((re.findall(r"\d+", said) or ["0"])[0])
        kind = next(
            kind
            for kind in chain.KINDS
            for phrases in bilingual.SPOKEN.values()
            if said == phrases[kind].format(n=by)
        )
        operand = {"double": 2, "triple": 3, "halve": 2}.get(kind, by)
        if chain.Step(kind=kind, operand=operand).apply(value) != int(result):
            return False
        value = int(result)
    return True


def _patterns(split: str) -> set[str]:
    """Every structure of a split as `_phrases` reads it."""
    return {
        ", ".join(wording.phrases[kind].format(n="#") for kind in sequence)
        for sequence in chain.sequences(split)
        for wordings in bilingual.WORDINGS.values()
        for wording in wordings
    }


def _phrases(line: str) -> str:
    """The steps of a question with `#` for their numbers; what stands around them cut off."""
    told = line.rpartition(". ")[0]
    steps = re.split(r"[,:] [a-d]\) ", told)[1:]
    return ", ".join(_blank(step) for step in steps)


def _blank(step: str) -> str:
    fixed = {
        wording.phrases[kind]
        for wordings in bilingual.WORDINGS.values()
        for wording in wordings
        for kind in ("double", "triple", "halve")
    }
    return step if step in fixed else re.sub(r"\d", "#", step)
