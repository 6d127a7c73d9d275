import itertools
import math

import pytest

from pellucid.config import RewardConfig
from pellucid.errors import ConfigError, NumericsError
from pellucid.records import Problem, Score, Verdict, sample_id
from pellucid.rewards import (
    TERMS,
    RewardTable,
    check_terms,
    format_reward,
    format_strict_reward,
    language_share,
    overlong_penalty,
    repetition_share,
    settle,
    weighted,
)
from pellucid.rewards.language import language_reward

PROBLEM = Problem(id="p", question="?", gold="5", grader="math")
RIGHT = Score(verdict=Verdict.CORRECT)
WRONG = Score(verdict=Verdict.WRONG)
FAILED = Score(verdict=Verdict.ERROR)


@pytest.mark.parametrize(
    ("response", "plain", "strict"),
    [
        ("<think>a</think><answer>b</answer>", 1, 1),
        ("  <think>a</think>\n<answer> b </answer>\n", 1, 1),
        ("<think>a</think> so b", 1, 0),
        ("<think>a</think><answer>b</answer> more", 1, 0),
        ("<think>a</think> so <answer>b</answer>", 1, 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 1, 0),
        ("<think>a</think><answer></answer>", 1, 0),
        ("<think>a</think>", 0, 0),
        ("<think></think> b", 0, 0),
        ("<think>a", 0, 0),
        ("a</think> b", 0, 0),
        ("x <think>a</think> b", 0, 0),
        ("<think>a</think> b <think>c</think> d", 0, 0),
        ("<think>a</think></think> b", 0, 0),
        ("<think>a<answer>b</answer></think> c", 0, 0),
        ("<answer>b</answer>", 0, 0),
        ("", 0, 0),
    ],
)
def test_format_rewards(response, plain, strict):
    assert (format_reward(response), format_strict_reward(response)) == (plain, strict)


@pytest.mark.parametrize(
    ("thinking", "language", "share"),
    [
        ("We add the numbers", "en", 1.0),
        ("We add the numbers", "zh", 0.0),
        ("我们相加", "zh", 1.0),
        ("我们 add", "zh", 2 / 3),
        ("Сначала сложим числа", "ru", 1.0),
        ("Сначала add числа", "ru", 2 / 3),
        ("まず足す数", "ja", 1.0),
        ("We 加 the numbers", "en", 3 / 4),
        ("我们 $x = \\text{apples} + y$ 得", "zh", 1.0),
        ("我们 \\[ \\frac{apples}{b} \\] 得", "zh", 1.0),
        ("我们 \\begin{align} apples \\end{align} 得", "zh", 1.0),
        ("我们 ```python\nprint(apples)\n``` 得 `code here`", "zh", 1.0),
        ("我们 x + y = 2n, sin x", "zh", 1.0),
        ("1 + 1 = 2", "en", 1.0),
        ("1 + 1 = 2", "zh", 1.0),
        ("", "en", 0.0),
        ("  \n", "en", 0.0),
    ],
)
def test_language_share(thinking, language, share):
    assert math.isclose(language_share(thinking, language), share)


def test_language_is_measured_in_the_thinking_only():
    assert language_reward("<think>我们</think> We are done", "zh") == 1.0
    assert language_reward("我们 done", "zh") == pytest.approx(2 / 3)


def test_an_unknown_language_is_refused():
    with pytest.raises(ConfigError, match="no script known for language 'xx'"):
        language_share("a", "xx")


def test_repetition_is_the_share_of_repeated_ngrams():
    words = [f"w{i}" for i in range(12)]
    assert repetition_share(" ".join(words)) == 0.0
    assert repetition_share("a b", n=6) == 0.0
    assert repetition_share("a b a b a b", n=2) == pytest.approx(3 / 5)
    assert repetition_share("so " * 1000) > 0.99
    assert repetition_share("我们我们我们", n=2) == pytest.approx(3 / 5)


class Lengths:
    """A reward model that likes long responses, and remembers whom it was asked about."""

    def __init__(self, worth=0.5):
        self.worth = worth
        self.asked = []

    def score(self, problems, responses):
        self.asked.append([p.id for p in problems])
        return [self.worth * len(r) for r in responses]


def table(terms, *, steps=10, starts=None, scorers=None):
    config = RewardConfig(terms=terms, starts=starts or {})
    return RewardTable(config, steps=steps, scorers=scorers)


def of_kind(kind):
    grader = "math" if kind == "reasoning" else "open"
    return Problem(id=f"{kind}/0", question="?", gold="5", grader=grader, kind=kind)


RESPONSE = "<think>so</think> \\boxed{5}"


def test_terms_are_computed_by_name_and_weighted():
    rewards = table({"accuracy": 1.0, "format": 0.5, "language": -0.25})
    [right, wrong] = rewards.terms(1, [PROBLEM] * 2, [RESPONSE, "so"], [RIGHT, WRONG], [1, 2])
    assert right == {"accuracy": 1.0, "format": 1.0, "language": 1.0}
    assert wrong == {"accuracy": 0.0, "format": 0.0, "language": 1.0}
    assert [rewards.reward(right), rewards.reward(wrong)] == [1.25, -0.25]


