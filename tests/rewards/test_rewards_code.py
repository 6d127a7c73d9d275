"""Programs in answers: which one counts, and what its verdict becomes."""

import json

import pytest

from pellucid.config_io import parse_recipe
from pellucid.pipeline.grading import open_grader
from pellucid.pipeline.stage import common_config
from pellucid.records import Problem, Verdict
from pellucid.rewards import GraderPool, check_gold, find_grader
from pellucid.rewards.code import extract_program
from pellucid.sandbox import SandboxError, why_missing

GOLD = json.dumps({"tests": ["assert double(2) == 4", "assert double(-1) == -2"]})
PROBLEM = Problem(id="mbpp/test/0", question="Double a number.", gold=GOLD, grader="code")
SUM = Problem(id="sum/test/0", question="1 + 1", gold="2", grader="integer")


def _block(code):
    return f"<think>maybe ```python\nx\n```</think>Here:\n```python\n{code}\n```\nDone."


@pytest.mark.parametrize(
    ("response", "program"),
    [
        (_block("a = 1"), "a = 1"),
        ("```\nold\n```\nbetter:\n```py\nnew\n```", "new"),
        ("```python\na = 1\n```\noutput:\n```text\n3\n```", "a = 1"),
        ("<answer>\ndef f(): pass\n</answer>", "def f(): pass"),
        ("<answer>```python\na = 1\n```</answer>", "a = 1"),
        ("<think>```python\na\n```", None),
        ("def f(): pass", None),
        ("```python\nnever closed", None),
        ("```python\n\n```", None),
    ],
)
def test_the_last_python_block_after_the_thinking_counts(response, program):
    assert extract_program(response) == program


@pytest.mark.parametrize(
    ("gold", "why"),
    [
        ("assert f(1)", "no JSON"),
        ('{"test": []}', 'no list "tests"'),
        ('{"tests": []}', "no test"),
        ('{"tests": ["assert f("]}', "no Python"),
        ('{"tests": ["assert f(1) == 1"], "setup": 3}', "setup"),
    ],
)
def test_a_gold_without_usable_tests_is_refused(gold, why):
    problem = Problem(id="a", question="", gold=gold, grader="code")
    assert why in check_gold(problem)
    assert check_gold(PROBLEM) is None


@pytest.fixture
def pool():
    if why := why_missing():
        pytest.skip(f"not run: {why}")
    with GraderPool(math_verify=False) as pool:
        yield pool


def test_programs_are_graded_in_their_places_among_other_answers(pool):
    answers = [
        (PROBLEM, _block("def double(x): return 2 * x"), Verdict.CORRECT),
        (SUM, "\\boxed{2}", Verdict.CORRECT),
        (PROBLEM, _block("def double(x): return x + 2"), Verdict.WRONG),
        (PROBLEM, _block("import sys; sys.exit(0)"), Verdict.WRONG),
        (SUM, "\\boxed{3}", Verdict.WRONG),
        (PROBLEM, "no program", Verdict.UNPARSABLE),
        (PROBLEM, _block("x = bytearray(2**40)"), Verdict.WRONG),
        (PROBLEM, _block("#" * 200_000), Verdict.WRONG),
    ]
    problems, responses, verdicts = zip(*answers, strict=True)
    scores = pool.grade(problems, responses)
    assert [score.verdict for score in scores] == list(verdicts)
    backwards = pool.grade(problems[::-1], responses[::-1])
    assert [score.verdict for score in backwards] == list(verdicts[::-1])
    assert scores[0].extracted == "def double(x): return 2 * x"
    assert scores[6].detail.startswith("memory:")
    assert {score.method for score in (scores[0], scores[2])} == {"sandbox"}


def test_a_recipe_says_how_long_a_program_may_compute(pool):
    recipe = parse_recipe({"code_timeout_s": 0.25, "stages": [{"kind": "zero"}]})
    settings = common_config(recipe, recipe.model, template="plain", seed=1)
    with open_grader(settings) as grader:
        (score,) = grader.grade([PROBLEM], [_block("while True: pass")])
    assert score.verdict is Verdict.TIMEOUT
    assert score.detail.startswith(("timeout: not done in 0.25 s", "timeout: computed for"))


def test_the_tables_entry_grades_alone(pool):
    score = find_grader("code")(PROBLEM, _block("def double(x): return x * 2"))
    assert score.verdict is Verdict.CORRECT


def test_without_isolation_the_pool_refuses_unless_told_otherwise(monkeypatch):
    why = "code cannot be judged without isolation: install bubblewrap"
    monkeypatch.setattr("pellucid.sandbox.isolation.why_missing", lambda: why)
    right = [_block("def double(x): return x * 2")]
    with GraderPool() as pool, pytest.raises(SandboxError, match="install bubblewrap"):
        pool.grade([PROBLEM], right)
    with GraderPool(unsafe_code=True) as pool:
        (score,) = pool.grade([PROBLEM], right)
    assert (score.verdict, score.detail) == (Verdict.CORRECT, "without isolation")
