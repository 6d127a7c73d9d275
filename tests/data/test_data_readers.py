import json

import pytest

from pellucid.data.readers import (
    READERS,
    decode,
    last_boxed,
    read_dapo,
    read_gsm8k,
    read_gsm_plus,
    read_svamp,
)
from pellucid.errors import DataError


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"so $x = \boxed{7}$.", "7"),
        (r"first \boxed{1}, in the end \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"old form \fbox{3}.", "3"),
        (r"$\boxed 9$", "9"),
        (r"forgotten $\boxed{}$", ""),
        (r"never closed \boxed{4", ""),
        ("no box", ""),
    ],
)
def test_the_last_box_of_a_solution_is_its_gold(solution, gold):
    assert last_boxed(solution) == gold


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("5 + 5 = 10\n#### 10", "10"), ("#### 1,250", "1250"), ("#### -3", "-3"), ("no mark", "")],
)
def test_a_gsm8k_gold_is_the_number_after_the_mark(answer, gold):
    assert read_gsm8k({"question": " How many? ", "answer": answer}) == (
        "How many?",
        gold,
        "",
        "en",
    )


def test_a_svamp_body_without_a_full_stop_runs_into_its_question():
    record = {
        "Body": "If a pack costs 3 dollars",
        "Question": "How much are 2 packs?",
        "Answer": 6.0,
    }
    assert read_svamp(record)[:2] == ("If a pack costs 3 dollars, how much are 2 packs?", "6")
    record = {"Body": "A pack costs 3 dollars. ", "Question": "How much are 2?", "Answer": 6.0}
    assert read_svamp(record)[:2] == ("A pack costs 3 dollars. How much are 2?", "6")


def test_perturbations_of_one_question_are_a_family_and_a_missing_answer_is_no_gold():
    seed = {"seed_question": "Two  and two?", "question": "Two and x?", "answer": "None"}
    assert read_gsm_plus(seed) == ("Two and x?", "", "Two and two?", "en")
    assert read_gsm_plus({**seed, "answer": "1/2"}).gold == "1/2"


def test_the_publishers_instruction_is_cut_from_dapo_and_chinese_is_marked():
    prefix = "Let's think step by step and output the final answer within \\boxed{}.\n\n"

    def record(question):
        return {
            "prompt": [{"content": prefix + question}],
            "reward_model": {"ground_truth": "34"},
        }

    assert read_dapo(record("Find $x$.")) == ("Find $x$.", "34", "", "en")
    assert read_dapo(record("求最小的正整数解。")).language == "zh"


def test_competition_answers_are_plain_integers():
    instruction = "\nPlease reason step by step, and put your final answer within \\boxed{}."
    aime = READERS["aime"]
    assert aime({"prompt": "Find it." + instruction, "answer": 70})[:2] == ("Find it.", "70")
    assert aime({"prompt": "Find it.", "answer": "025"})[:2] == ("Find it.", "25")
    assert READERS["amc"]({"problem": "Find it.", "answer": -27.0}).gold == "-27"


def test_a_line_separator_inside_a_json_line_does_not_split_it():
    line = json.dumps({"question": "a\u2028b"}, ensure_ascii=False)
    assert decode(f"{line}\n".encode(), "x.jsonl") == [{"question": "a\u2028b"}]


@pytest.mark.parametrize("path", ["x.jsonl", "x.json", "x.tar", "x.parquet", "x.csv"])
def test_a_damaged_or_unknown_container_is_named(path):
    with pytest.raises(DataError, match=path.rsplit(".", 1)[1]):
        decode(b"{not data", path)
