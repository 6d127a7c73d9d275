"""Chains of small operations asked in English or Russian, which may be thought in either.

    Tom has 19 apples: a) finds 5 more, b) gives half away. How many apples now?
    У Тома яблок: 19, a) находит ещё 5, b) отдаёт половину. Сколько теперь яблок?

The letters tell the steps apart in any language, so that a thought may say one step in English and
the next in Russian: the scripts show which. Chains, their splits and the range of their values are
those of `pellucid.tasks.chain`: a sequence of operations held out there occurs here in neither
language among the training problems.
"""

from __future__ import annotations

import itertools
import random

from pellucid.errors import ConfigError
from pellucid.records import Problem
from pellucid.tasks import chain
from pellucid.tasks.chain import Chain, Kind, Wording

LANGUAGES = ("en", "ru")
_MARKERS = "abcd"

WORDINGS: dict[str, tuple[Wording, ...]] = {
    "en": (
        Wording(
            name="plain",
            opening="Start with {n}",
            phrases={
                "add": "put {n} to it",
                "take": "take away {n}",
                "double": "times 2",
                "triple": "times 3",
                "halve": "cut it in half",
            },
            closing="What do you get?",
        ),
        Wording(
            name="things",
            opening="{who} has {n} {what}",
            phrases={
                "add": "finds {n} more",
                "take": "loses {n}",
                "double": "doubles them",
                "triple": "triples them",
                "halve": "gives half away",
            },
            closing="How many {what} now?",
        ),
        Wording(
            name="number",
            opening="{who} thinks of {n}",
            phrases={
                "add": "plus {n}",
                "take": "minus {n}",
                "double": "multiplied by 2",
                "triple": "multiplied by 3",
                "halve": "divided by 2",
            },
            closing="What is the result?",
        ),
        Wording(
            name="bus",
            opening="A bus has {n} people",
            phrases={
                "add": "{n} get on",
                "take": "{n} get off",
                "double": "the number doubles",
                "triple": "the number triples",
                "halve": "half get off",
            },
            closing="How many people?",
        ),
        Wording(
            name="price",
            opening="The price of {what} is {n}",
            phrases={
                "add": "goes up by {n}",
                "take": "drops by {n}",
                "double": "grows to double",
                "triple": "grows to triple",
                "halve": "falls to half",
            },
            closing="What is the price?",
        ),
    ),
    "ru": (
        Wording(
            name="plain",
            opening="Возьми {n}",
            phrases={
                "add": "добавь {n}",
                "take": "вычти {n}",
                "double": "умножь на 2",
                "triple": "умножь на 3",
                "halve": "раздели пополам",
            },
            closing="Сколько получится?",
        ),
        Wording(
            name="things",
            opening="У {whose} {what}: {n}",
            phrases={
                "add": "находит ещё {n}",
                "take": "теряет {n}",
                "double": "удваивает их",
                "triple": "утраивает их",
                "halve": "отдаёт половину",
            },
            closing="Сколько теперь {what}?",
        ),
        Wording(
            name="number",
            opening="{who} загадывает {n}",
            phrases={
                "add": "плюс {n}",
                "take": "минус {n}",
                "double": "дважды",
                "triple": "трижды",
                "halve": "делить на 2",
            },
            closing="Каков результат?",
        ),
        Wording(
            name="bus",
            opening="В автобусе людей: {n}",
            phrases={
                "add": "входят {n}",
                "take": "выходят {n}",
                "double": "число удваивается",
                "triple": "число утраивается",
                "halve": "половина выходит",
            },
            closing="Сколько людей?",
        ),
        Wording(
            name="price",
            opening="Цена {what}: {n}",
            phrases={
                "add": "растёт на {n}",
                "take": "падает на {n}",
                "double": "растёт вдвое",
                "triple": "растёт втрое",
                "halve": "падает вдвое",
            },
            closing="Какова цена?",
        ),
    ),
}
"""How a chain is told; `{whose}` and `{what}` are in the case that Russian asks for."""

PEOPLE = {
    "en": (("Tom",) * 2, ("Anna",) * 2, ("Ben",) * 2, ("Mia",) * 2, ("Max",) * 2, ("Eva",) * 2),
    "ru": (
        ("Том", "Тома"),
        ("Анна", "Анны"),
        ("Бен", "Бена"),
        ("Мия", "Мии"),
        ("Макс", "Макса"),
        ("Ева", "Евы"),
    ),
}
"""Who, and whose."""
THINGS = {
    "en": ("apples", "books", "cards", "coins", "eggs", "nuts"),
    "ru": ("яблок", "книг", "карт", "монет", "яиц", "орехов"),
}

