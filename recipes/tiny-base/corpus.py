"""The text the tiny base model learns from: generated pages that imitate the web's mixture.

Most pages hold arithmetic questions with answers of mixed quality: guesses, answers that skip or
botch steps, careful ones, and answers beside the point. Some pages put parts into tags (all kinds,
in all combinations, often not as announced); others are tables of sums, or prose without a
question. Questions use the training structures of `pellucid.tasks.chain` and shorter ones; those of
its test split never occur, and neither does the prompt of the demo.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from pellucid.tasks import chain
from pellucid.tasks.chain import Chain, Step, Wording

PAGE_SHARES = {
    "textbook": 0.38,
    "thread": 0.16,
    "tagged": 0.28,
    "sums": 0.08,
    "markup": 0.05,
    "prose": 0.05,
}
STYLE_SHARES = {"guess": 0.49, "sloppy": 0.18, "careful": 0.22, "aside": 0.11}
"""Who answers in threads and tagged pages: those who guess, who skip or botch steps, who write all
steps, and others. Textbooks are always careful."""
KEEPING_SHARES = {"both": 0.52, "first": 0.14, "last": 0.10, "unclosed": 0.06, "none": 0.18}
"""What an answer makes of the tags that the page announced."""
OPENING_SHARES = {"{}": 0.4, "We start at {}": 0.3, "First {}": 0.3}
GUESS_SHARES = {"I guess {}.": 0.4, "About {}.": 0.25, "Looks like {}.": 0.2, "Easy.": 0.15}
"""Words of the careful and of those who guess."""
_SHORT_QUESTION_SHARE = 0.3  # one or two steps only
_SIGNS = {"add": "+", "take": "-", "double": "*", "triple": "*", "halve": "/"}
_WORDS = {"add": "plus", "take": "minus", "double": "times", "triple": "times", "halve": "over"}


def pages(seed: int) -> Iterator[str]:
    """An endless stream of pages, the same for the same seed."""
    rng = random.Random(f"tiny-base/{seed}")
    author = Author(rng)
    write = {
        "textbook": author.textbook,
        "thread": author.thread,
        "tagged": author.tagged,
        "sums": author.sums,
        "markup": author.markup,
        "prose": author.prose,
    }
    while True:
        yield write[_draw(PAGE_SHARES, rng)]()


class Author:
    """Writes pages of each kind with one stream of random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.long = chain.sequences("train")

    def textbook(self) -> str:
        """One or two worked examples."""
        asks, replies = self.rng.choice(
            (("Problem. ", "Solution. "), ("Exercise: ", "Solved: "), ("", ""), ("Q. ", "A. "))
        )
        lines = []
        for _ in range(self.rng.randint(1, 2)):
            question, told, wording = self.question()
            lines.append(asks + question)
            lines.append(replies + self.careful(told, wording))
            if self.rng.random() < 0.7:
                lines[-1] += " " + self.conclusion(str(told.values[-1]))
        return "\n".join(lines)

    def thread(self) -> str:
        """One or two questions with answers, laid out as in a forum or a chat."""
        pick = self.rng.choice
        asks, replies = pick(
            (
                ("Q: ", "A: "),
                ("Question: ", "Answer: "),
                ("User: ", "Assistant: "),
                ("Student: ", "Teacher: "),
                ("", ""),
                ("> ", ""),
                (pick(chain.PEOPLE) + ": ", pick(chain.PEOPLE) + ": "),
            )
        )
        lines = []
        for _ in range(pick((1, 1, 1, 2))):
            question, told, wording = self.question()
            quote = f"> {question}\n" if self.rng.random() < 0.3 else ""
            lines += [asks + question, quote + replies + self.answer(told, wording)]
        return "\n".join(lines)

    def tagged(self) -> str:
        """A page that announces two tags and then more or less keeps to them."""
        pick = self.rng.choice
        first = pick(("think", "think", "note", "work", "steps", "draft", "b"))
        last = pick(("answer", "answer", "result", "final", "out", "i"))
        asks, replies = pick(
            (("Q", "A"), ("User", "Assistant"), ("Student", "Teacher"), ("Human", "AI"))
        )
        question, told, wording = self.question()
        announced = self.announcement(first, last, asks, replies)
        reasoning, result = self.solution(told, wording)
        return (
            f"{announced}\n{asks}: {question}\n{replies}:"
            f"{self.in_tags(first, last, reasoning, result)}"
        )

    def announcement(self, first: str, last: str, asks: str, replies: str) -> str:
        pick = self.rng.choice
        doing = pick(("thoughts", "notes", "work", "reasoning", "steps", "ideas"))
        ending = pick(("answer", "result", "reply", "number"))
        return pick(
            (
                f"{replies} puts the {doing} in <{first}> </{first}>, "
                f"the {ending} in <{last}> </{last}>.",
                f"Use <{first}> </{first}> for the {doing} and "
                f"<{last}> </{last}> for the {ending}.",
                f"{asks} asks, {replies} writes {doing} in <{first}> </{first}> "
                f"and then the {ending} in <{last}> </{last}>.",
                f"A talk of {asks} and {replies}. The {doing} go into <{first}> </{first}>, "
                f"the {ending} into <{last}> </{last}>.",
                f"Tags: <{first}> </{first}> {doing}, <{last}> </{last}> {ending}.",
            )
        )

    def in_tags(self, first: str, last: str, reasoning: str, result: str) -> str:
        keeping = _draw(KEEPING_SHARES, self.rng)
        pad = self.rng.choice(("", "", " "))
        opened, closed = f" <{first}>{pad}{reasoning}", f"{pad}</{first}>"
        wrapped = f" <{last}>{pad}{result}{pad}</{last}>"
        if keeping == "both":
            return opened + closed + wrapped
        if keeping == "first":
            return opened + closed + f" {self.conclusion(result)}"
        if keeping == "last":
            return f" {reasoning}{wrapped}"
        if keeping == "unclosed":
            return opened + f" {self.conclusion(result)}"
        return f" {reasoning} {self.conclusion(result)}"

    def answer(self, told: Chain, wording: Wording) -> str:
        reasoning, result = self.solution(told, wording)
        if self.rng.random() < 0.15:
            return reasoning
        return f"{reasoning} {self.conclusion(result)}"

    def conclusion(self, result: str) -> str:
        return self.rng.choice(
            ("So {}.", "The answer is {}.", "Answer: {}", "That makes {}.", "It is {}.", "{}")
        ).format(result)

    def question(self) -> tuple[str, Chain, Wording]:
        rng = self.rng
        if rng.random() < _SHORT_QUESTION_SHARE:
            sequence = tuple(rng.choice(chain.KINDS) for _ in range(rng.randint(1, 2)))
        else:
            sequence = rng.choice(self.long)
        told = chain.draw_chain(sequence, rng)
        wording = rng.choice(chain.WORDINGS)
        return chain.tell(told, wording, rng), told, wording

    def solution(self, told: Chain, wording: Wording) -> tuple[str, str]:
        """Reasoning and result in one of the styles."""
        style = _draw(STYLE_SHARES, self.rng)
        if style == "guess":
            return self.guess(told)
        if style == "sloppy":
            return self.sloppy(told)
        if style == "careful":
            return self.careful(told, wording), str(told.values[-1])
        return self.aside(), str(self.rng.randint(1, chain.LARGEST))

    def careful(self, told: Chain, wording: Wording) -> str:
        """Tells the question again, with the value after each step."""
        opening = _draw(OPENING_SHARES, self.rng).format(told.values[0])
        steps = [
            f"{wording.phrases[step.kind].format(n=step.operand)}: {value}"
            for step, value in zip(told.steps, told.values[1:], strict=True)
        ]
        return ", ".join([opening, *steps]) + "."

    def guess(self, told: Chain) -> tuple[str, str]:
        rng = self.rng
        result = told.values[-1]
        if rng.random() < 0.7:
            result = max(1, result + rng.choice((-10, -5, -3, -2, -1, 1, 2, 3, 5, 10)))
        saying = _draw(GUESS_SHARES, rng)
        return saying.format(result), str(result)

    def sloppy(self, told: Chain) -> tuple[str, str]:
        """In the head: only the values, some left out, each botched now and then."""
        rng = self.rng
        value, said = told.values[0], []
        for step in told.steps:
            following = step.apply(value) or value
            if rng.random() < 0.25:
                following = max(1, following + rng.choice((-10, -2, -1, 1, 2, 10)))
            value = following
            if rng.random() < 0.6:
                said.append(str(value))
        opening = rng.choice(("In my head: ", "Roughly ", "Let me see, ", "Quick: "))
        return opening + " then ".join([*said, str(value)][: len(told.steps)]) + ".", str(value)

    def aside(self) -> str:
        return self.rng.choice(
            (
                "Good question.",
                "I do not know.",
                "Same problem here, any news?",
                "Look it up in the book.",
                "Who asks such things?",
                "You should try it on your own first.",
                "Not sure, numbers are not for me.",
                "Why do you want to know that?",
            )
        )

    def sums(self) -> str:
        """A table of sums, as in an exercise book."""
        rng = self.rng
        form = rng.choice(("signs", "signs", "words"))
        rows = []
        while len(rows) < rng.randint(6, 12):
            (step,) = chain.draw_chain((rng.choice(chain.KINDS),), rng).steps
            value = rng.randint(1, chain.LARGEST)
            if step.apply(value) is not None:
                rows.append(equation(step, value, form))
        return rng.choice((", ", "\n", ". ", "; ")).join(rows)

    def markup(self) -> str:
        """Sentences with some tags in them."""
        rng = self.rng
        parts = []
        for _ in range(rng.randint(2, 4)):
            sentence = self.sentence()
            if rng.random() < 0.7:
                tag = rng.choice(("b", "i", "note", "p", "li", "think", "answer", "h1", "q"))
                sentence = f"<{tag}>{sentence}</{tag}>"
            parts.append(sentence)
        return rng.choice((" ", "\n")).join(parts)

    def prose(self) -> str:
        return " ".join(self.sentence() for _ in range(self.rng.randint(3, 6)))

    def sentence(self) -> str:
        rng = self.rng
        who, other = rng.sample(chain.PEOPLE, 2)
        what, much = rng.choice(chain.THINGS), rng.randint(2, 30)
        return rng.choice(
            (
                f"{who} and {other} went to the market and bought {what}.",
                f"{who} likes {what}, but {other} does not.",
                f"There were {much} {what} on the table.",
                f"The bus to the river takes {much} minutes.",
                f"{other} told {who} about the price of {what}.",
                f"In the morning {who} counts {what}.",
                f"Nobody knows why {who} keeps {much} {what} at home.",
                f"After the game {who} and {other} talk about the points.",
            )
        )


def equation(step: Step, value: int, form: str) -> str:
    """One step written out: `7+5=12`, or `7 plus 5 is 12`."""
    following = step.apply(value)
    if form == "signs":
        return f"{value}{_SIGNS[step.kind]}{step.operand}={following}"
    return f"{value} {_WORDS[step.kind]} {step.operand} is {following}"


def _draw(shares: dict[str, float], rng: random.Random) -> str:
    return rng.choices(list(shares), weights=list(shares.values()))[0]
