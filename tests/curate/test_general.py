"""General data: rows are checked one by one, public sets by their digest."""

import gzip
import json

import pytest

from pellucid.artifacts import sha256_bytes
from pellucid.curate import general
from pellucid.curate.general import (
    GeneralRow,
    load_general,
    most_general,
    read_dolly,
    read_file,
    read_instruction,
    read_self_instruct,
    to_example,
)
from pellucid.errors import DataError
from pellucid.tasks.templates import TEMPLATES

TALK = [{"role": "user", "content": "Hi"}]


def test_rows_of_a_file(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": "Name a river.", "response": "The Elbe."},
        {"messages": TALK, "response": "Hello", "thinking": "A greeting.", "language": "de"},
    ]
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    assert read_file(path) == [
        GeneralRow(id="mine/0", prompt="Name a river.", response="The Elbe."),
        GeneralRow(
            id="mine/2", prompt=tuple(TALK), response="Hello", thinking="A greeting.", language="de"
        ),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{oops", "is no JSON"),
        ("[1]", "must be an object"),
        ({"prompt": "a"}, "response is missing"),
        ({"prompt": "a", "response": 3}, "response must be text"),
        ({"prompt": "a", "response": " "}, "response is empty"),
        ({"prompt": "", "response": "b"}, "prompt is empty"),
        ({"prompt": "a", "messages": TALK, "response": "b"}, "either prompt or messages"),
        ({"response": "b"}, "either prompt or messages"),
        ({"messages": [], "response": "b"}, "messages must be a list of objects"),
        ({"messages": [{"role": "me", "content": "a"}], "response": "b"}, "messages must be"),
        (
            {"messages": [*TALK, {"role": "assistant", "content": "b"}], "response": "b"},
            "the last message must be the user's",
        ),
        ({"prompt": "a", "response": "b", "anser": "c"}, "unknown field 'anser'"),
        ({"prompt": "a", "response": "<think>b"}, "must not hold <think>"),
        ({"prompt": "a", "response": "b", "language": "xx"}, "no script known for language 'xx'"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, reason) -> None:
    path = tmp_path / "mine.jsonl"
    bad = row if isinstance(row, str) else json.dumps(row)
    path.write_text('{"prompt": "a", "response": "b"}\n' + bad + "\n")
    with pytest.raises(DataError, match=rf"mine.jsonl line 2:? .*{reason}"):
        read_file(path)


def test_missing_and_empty_files_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"none of embedded, dolly-1k, .*: correct general.sources"):
        load_general([str(tmp_path / "nothing.jsonl")], 3, seed=0)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no row"):
        load_general([str(tmp_path / "empty.jsonl")], 3, seed=0)


DOLLY = 'instruction,context,response,category\nWho?,"A ""b"",\nc",Me.,qa\nWhy?,,So.,qa\n'
SEEDS = [
    {"instruction": "Say it.", "instances": [{"input": "x\u2028y", "output": "It."}]},
    {"instruction": "Go.", "instances": [{"input": "", "output": "Gone."}]},
]
PLAIN = [{"instruction": "Fix:", "input": "freind", "output": "friend"}]


def test_public_sets_are_read_by_their_own_format() -> None:
    assert list(read_dolly(DOLLY.encode())) == [('Who?\n\nA "b",\nc', "Me."), ("Why?", "So.")]
    seeds = "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in SEEDS).encode()
    assert list(read_self_instruct(seeds)) == [("Say it.\n\nx\u2028y", "It."), ("Go.", "Gone.")]
    assert list(read_instruction(json.dumps(PLAIN).encode())) == [("Fix:\n\nfreind", "friend")]


def test_a_public_set_is_checked_against_its_digest(tmp_path, monkeypatch) -> None:
    payload = json.dumps([*PLAIN, {"instruction": "a", "input": "", "output": " "}]).encode()
    public = general.PublicSet(
        file="tiny/data.json", original_sha256=sha256_bytes(payload), rows=read_instruction
    )
    monkeypatch.setitem(general.PUBLIC, "tiny", public)
    with pytest.raises(DataError, match=r"'tiny' is not at .*data.json.gz .*put the published"):
        load_general(["tiny"], 5, seed=0, data_dir=tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/data.json.gz").write_bytes(gzip.compress(payload))
    row = GeneralRow(id="tiny/0", prompt="Fix:\n\nfreind", response="friend")
    assert load_general(["tiny"], 5, seed=0, data_dir=tmp_path) == [row]
    (tmp_path / "tiny/data.json.gz").write_bytes(gzip.compress(payload + b" "))
    with pytest.raises(DataError, match="was altered: expected sha256"):
        load_general(["tiny"], 5, seed=0, data_dir=tmp_path)


def test_a_sample_is_drawn_by_the_seed(tmp_path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(f'{{"prompt": "p{i}", "response": "r"}}\n' for i in range(40)))

    def draw(seed: int) -> list[str]:
        return [row.prompt for row in load_general([str(path)], 5, seed=seed)]

    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) == 5
    assert len(load_general([str(path), "embedded"], 10**6, seed=1)) > 100


def test_rows_take_the_form_of_the_template() -> None:
    row = GeneralRow(id="g/0", prompt="Hello?", response=" Hi. ")
    chat = to_example(row, TEMPLATES["r1-chat"])
    assert chat.prompt == ({"role": "user", "content": "Hello?"},)
    assert chat.response == "<think>\n\n</think>\n\nHi."
    assert (chat.kind, chat.grader, chat.token_ids) == ("general", "open", None)
    assert to_example(row, TEMPLATES["chat"]).response == "Hi."
    tiny = to_example(
        GeneralRow(id="g/1", prompt="a", response="b", thinking="c"), TEMPLATES["tiny"]
    )
    assert (tiny.prompt, tiny.response) == ("a", " <think> c </think> <answer> b </answer>")
    talk = GeneralRow(id="g/2", prompt=tuple(TALK), response="Hello")
    assert to_example(talk, TEMPLATES["tiny"]).prompt == "Hi"
    longer = GeneralRow(id="g/3", prompt=tuple(TALK * 2), response="Hello")
    assert to_example(longer, TEMPLATES["chat"]).prompt == tuple(TALK * 2)
    with pytest.raises(DataError, match="g/3 is a conversation, which template 'tiny' cannot hold"):
        to_example(longer, TEMPLATES["tiny"])


@pytest.mark.parametrize(
    ("sampled", "share", "most"), [(3, 0.25, 1), (600, 0.25, 200), (2, 0.25, 0)]
)
def test_general_data_is_at_most_its_share(sampled, share, most) -> None:
    assert most_general(sampled, share) == most
