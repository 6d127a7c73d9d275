"""The bilingual task: right answers in two scripts, thoughts that may mix them, held-out steps."""

import random
import re

import pytest

from pellucid.errors import ConfigError, DataError
from pellucid.records import Verdict
from pellucid.rewards import find_grader
from pellucid.rewards.language import language_share
from pellucid.tasks import bilingual, chain
from pellucid.tasks.chain import Chain, Step

TOLD = Chain(
    values=(7, 12, 24, 21),
    steps=(
        Step(kind="add", operand=5),
        Step(kind="double", operand=2),
        Step(kind="take", operand=3),
    ),
)


def test_a_chain_reads_as_written_in_both_languages() -> None:
    told = {
        language: bilingual.tell(TOLD, wordings[3], language, random.Random(0))
        for language, wordings in bilingual.WORDINGS.items()
    }

    assert told == {
        "en": (
            "A bus has 7 people: a) 5 get on, b) the number doubles, c) 3 get off. How many people?"
        ),
        "ru": (
            "В автобусе людей: 7, a) входят 5, b) число удваивается, c) выходят 3. Сколько людей?"
        ),
    }


def test_a_thought_says_each_step_in_its_own_language() -> None:
    thought = bilingual.think(TOLD, ("ru", "en", "ru", "en"), 1)

    assert thought == "Сначала 7, a) add 5: 12, b) удвоим это: 24, c) take 3: 21."
    assert language_share(thought, "en") == pytest.approx(2 / 5)


@pytest.mark.parametrize("language", bilingual.LANGUAGES)
def test_translation_leaves_one_language_and_the_same_numbers(language: str) -> None:
    for start in range(3):
        mixed = bilingual.think(TOLD, ("ru", "en", "ru", "en"), start)
        assert bilingual.translate(mixed, language) == bilingual.think(TOLD, (language,) * 4, start)


def test_translation_into_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="no language 'de'; use one of en, ru"):
        bilingual.translate("add 5", "de")


def test_every_summary_is_a_sentence_that_the_grader_calls_correct() -> None:
    for problem in bilingual.problems("test", 100):
        summary = bilingual.summarise(problem, problem.gold)
        response = f"<think>\n1\n</think>\n\n{summary}"

        assert find_grader(problem.grader)(problem, response).verdict is Verdict.CORRECT
        assert re.fullmatch(r"[A-ZА-Я].*\.", summary), summary
        words = summary.replace("boxed", "").replace("\\", "")
        assert language_share(words, problem.language) == 1.0, summary


def test_a_summary_names_who_and_what_the_question_names() -> None:
    for problem in bilingual.problems("train", 200):
        summary = bilingual.summarise(problem, "5")
        for names in (bilingual.THINGS, {k: sum(v, ()) for k, v in bilingual.PEOPLE.items()}):
            said = [n for n in names[problem.language] if re.search(rf"\b{n}\b", summary)]
            assert all(re.search(rf"\b{n}\b", problem.question) for n in said), summary
        if "/things/" in problem.family:
            assert "has" in summary or "У" in summary


def test_half_of_the_problems_are_in_each_language_and_scripts_tell_them_apart() -> None:
    problems = bilingual.problems("train", 400)
    counts = {k: sum(p.language == k for p in problems) for k in bilingual.LANGUAGES}

    assert min(counts.values()) > 150
    assert all(language_share(p.question, p.language) == 1.0 for p in problems)


def test_no_sequence_of_the_test_split_is_trained_on_in_either_language() -> None:
    def sequences(split: str) -> set[str]:
        return {p.family.split("/")[0] for p in bilingual.problems(split, 3000)}

    train, test = sequences("train"), sequences("test")
    assert not train & test
    assert len(test) == len(chain.sequences("test"))


def test_a_shorter_list_is_the_start_of_a_longer_one_and_the_seed_changes_it() -> None:
    longer = bilingual.problems("test", 60, seed=4)

    assert bilingual.problems("test", 20, seed=4) == longer[:20]
    assert bilingual.problems("test", 20, seed=5) != longer[:20]
    assert len({p.question for p in longer}) == len({p.id for p in longer}) == 60


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="no split 'dev'"):
        bilingual.problems("dev", 3)