def test_each_kind_of_problem_has_its_own_terms_and_a_model_rates_only_its_kind():
    helpful, safety = Lengths(), Lengths(2.0)
    rewards = table(
        {"accuracy": 1.0, "helpful": 0.1, "safety": 1.0, "format": 1.0},
        scorers={"helpful": helpful, "safety": safety},
    )
    problems = [of_kind(k) for k in ("safety", "reasoning", "helpful", "safety")]
    found = rewards.terms(1, problems, ["a", "bb", "ccc", "dddd"], [RIGHT] * 4, [1, 2, 3, 4])
    assert found == [
        {"safety": 2.0, "format": 0.0},
        {"accuracy": 1.0, "format": 0.0},
        {"helpful": 1.5, "format": 0.0},
        {"safety": 8.0, "format": 0.0},
    ]
    assert [helpful.asked, safety.asked] == [[["helpful/0"]], [["safety/0", "safety/0"]]]
    assert [rewards.reward(terms) for terms in found] == pytest.approx([2.0, 1.0, 0.15, 8.0])


def test_a_term_counts_from_its_share_of_the_steps_on():
    model = Lengths()
    rewards = table(
        {"format": 1.0, "helpful": 1.0},
        steps=1700,
        starts={"helpful": 1300 / 1700},
        scorers={"helpful": model},
    )
    assert [s for s in range(1, 1701) if "helpful" in rewards.names(s)] == list(range(1301, 1701))
    problem = of_kind("helpful")
    assert rewards.terms(1300, [problem], ["ab"], [RIGHT], [1]) == [{"format": 0.0}]
    assert model.asked == []
    assert rewards.terms(1301, [problem], ["ab"], [RIGHT], [1]) == [{"format": 0.0, "helpful": 1.0}]


def test_a_model_term_without_its_model_is_refused_before_any_work():
    with pytest.raises(ConfigError, match="'safety' needs a reward model"):
        table({"helpful": 1.0, "safety": 1.0}, scorers={"helpful": Lengths()})
    with pytest.raises(ConfigError, match="'helpful' needs a reward model"):
        check_terms(["accuracy", "helpful"])


def test_problems_that_no_term_ever_rewards_are_refused():
    rewards = table({"accuracy": 1.0, "helpful": 1.0}, scorers={"helpful": Lengths()})
    rewards.check_kinds(["reasoning", "helpful"])
    with pytest.raises(ConfigError, match="no reward term applies to problems of kind 'safety'"):
        rewards.check_kinds(["reasoning", "safety"])


def test_a_reward_model_that_gives_no_number_stops_the_step():
    rewards = table({"helpful": 1.0}, scorers={"helpful": Lengths(math.inf)})
    with pytest.raises(NumericsError, match="'helpful' gave inf for helpful/0"):
        rewards.terms(1, [of_kind("helpful")], ["a"], [RIGHT], [1])


def test_a_start_without_a_weight_is_refused():
    with pytest.raises(ValueError, match="starts names helpful, which terms does not"):
        RewardConfig(terms={"format": 1.0}, starts={"helpful": 0.5})


def test_a_weighted_term_that_was_not_computed_never_counts_as_zero():
    with pytest.raises(KeyError):
        weighted({"accuracy": 1.0}, {"format": 1.0})


def test_an_unknown_term_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="'accurracy'; did you mean 'accuracy'"):
        check_terms(["accurracy"])


def test_the_random_reward_is_a_fair_coin_blind_to_the_answer():
    ids = [sample_id("train", 0, "p", k) for k in range(2000)]
    coins = [TERMS["random"].rule(PROBLEM, "a", RIGHT, i) for i in ids]
    assert coins == [TERMS["random"].rule(PROBLEM, "b", WRONG, i) for i in ids]
    assert set(coins) == {0.0, 1.0}
    assert abs(sum(coins) / len(coins) - 0.5) < 4 * 0.5 / math.sqrt(len(coins))
    assert abs(sum(a != b for a, b in itertools.pairwise(coins)) / 1999 - 0.5) < 0.05


@pytest.mark.parametrize(
    ("num_tokens", "penalty"),
    [(1, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (130, -1.0)],
)
def test_the_overlong_penalty_grows_linearly_over_the_buffer(num_tokens, penalty):
    assert overlong_penalty(num_tokens, max_tokens=100, buffer=20) == pytest.approx(penalty)
    assert overlong_penalty(num_tokens, max_tokens=100, buffer=0) == 0.0


@pytest.mark.parametrize(
    ("rule", "outcome"), [("grade", (1.5, False)), ("zero", (0.0, False)), ("mask", (0.0, True))]
)
def test_truncated_samples_follow_the_rule(rule, outcome):
    assert settle(1.5, RIGHT, is_truncated=True, rule=rule) == outcome
    assert settle(1.5, RIGHT, is_truncated=False, rule=rule) == (1.5, False)


def test_an_instrument_error_is_masked_and_never_a_reward():
    assert settle(1.0, FAILED, is_truncated=False) == (0.0, True)
    assert settle(0.0, WRONG, is_truncated=False) == (0.0, False)


def test_the_overlong_penalty_is_added_to_the_reward():
    outcome = settle(
        1.0, RIGHT, is_truncated=False, num_tokens=90, max_tokens=100, overlong_buffer=20
    )
    assert outcome == (0.5, False)
