"""reasoning-gym as a source: a package of its shape stands in for it."""

import json
import sys

import pytest

from pellucid.data.load import load_problems
from pellucid.errors import DataError
from pellucid.records import Problem, Verdict
from pellucid.rewards import GRADERS, check_gold
from pellucid.tasks import gym, procedural

FACTORY = """
from reasoning_gym.doubling import Doubling
from reasoning_gym.running import Running

DATASETS = {"doubling": Doubling, "running": Running}


def create_dataset(name, *, seed, size):
    return DATASETS[name](seed, size)
"""
DOUBLING = """
class Doubling:
    def __init__(self, seed, size):
        self.seed, self.size = seed, size

    def __getitem__(self, index):
        if index >= self.size:
            raise IndexError
        n = self.seed + index
        return {"question": f"Double {n}.", "answer": str(2 * n), "metadata": {"pair": (n, n)}}

    def score_answer(self, answer, entry):
        assert isinstance(entry["metadata"]["pair"], tuple)
        if not answer.isdigit():
            raise TypeError
        return 1.0 if answer == entry["answer"] else 0.25
"""
RUNNING = DOUBLING.replace("Doubling", "Running").replace("answer.isdigit()", "eval(answer)")


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "reasoning_gym"
    folder.mkdir()
    texts = {"__init__": "", "factory": FACTORY, "doubling": DOUBLING, "running": RUNNING}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    forget(monkeypatch)
    yield
    forget(monkeypatch)


def forget(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    gym.make_dataset.cache_clear()
    gym.make_entry.cache_clear()


@pytest.mark.usefixtures("package")
def test_problems_are_what_the_package_makes_and_its_scorer_grades_them():
    problem = load_problems("reasoning-gym/doubling", "train", limit=3)[2]
    answer = json.loads(problem.gold)["answer"]
    assert problem.question == f"Double {int(answer) // 2}."
    assert check_gold(problem) is None

    def score(text):
        return GRADERS["reasoning-gym"](problem, text)

    assert score(rf"\boxed{{{answer}}}").verdict is Verdict.CORRECT
    near = score(r"\boxed{7}")
    assert (near.verdict, near.detail) == (Verdict.WRONG, "scored 0.25")
    raised = score(r"\boxed{seven}")
    assert (raised.verdict, raised.detail) == (Verdict.WRONG, "its scorer raised TypeError")
    assert score("x" * 5000).verdict is Verdict.UNPARSABLE
    assert score("<answer>" + "7" * 5000 + "</answer>").verdict is Verdict.WRONG


@pytest.mark.usefixtures("package")
def test_splits_and_seeds_share_no_entry():
    def questions(split, seed):
        return {p.question for p in procedural("reasoning-gym/doubling")(split, 50, seed)}

    sets = [questions(split, seed) for split in ("train", "test") for seed in (0, 1)]
    assert len(set.union(*sets)) == 200


@pytest.mark.usefixtures("package")
def test_a_problem_of_another_version_is_an_error_of_the_instrument():
    problem = load_problems("reasoning-gym/doubling", "test", limit=1)[0]
    gold = json.loads(problem.gold) | {"answer": "0"}
    other = Problem(id="x", question="", gold=json.dumps(gold), grader="reasoning-gym")
    score = GRADERS["reasoning-gym"](other, r"\boxed{0}")
    assert score.verdict is Verdict.ERROR
    assert "another version" in score.detail


@pytest.mark.usefixtures("package")
def test_a_scorer_that_runs_answers_and_an_unknown_data_set_are_refused():
    with pytest.raises(DataError, match="running is refused: its module runs text as Python"):
        load_problems("reasoning-gym/running", "train", limit=1)
    with pytest.raises(DataError, match="did you mean 'doubling'"):
        load_problems("reasoning-gym/dubling", "train", limit=1)


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    forget(monkeypatch)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r"install pellucid\[reasoning-gym\]"):
        load_problems("reasoning-gym/doubling", "train", limit=1)


@pytest.mark.parametrize(
    "gold", ["", "3", "{}", '{"dataset": "x", "seed": -1, "index": 0, "answer": ""}']
)
def test_a_gold_that_names_no_entry_is_refused(gold):
    problem = Problem(id="x", question="", gold=gold, grader="reasoning-gym")
    assert check_gold(problem) is not None
    assert GRADERS["reasoning-gym"](problem, r"\boxed{0}").verdict is Verdict.ERROR
