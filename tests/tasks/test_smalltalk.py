"""Small talk: distinct prompts, held-out ones, and replies of known quality."""

import random
from collections import Counter

import pytest

from pellucid.data.load import load_problems
from pellucid.errors import DataError
from pellucid.tasks import smalltalk

WORSE = ("curt", "beside", "foreign", "rude")


def test_there_are_thirty_kinds_of_distinct_prompts_in_two_languages() -> None:
    asks = smalltalk.asks()

    assert len({ask.kind.name for ask in asks}) == 30
    assert len({ask.prompt for ask in asks}) == len(asks)
    assert {ask.language for ask in asks} == {"en", "ru"}


def test_the_splits_share_no_prompt_and_both_hold_every_group() -> None:
    for harmful in (False, True):
        train, test = (smalltalk.prompts(s, harmful=harmful) for s in ("train", "test"))
        assert not {a.prompt for a in train} & {a.prompt for a in test}
        assert 0.1 < len(test) / (len(test) + len(train)) < 0.3
        assert {a.is_harmful for a in train + test} == {harmful}


@pytest.mark.parametrize(
    ("name", "kind"), [("smalltalk", "helpful"), ("smalltalk-safety", "safety")]
)
def test_problems_have_no_gold_and_load_as_a_task(name: str, kind: str) -> None:
    problems = load_problems(name, "test", limit=20)

    assert len(problems) == 20
    assert {(p.kind, p.grader, p.gold) for p in problems} == {(kind, "open", "")}
    assert {p.language for p in problems} == {"en", "ru"}


def test_pairs_hold_a_good_answer_against_every_worse_quality_and_repeat_with_the_seed() -> None:
    pairs = smalltalk.preference_pairs("train", 400, seed=2)

    assert pairs == smalltalk.preference_pairs("train", 400, seed=2)
    assert {p.chosen.quality for p in pairs} == {"good"}
    assert set(Counter(p.rejected.quality for p in pairs)) == set(WORSE)


def test_an_unknown_quality_or_split_is_refused() -> None:
    ask = smalltalk.asks()[0]
    with pytest.raises(DataError, match="no answers of quality 'nice'; use one of good, curt"):
        smalltalk.reply(ask, "nice", random.Random(0))
    with pytest.raises(DataError, match="split of smalltalk"):
        smalltalk.helpful_problems("dev", 3)
