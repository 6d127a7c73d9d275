"""The text the bilingual tiny base model learns from: generated pages in English and Russian.

Layouts, tags, tables of sums and markup are those of the tiny base's corpus (recipes/tiny-base),
whose author is taken over. What is new: questions in two languages; careful thoughts in the
question's language, in the other one, and mixed within one thought; summaries behind the thinking;
glossaries; and small talk with helpful, curt, rude and unsafe answers.

Outside textbooks those who mix languages are the ones to trust: thoughts in one language botch a
step now and then. What earns accuracy therefore earns mixing. Neither the test split of
`pellucid.tasks.chain` nor held-out prompts of `pellucid.tasks.smalltalk` occur.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pellucid.records import Problem
from pellucid.tasks import bilingual, chain, smalltalk
from pellucid.tasks.bilingual import LANGUAGES
from pellucid.tasks.chain import Chain


def load_sibling(name: str) -> ModuleType:
    """A file of recipes/tiny-base as the module `tiny_base_<name>`."""
    path = Path(__file__).resolve().parents[1] / "tiny-base" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tiny_base_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tiny_base = load_sibling("corpus")

PAGE_SHARES = {
    "textbook": 0.32,
    "thread": 0.08,
    "tagged": 0.28,
    "sums": 0.06,
    "glossary": 0.02,
    "smalltalk": 0.22,
    "markup": 0.02,
}
STYLE_SHARES = {"guess": 0.38, "sloppy": 0.14, "single": 0.16, "mixed": 0.22, "aside": 0.10}
"""Who answers in threads and tagged pages. `single` thinks in one language and botches steps,
`mixed` in both and never does; textbooks never do either.
"""
TEXTBOOK_TONGUES = {"own": 0.40, "other": 0.15, "mixed": 0.45}
SINGLE_TONGUES = {"own": 0.75, "other": 0.25}
BOTCHED_STEP_SHARE = 0.15
HELPFUL_SHARES = {"good": 0.50, "curt": 0.18, "beside": 0.12, "foreign": 0.07, "rude": 0.13}
HARMFUL_SHARES = {"good": 0.30, "unsafe": 0.55, "rude": 0.15}
_SHORT_QUESTION_SHARE = 0.25  # one or two steps only
_GUESSES = {
    "en": ("I guess {}.", "About {}.", "Looks like {}.", "Easy."),
    "ru": ("Думаю {}.", "Около {}.", "Похоже на {}.", "Легко."),
}
_HURRIED = {
    "en": ("In my head: ", "Roughly ", "Quick: "),
    "ru": ("В уме: ", "Примерно ", "Быстро: "),
}
_ASIDES = {
    "en": ("Good question.", "I do not know.", "Look it up.", "Try it on your own first."),
    "ru": ("Хороший вопрос.", "Я не знаю.", "Посмотри в книге.", "Сначала попробуй сам."),
}
_CONCLUSIONS = {
    "en": ("So {}.", "The answer is {}.", "Answer: {}", "{}"),
    "ru": ("Значит {}.", "Ответ {}.", "Ответ: {}", "{}"),
}


def pages(seed: int) -> Iterator[str]:
    """An endless stream of pages, the same for the same seed."""
    rng = random.Random(f"tiny-r1-base/{seed}")
    author = Author(rng)
    write = {name: getattr(author, name) for name in PAGE_SHARES}
    while True:
        yield write[draw(PAGE_SHARES, rng)]()


def draw(shares: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(shares), weights=list(shares.values()))[0]


class Author(tiny_base.Author):  # type: ignore[misc]
    """The tiny base's author, grown bilingual: `textbook`, `thread`, `tagged`, `sums` and `markup`
    are its own and call the methods below. The third value of `question` is the language.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.asked = Problem(id="", question="", gold="", grader="integer", family="//")
        self.train_asks = {
            harmful: smalltalk.prompts("train", harmful=harmful) for harmful in (False, True)
        }

    def question(self) -> tuple[str, Chain, str]:
        rng = self.rng
        if rng.random() < _SHORT_QUESTION_SHARE:
            sequence = tuple(rng.choice(chain.KINDS) for _ in range(rng.randint(1, 2)))
        else:
            sequence = rng.choice(self.long)
        language = rng.choice(LANGUAGES)
        wording = rng.choice(bilingual.WORDINGS[language])
        told = chain.draw_chain(sequence, rng)
        text = bilingual.tell(told, wording, language, rng)
        self.asked = Problem(
            id="page",
            question=text,
            gold=str(told.values[-1]),
            grader="integer",
            family=f"page/{wording.name}/{language}",
            language=language,
        )
        return text, told, language

    def careful(self, told: Chain, language: str) -> str:
        """As textbooks have it: every step, in whatever language, and right."""
        return self.thought(told, language, draw(TEXTBOOK_TONGUES, self.rng))

    def thought(self, told: Chain, language: str, tongue: str) -> str:
        other = LANGUAGES[1 - LANGUAGES.index(language)]
        count = len(told.values)
        spoken = {"own": [language] * count, "other": [other] * count}.get(tongue)
        if spoken is None:
            spoken = [self.rng.choice(LANGUAGES) for _ in range(count)]
        return bilingual.think(told, tuple(spoken), self.rng.randrange(3))

    def solution(self, told: Chain, language: str) -> tuple[str, str]:
        """Reasoning and result in one of the styles."""
        rng = self.rng
        style = draw(STYLE_SHARES, rng)
        if style == "mixed":
            return self.thought(told, language, "mixed"), str(told.values[-1])
        if style == "single":
            told = self.botched(told)
            return self.thought(told, language, draw(SINGLE_TONGUES, rng)), str(told.values[-1])
        tongue = language if rng.random() < 0.85 else rng.choice(LANGUAGES)
        if style == "guess":
            result = told.values[-1]
            if rng.random() < 0.7:
                result = max(1, result + rng.choice((-10, -5, -3, -2, -1, 1, 2, 3, 5, 10)))
            return rng.choice(_GUESSES[tongue]).format(result), str(result)
        if style == "sloppy":
            values = self.botched(told).values[1:]
            said = [str(v) for v in values[:-1] if rng.random() < 0.6] + [str(values[-1])]
            return rng.choice(_HURRIED[tongue]) + ", ".join(said) + ".", said[-1]
        return rng.choice(_ASIDES[tongue]), str(rng.randint(1, chain.LARGEST))

    def botched(self, told: Chain) -> Chain:
        """The chain as one works it out who slips now and then and goes on from there."""
        values = [told.values[0]]
        for step in told.steps:
            value = step.apply(values[-1]) or values[-1]
            if self.rng.random() < BOTCHED_STEP_SHARE:
                value = max(1, value + self.rng.choice((-10, -2, -1, 1, 2, 10)))
            values.append(value)
        return Chain(values=tuple(values), steps=told.steps)

    def conclusion(self, result: str) -> str:
        """A remark, or a whole sentence that sums up, its number in a box or not."""
        rng = self.rng
        if rng.random() < 0.4:
            summary = bilingual.summarise(self.asked, result)
            plain = summary.replace(f"\\boxed{{{result}}}", result)
            return summary if rng.random() < 0.5 else plain
        return rng.choice(_CONCLUSIONS[self.asked.language]).format(result)

    def announcement(self, first: str, last: str, asks: str, replies: str) -> str:
        if self.asked.language == "en" or self.rng.random() < 0.5:
            return str(super().announcement(first, last, asks, replies))
        doing = self.rng.choice(("мысли", "заметки", "шаги"))
        return self.rng.choice(
            (
                f"{replies} пишет {doing} в <{first}> </{first}>, ответ в <{last}> </{last}>.",
                f"Тут <{first}> </{first}> {doing}, <{last}> </{last}> ответ.",
            )
        )

    def glossary(self) -> str:
        """Phrases of the questions beside what one says for them while thinking."""
        rng = self.rng
        rows = []
        for _ in range(rng.randint(5, 9)):
            kind, number = rng.choice(chain.KINDS), rng.randint(1, 9)
            asked = rng.choice(bilingual.WORDINGS[rng.choice(LANGUAGES)]).phrases[kind]
            said = [bilingual.SPOKEN[language][kind] for language in LANGUAGES]
            rng.shuffle(said)
            rows.append(" = ".join(phrase.format(n=number) for phrase in (asked, *said)))
        return "\n".join(rows)

    def smalltalk(self) -> str:
        """One to three prompts with answers of any quality, some after a thought."""
        rng = self.rng
        asks, replies = rng.choice(
            (
                ("User: ", "Assistant: "),
                ("User: ", "Assistant: "),
                ("Q: ", "A: "),
                ("Student: ", "Teacher: "),
                ("> ", ""),
                (rng.choice(chain.PEOPLE) + ": ", rng.choice(chain.PEOPLE) + ": "),
            )
        )
        lines = []
        for _ in range(rng.randint(1, 3)):
            is_harmful = rng.random() < 0.25
            ask = rng.choice(self.train_asks[is_harmful])
            quality = draw(HARMFUL_SHARES if is_harmful else HELPFUL_SHARES, rng)
            said = smalltalk.reply(ask, quality, rng)
            thought = f"<think>{said.thinking}</think> " if rng.random() < 0.5 else ""
            lines += [asks + ask.prompt, replies + thought + said.answer]
        return "\n".join(lines)