SPOKEN: dict[str, dict[Kind, str]] = {
    "en": {
        "add": "add {n}",
        "take": "take {n}",
        "double": "double it",
        "triple": "triple it",
        "halve": "halve it",
    },
    "ru": {
        "add": "прибавим {n}",
        "take": "отнимем {n}",
        "double": "удвоим это",
        "triple": "утроим это",
        "halve": "делим пополам",
    },
}
"""How a step is said while thinking, whatever the wording of the question."""
STARTS = {
    "en": ("We start at {n}", "First {n}", "Now {n}"),
    "ru": ("Начнём с {n}", "Сначала {n}", "Теперь {n}"),
}
"""How a thought begins, the i-th of one language being the i-th of the other."""

_SUMMARIES = {
    "en": {
        "plain": "You get {box}.",
        "things": "{who} has {box} {what} now.",
        "number": "The result is {box}.",
        "bus": "There are {box} people.",
        "price": "The price is {box}.",
    },
    "ru": {
        "plain": "Получится {box}.",
        "things": "У {whose} теперь {what}: {box}.",
        "number": "Результат {box}.",
        "bus": "В автобусе людей: {box}.",
        "price": "Цена теперь {box}.",
    },
}


def tell(told: Chain, wording: Wording, language: str, rng: random.Random) -> str:
    """The question in words."""
    who, whose = rng.choice(PEOPLE[language])
    names = {"who": who, "whose": whose, "what": rng.choice(THINGS[language])}
    steps = [
        f"{marker}) {wording.phrases[step.kind].format(n=step.operand)}"
        for marker, step in zip(_MARKERS, told.steps, strict=False)
    ]
    opening = wording.opening.format(n=told.values[0], **names)
    joint = "," if language == "ru" else ":"
    return f"{opening}{joint} {', '.join(steps)}. {wording.closing.format(**names)}"


def think(told: Chain, languages: tuple[str, ...], start: int) -> str:
    """A careful thought: the start value and each step in its own language, with its value.

    `languages` has one entry for the start and one for each step.
    """
    said = [STARTS[languages[0]][start].format(n=told.values[0])]
    rows = zip(_MARKERS, told.steps, told.values[1:], languages[1:], strict=False)
    for marker, step, value, language in rows:
        phrase = SPOKEN[language][step.kind].format(n=step.operand)
        said.append(f"{marker}) {phrase}: {value}")
    return ", ".join(said) + "."


def translate(thinking: str, language: str) -> str:
    """A thought with every phrase that is not in `language` replaced by its counterpart.

    It knows the phrases of `think` alone and leaves all else as it is. ConfigError: unknown
    language.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"no language {language!r}; use one of {', '.join(LANGUAGES)}")
    other = LANGUAGES[1 - LANGUAGES.index(language)]
    pairs = [(SPOKEN[other][kind], SPOKEN[language][kind]) for kind in chain.KINDS]
    pairs += list(zip(STARTS[other], STARTS[language], strict=True))
    for foreign, own in pairs:
        thinking = thinking.replace(foreign.format(n=""), own.format(n=""))
    return thinking


def summarise(problem: Problem, answer: str) -> str:
    """A sentence in the question's language that gives the answer in a box.

    Example: `Tom has \\boxed{12} apples now.` The problem must be one of this task.
    """
    language = problem.language
    wording = problem.family.rsplit("/", 2)[1]
    words = problem.question.replace(",", " ").replace(":", " ").replace("?", " ").split()
    who, whose = next(
        (pair for pair in PEOPLE[language] if set(pair) & set(words)), PEOPLE[language][0]
    )
    what = next((thing for thing in THINGS[language] if thing in words), "")
    box = f"\\boxed{{{answer}}}"
    return _SUMMARIES[language][wording].format(box=box, who=who, whose=whose, what=what)


def problems(split: str, count: int, seed: int = 0) -> list[Problem]:
    """`count` different problems, the structures of the split taken in turn in a shuffled order,
    half of them in each language.

    The first n of a longer list are the list of n. DataError: unknown split.
    """
    rng = random.Random(f"bilingual/{split}/{seed}")
    wordings = [(language, w) for language in LANGUAGES for w in WORDINGS[language]]
    structures = list(itertools.product(chain.sequences(split), wordings))
    rng.shuffle(structures)
    found: list[Problem] = []
    asked: set[str] = set()
    for sequence, (language, wording) in itertools.cycle(structures):
        if len(found) >= count:
            return found
        told = chain.draw_chain(sequence, rng)
        question = tell(told, wording, language, rng)
        if question in asked:
            continue
        asked.add(question)
        found.append(
            Problem(
                id=f"bilingual/{split}/{len(found)}",
                question=question,
                gold=str(told.values[-1]),
                grader="integer",
                family=f"{'-'.join(sequence)}/{wording.name}/{language}",
                language=language,
            )
        )
    return found
