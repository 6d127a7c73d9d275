"""From the bytes of a published file to (question, gold) rows. Only parquet needs an extra.

Two steps: `decode` opens the container (JSON, JSON lines, tar of JSON, zip of CSV, TSV, parquet),
then a reader of `READERS` maps the fields of one record. A row whose record holds no answer has an
empty gold, and is refused when it is loaded. Readers share no code with the graders: a better
grader must not change what a pinned data set is.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.errors import DataError

Record = Mapping[str, Any]


class Row(NamedTuple):
    """One normalised row."""

    question: str
    gold: str
    """Empty where the publisher gives no answer."""
    family: str = ""
    language: str = "en"
    split: str = ""
    """Of a file that holds several splits, the one that the row belongs to."""


# --- containers ---


def decode(payload: bytes, path: str) -> list[Record]:
    """Records of a file, in its order. The ending of `path` names the container (.gz removed)."""
    ending = path.removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        if ending == "jsonl":
            return [json.loads(line) for line in payload.decode().split("\n") if line.strip()]
        if ending == "json":
            return list(json.loads(payload))
        if ending == "tar":
            return _tar_records(payload)
        if ending == "tsv":
            return _table(payload.decode(), path, delimiter="\t", quoting=csv.QUOTE_NONE)
        if ending == "zip":
            return _zip_records(payload)
        if ending == "parquet":
            return _parquet_records(payload)
    except (ValueError, tarfile.TarError, zipfile.BadZipFile, csv.Error) as error:
        raise DataError(f"{path} cannot be read as {ending} ({error}): fetch it again") from error
    raise DataError(
        f"{path}: unknown container {ending!r}; known are jsonl, json, tar, tsv, zip, parquet"
    )


def _tar_records(payload: bytes) -> list[Record]:
    """One JSON record a member, read in memory: nothing is unpacked to disk."""
    records: list[Record] = []
    with tarfile.open(fileobj=io.BytesIO(payload)) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None and member.name.endswith(".json"):
                records.append(json.loads(stream.read()))
    return records


def _table(text: str, path: str, **style: Any) -> list[Record]:
    """A record a line of a table without a header: its fields, and the file that it is of."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, **style)
    return [{"file": Path(path).name, "fields": fields} for fields in rows if fields]


def _zip_records(payload: bytes) -> list[Record]:
    """The CSV members in the order of their paths, read in memory."""
    records: list[Record] = []
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".csv"):
                records += _table(archive.read(name).decode(), name)
    return records


def _parquet_records(payload: bytes) -> list[Record]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("parquet files need pyarrow: install pellucid[data]") from error
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(payload))
    except pyarrow.ArrowException as error:
        raise DataError(f"damaged parquet file ({error}): fetch it again") from error
    records: list[Record] = table.to_pylist()
    return records


# --- fields of each data set ---

_SOLUTION_MARK = "####"
_AIME_SUFFIX = "\nPlease reason step by step, and put your final answer within \\boxed{}."
_DAPO_PREFIX = "Let's think step by step and output the final answer within \\boxed{}.\n\n"
_HAN = re.compile(r"[\u4e00-\u9fff]")
# Formulas and names bring single characters into English text; Chinese problems have dozens.
_MIN_HAN = 5


def _number(value: object) -> str:
    """A published number as plain text: 27.0 -> "27", "025" -> "25", "1,250" -> "1250"."""
    text = str(value).strip().replace(",", "")
    if re.fullmatch(r"-?\d+(\.0+)?", text):
        return str(int(text.split(".")[0]))
    return text


def read_gsm8k(record: Record) -> Row:
    """The gold is the number after `####` of the worked solution."""
    _, mark, gold = record["answer"].rpartition(_SOLUTION_MARK)
    return Row(record["question"].strip(), _number(gold) if mark else "")


def read_math(record: Record) -> Row:
    """The gold is the content of the last `\\boxed{}` of the worked solution."""
    return Row(record["problem"].strip(), last_boxed(record["solution"]))


def read_math_500(record: Record) -> Row:
    return Row(record["problem"].strip(), record["answer"].strip())


def read_aime(record: Record) -> Row:
    """The publisher's instruction at the end of a prompt is cut: the template asks itself."""
    return Row(record["prompt"].removesuffix(_AIME_SUFFIX).strip(), _number(record["answer"]))


def read_amc(record: Record) -> Row:
    return Row(record["problem"].strip(), _number(record["answer"]))


def read_dapo(record: Record) -> Row:
    """The instruction before the problem is cut; Chinese problems are marked as such."""
    question = record["prompt"][0]["content"].removeprefix(_DAPO_PREFIX).strip()
    language = "zh" if len(_HAN.findall(question)) >= _MIN_HAN else "en"
    return Row(question, _number(record["reward_model"]["ground_truth"]), language=language)


