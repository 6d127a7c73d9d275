import io
import json
import zipfile

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
        "",
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
    assert read_gsm_plus(seed) == ("Two and x?", "", "Two and two?", "en", "")
    assert read_gsm_plus({**seed, "answer": "1/2"}).gold == "1/2"


def test_the_publishers_instruction_is_cut_from_dapo_and_chinese_is_marked():
    prefix = "Let's think step by step and output the final answer within \\boxed{}.\n\n"

    def record(question):
        return {
            "prompt": [{"content": prefix + question}],
            "reward_model": {"ground_truth": "34"},
        }

    assert read_dapo(record("Find $x$.")) == ("Find $x$.", "34", "", "en", "")
    assert read_dapo(record("求最小的正整数解。")).language == "zh"


def test_competition_answers_are_plain_integers():
    instruction = "\nPlease reason step by step, and put your final answer within \\boxed{}."
    aime = READERS["aime"]
    assert aime({"prompt": "Find it." + instruction, "answer": 70})[:2] == ("Find it.", "70")
    assert aime({"prompt": "Find it.", "answer": "025"})[:2] == ("Find it.", "25")
    assert READERS["amc"]({"problem": "Find it.", "answer": -27.0}).gold == "-27"


def mbpp(number, **fields):
    record = {
        "text": "Write a function to double. ",
        "task_id": number,
        "test_setup_code": "",
        "test_list": ["assert f(1) == 2 ", "assert f(3) == 6"],
    }
    return READERS["mbpp"](record | fields)


def test_an_mbpp_question_shows_one_test_and_the_gold_has_all():
    row = mbpp(2)
    assert row.question.endswith("such as this one:\nassert f(1) == 2")
    assert "f(3)" not in row.question
    assert json.loads(row.gold) == {"tests": ["assert f(1) == 2", "assert f(3) == 6"]}
    assert json.loads(mbpp(2, test_setup_code="x = 1\n").gold)["setup"] == "x = 1"


def test_mbpp_is_split_by_task_id_as_in_its_paper():
    found = [mbpp(n).split for n in (1, 10, 11, 510, 511, 600, 601, 974)]
    assert found == ["prompt"] * 2 + ["test"] * 2 + ["validation"] * 2 + ["train"] * 2


def test_options_are_letters_whatever_their_labels():
    choices = [{"text": "ice", "label": "1"}, {"text": "rust", "label": "2"}]
    record = {"question": {"stem": "Which melts?", "choices": choices}, "answerKey": "2"}
    question, gold = READERS["arc"](record)[:2]
    assert question.split("\n")[:3] == ["Which melts?", "A. ice", "B. rust"]
    assert gold == "B"
    assert READERS["arc"](record | {"answerKey": "7"}).gold == ""


def test_mmlu_fields_with_commas_and_quotes_stay_whole():
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("data/val/law_val.csv", '"Who, ""then""?",a,"b, c",d,e,B\n')
        archive.writestr("data/README.txt", "no table")
    [row] = [READERS["mmlu"](record) for record in decode(zipped.getvalue(), "mmlu.zip")]
    assert row.question.split("\n")[:3] == ['Who, "then"?', "A. a", "B. b, c"]
    assert (row.gold, row.split) == ("B", "val")


def test_quotes_in_a_tab_separated_file_are_text():
    [record] = decode(b'Er sagt: "3.\t1,250\n', "mgsm/mgsm_de.tsv")
    assert READERS["mgsm"](record) == ('Er sagt: "3.', "1250", "", "de", "")


def test_an_ifeval_gold_keeps_the_arguments_that_are_given():
    record = {
        "prompt": "Write. ",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None}, {"num_words": 300, "relation": "at least"}],
    }
    question, gold = READERS["ifeval"](record)[:2]
    assert question == "Write."
    assert [entry["kwargs"] for entry in json.loads(gold)] == [
        {},
        {"num_words": 300, "relation": "at least"},
    ]


def test_a_gold_of_ifbench_has_whole_numbers():
    record = {
        "prompt": "Write.",
        "instruction_id_list": ["count:numbers"],
        "kwargs": [{"N": 2.0, "word": None, "percentage": 27.5}],
    }
    (entry,) = json.loads(READERS["ifeval"](record).gold)
    assert entry == {"id": "count:numbers", "kwargs": {"N": 2, "percentage": 27.5}}
    assert type(entry["kwargs"]["N"]) is int


def test_a_line_separator_inside_a_json_line_does_not_split_it():
    line = json.dumps({"question": "a\u2028b"}, ensure_ascii=False)
    assert decode(f"{line}\n".encode(), "x.jsonl") == [{"question": "a\u2028b"}]


@pytest.mark.parametrize("path", ["x.jsonl", "x.json", "x.tar", "x.zip", "x.parquet", "x.csv"])
def test_a_damaged_or_unknown_container_is_named(path):
    with pytest.raises(DataError, match=path.rsplit(".", 1)[1]):
        decode(b"{not data", path)
