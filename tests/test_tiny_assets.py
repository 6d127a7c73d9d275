"""The embedded models: small enough to ship, whole, and strangers to what the demos test."""

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pellucid.config import ModelConfig
from pellucid.model.attention import PackedCausal
from pellucid.model.load import ASSETS, EMBEDDED, load_model
from pellucid.tasks import chain
from pellucid.tasks.templates import get_template

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny-base"


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_base_corpus", RECIPE / "corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_folder_takes_at_most_4_megabytes_and_the_model_at_most_2_million_parameters(
    name: str,
) -> None:
    assert sum(f.stat().st_size for f in (ASSETS / name).iterdir()) <= 4_000_000
    loaded = load_model(ModelConfig(id=name), dtype=torch.float32, device="cpu")
    assert sum(p.numel() for p in loaded.model.parameters()) <= 2_000_000


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_tokenizer_gives_any_text_back(name: str) -> None:
    tokenizer = load_model(ModelConfig(id=name), dtype=torch.float32, device="cpu").tokenizer
    text = "".join(map(chr, range(32, 127))) + " \n\té 数 щ <think> 42</answer>"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_longest_prompt_and_completion_fit_the_context() -> None:
    loaded = load_model(ModelConfig(), dtype=torch.float32, device="cpu")
    template = get_template("tiny")
    longest = max(
        len(template.prompt_ids(p.question, loaded.tokenizer))
        for split in chain.SPLITS
        for p in chain.problems(split, 1000)
    )
    assert longest + 128 <= loaded.model.spec.max_context


def test_the_model_can_add(corpus: ModuleType) -> None:
    """A careful page of the corpus is far likelier than one whose result is off by one."""
    loaded = load_model(ModelConfig(), dtype=torch.float32, device="cpu")
    assert (
        _logprob(loaded, "12+5=17, 17-3=14, 7*2=14")
        > _logprob(loaded, "12+5=18, 17-3=15, 7*2=15") + 5
    )


def _logprob(loaded: object, text: str) -> float:
    ids = torch.tensor(loaded.tokenizer.encode(text))
    attend = PackedCausal(torch.tensor([len(ids)]))
    loaded.model.reserve_context(len(ids))
    with torch.no_grad():
        logits = loaded.model.head(loaded.model(ids, attend))
    return float(logits.log_softmax(-1)[:-1].gather(1, ids[1:, None]).sum())


def test_pages_hold_neither_the_demo_prompt_nor_a_held_out_sequence(corpus: ModuleType) -> None:
    preamble = get_template("tiny").text.split("\n")[0]
    held_out = _patterns("test")
    pages = list(itertools.islice(corpus.pages(0), 3000))
    assert not any(preamble in page for page in pages)
    assert not any(_phrases(line) in held_out for page in pages for line in page.splitlines())
    train = _patterns("train")
    assert sum(_phrases(line) in train for page in pages for line in page.splitlines()) > 500


def test_the_demo_format_is_rare_in_the_pages(corpus: ModuleType) -> None:
    pages = list(itertools.islice(corpus.pages(0), 3000))
    both = [p for p in pages if "</think> <answer>" in p and "<think>" in p]
    assert 0 < len(both) < 0.05 * len(pages)


def test_pages_are_the_same_for_the_same_seed(corpus: ModuleType) -> None:
    first, again, other = (list(itertools.islice(corpus.pages(s), 50)) for s in (3, 3, 4))
    assert first == again != other


def _patterns(split: str) -> set[str]:
    """Every structure of a split as `_phrases` reads it."""
    return {
        ", ".join(["", *(wording.phrases[kind].format(n="#") for kind in sequence)])
        for sequence in chain.sequences(split)
        for wording in chain.WORDINGS
    }


def _phrases(line: str) -> str:
    """The steps of a question with `#` for their numbers; its opening and closing cut off."""
    told = line.rpartition(". ")[0]
    steps = told.split(", ")[1:]
    return ", ".join(["", *(_blank(step) for step in steps)])


def _blank(step: str) -> str:
    fixed = ("times 2", "times 3", "divided by 2", "x * 2", "x * 3", "x / 2")
    return step if step in fixed else "".join("#" if c.isdigit() else c for c in step)