def read_svamp(record: Record) -> Row:
    """Body and question in one sentence where the body has no full stop ("If …, how many …")."""
    body, question = record["Body"].strip(), record["Question"].strip()
    if body[-1:].isalnum():
        question = question[:1].lower() + question[1:]
        return Row(f"{body}, {question}", _number(record["Answer"]))
    return Row(f"{body} {question}", _number(record["Answer"]))


def read_gsm_plus(record: Record) -> Row:
    """Eight perturbations of one GSM8K question are a family. `None`: the question lacks data."""
    gold = str(record["answer"]).strip()
    seed = " ".join(record["seed_question"].split())
    return Row(record["question"].strip(), "" if gold == "None" else _number(gold), family=seed)


_MBPP_SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601)}


def read_mbpp(record: Record) -> Row:
    """The splits by task id (Austin et al. 2021, arXiv 2108.07732, section 2.1). As in their
    prompt, tests tell how the function is called, but one of three: the others stay hidden.
    """
    tests = [test.strip() for test in record["test_list"]]
    question = (
        f"{record['text'].strip()} The answer is Python code in one code block. It has to pass "
        f"tests such as this one:\n{tests[0]}"
    )
    gold: dict[str, Any] = {"tests": tests}
    if setup := record["test_setup_code"].strip():
        gold["setup"] = setup
    number = record["task_id"]
    split = next((name for name, ids in _MBPP_SPLITS.items() if number in ids), "train")
    return Row(question, json.dumps(gold, ensure_ascii=False), split=split)


_LETTERS = "ABCDEFGH"


def _choice_question(stem: str, options: Sequence[str]) -> str:
    listed = [f"{letter}. {text.strip()}" for letter, text in zip(_LETTERS, options, strict=False)]
    return "\n".join([stem.strip(), *listed, "The answer is the letter of the right option."])


def read_arc(record: Record) -> Row:
    """Options that a copy labels 1 to 4 become A to D."""
    choices = record["question"]["choices"]
    labels = [choice["label"] for choice in choices]
    stem = record["question"]["stem"]
    return Row(
        _choice_question(stem, [choice["text"] for choice in choices]),
        _LETTERS[labels.index(record["answerKey"])] if record["answerKey"] in labels else "",
    )


def read_mmlu(record: Record) -> Row:
    """Fields: question, four options, letter. The file is `SUBJECT_SPLIT.csv`."""
    stem, *options, letter = record["fields"]
    if len(options) != 4:
        raise KeyError(f"{len(options)} options")
    split = record["file"].removesuffix(".csv").rsplit("_", 1)[1]
    return Row(_choice_question(stem, options), letter.strip(), split=split)


def read_mgsm(record: Record) -> Row:
    """Fields: question, answer. The file is `mgsm_LANGUAGE.tsv`, and each language a split."""
    question, answer = record["fields"]
    language = record["file"].removesuffix(".tsv").rsplit("_", 1)[1]
    return Row(question.strip(), _number(answer), language=language)


def read_ifeval(record: Record) -> Row:
    """The gold lists what a program checks: arguments that are null left out, whole numbers without
    the `.0` that IFBench writes.
    """
    pairs = zip(record["instruction_id_list"], record["kwargs"], strict=True)
    gold = [
        {"id": name, "kwargs": {k: _whole(v) for k, v in given.items() if v is not None}}
        for name, given in pairs
    ]
    return Row(record["prompt"].strip(), json.dumps(gold, ensure_ascii=False))


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


READERS: dict[str, Callable[[Record], Row]] = {
    "gsm8k": read_gsm8k,
    "math": read_math,
    "math-500": read_math_500,
    "aime": read_aime,
    "amc": read_amc,
    "dapo": read_dapo,
    "svamp": read_svamp,
    "gsm-plus": read_gsm_plus,
    "mbpp": read_mbpp,
    "arc": read_arc,
    "mmlu": read_mmlu,
    "mgsm": read_mgsm,
    "ifeval": read_ifeval,
}


def last_boxed(solution: str) -> str:
    r"""Content of the last balanced `\boxed{…}`, `\fbox{…}` or `\boxed x`; or empty."""
    start = max(solution.rfind("\\boxed"), solution.rfind("\\fbox"))
    if start < 0:
        return ""
    rest = solution[start:].split("ed" if solution[start + 1] == "b" else "box", 1)[1]
    if not rest.startswith("{"):  # "\boxed 5": one word follows
        return rest.split("$")[0].strip()
    depth = 0
    for position, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:position].strip()
    return ""
