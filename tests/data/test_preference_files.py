"""Published preference sets in their own formats, and the plain one."""

import gzip
import json
from pathlib import Path

import pytest

from pellucid.data.preferences import (
    LabelledResponse,
    PreferencePair,
    read_labelled,
    read_pairs,
    split_by_prompt,
)
from pellucid.errors import DataError


def write(path: Path, records: list) -> Path:
    text = "".join(json.dumps(r) + "\n" for r in records)
    if ".jsonl" not in path.name:
        text = json.dumps(records)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_hh_dialogues_are_cut_before_the_last_answer(tmp_path: Path) -> None:
    head = "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: And\n\nwhy that?"
    rows = [
        {"chosen": f"{head}\n\nAssistant: Good.", "rejected": f"{head}\n\nAssistant: Bad."},
        {"chosen": f"{head}\n\nAssistant: Good.", "rejected": "\n\nHuman: X\n\nAssistant: Bad."},
        {"chosen": f"{head}\n\nAssistant: ", "rejected": f"{head}\n\nAssistant: Bad."},
        {"chosen": f"{head}\n\nAssistant: A", "rejected": f"{head}\n\nAssistant: A"},
        {"chosen": head, "rejected": head},
    ]
    read = read_pairs(write(tmp_path / "helpful-base_test.jsonl.gz", rows))
    assert read.rows == [
        PreferencePair(
            id="helpful-base_test/0",
            prompt=(
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Because."},
                {"role": "user", "content": "And\n\nwhy that?"},
            ),
            chosen="Good.",
            rejected="Bad.",
        )
    ]
    assert read.dropped == {
        "the dialogues differ before the answer": 1,
        "an empty answer": 1,
        "equal answers": 1,
        "no question and answer at the end": 1,
    }


def test_rm_bench_gives_nine_pairs_a_prompt_by_difficulty(tmp_path: Path) -> None:
    row = {
        "id": 8,
        "subset": "alpacaeval",
        "prompt": "Drawers?",
        "chosen": ["c0", "c1", "c2"],
        "rejected": ["r0", "r1", "r2"],
    }
    pairs = read_pairs(write(tmp_path / "chat_filtered.json.gz", [row])).rows
    assert len(pairs) == 9
    found = {(p.chosen, p.rejected): p.subset for p in pairs}
    assert found["c0", "r2"] == "hard"  # a plain answer against an adorned one
    assert found["c2", "r0"] == "easy"
    assert found["c1", "r1"] == "normal"
    assert [*found.values()].count("hard") == 3
    assert len({p.cluster for p in pairs}) == 1
    with pytest.raises(DataError, match="no labelled responses: records need prompt"):
        read_labelled(write(tmp_path / "chat.json", [row]))


def test_judgebench_puts_the_labelled_answer_first(tmp_path: Path) -> None:
    row = {"question": "?", "response_A": "a", "response_B": "b", "source": "mmlu-pro-law"}
    rows = [row | {"label": "A>B"}, row | {"label": "B>A"}, row | {"label": "A=B"}]
    read = read_pairs(write(tmp_path / "judgebench.jsonl", rows))
    assert [(p.chosen, p.rejected) for p in read.rows] == [("a", "b"), ("b", "a")]
    assert read.rows[0].subset == "mmlu-pro-law"
    assert sum(read.dropped.values()) == 1


def test_own_lines_are_read_back_as_they_were(tmp_path: Path) -> None:
    messages = ({"role": "user", "content": "Hi"},)
    pairs = [
        PreferencePair(id="a", prompt="Hi", chosen="Hello!", rejected="What?", subset="s"),
        PreferencePair(id="b", prompt=messages, chosen="Hello!", rejected="What?"),
    ]
    path = write(tmp_path / "pairs.jsonl", [p.to_dict() for p in pairs])
    assert read_pairs(path).rows == pairs
    labelled = [
        LabelledResponse(id="a", prompt="Hi", response="Hello!", safe=True),
        LabelledResponse(id="b", prompt=messages, response="Die!", safe=False, subset="s"),
    ]
    rows = [r.to_dict() for r in labelled]
    path = write(tmp_path / "labels.jsonl", [*rows, rows[0] | {"safe": "yes"}])
    read = read_labelled(path)
    assert read.rows == labelled
    assert read.dropped == {"safe is neither true nor false": 1}


def test_refusals_of_rm_bench_are_labels(tmp_path: Path) -> None:
    row = {
        "subset": "refusals-dangerous",
        "prompt": "Poison?",
        "chosen": ["No.", "I cannot.", "**No**"],
        "rejected": ["Take", "First", "**Take**"],
    }
    rows = read_labelled(write(tmp_path / "safety-refuse_filtered.json", [row])).rows
    assert [(r.response, r.safe) for r in rows[::3]] == [("No.", True), ("Take", False)]
    assert len(rows) == 6


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_pairs(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match=r"no preference pairs: records need .*, not a"):
        read_pairs(write(tmp_path / "x.jsonl", [{"a": 1}]))
    with pytest.raises(DataError, match="holds no records"):
        read_pairs(write(tmp_path / "empty.jsonl", []))
    good = {"prompt": "?", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match="record 2 differs from the first: 'rejected'"):
        read_pairs(write(tmp_path / "y.jsonl", [good, {"prompt": "?", "chosen": "a"}]))
    with pytest.raises(DataError, match="none of its 1 rows can be used"):
        read_pairs(write(tmp_path / "z.jsonl", [good | {"chosen": "b"}]))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b"{}" * 99)[:-12])
    with pytest.raises(DataError, match="cut short"):
        read_pairs(cut)


def test_a_prompt_is_never_both_learnt_and_measured() -> None:
    pairs = [
        PreferencePair(id=f"{i}", prompt=f"p{i % 20}", chosen="a", rejected="b") for i in range(100)
    ]
    split = split_by_prompt(pairs, 0.1, seed=3)
    assert len(split.held_out) == 10
    assert not {p.prompt for p in split.held_out} & {p.prompt for p in split.train}
    assert sorted(p.id for half in split for p in half) == sorted(p.id for p in pairs)
    assert split_by_prompt(pairs, 0.1, seed=4) != split
    assert len(split_by_prompt(pairs, 0.001, seed=3).held_out) == 5
    with pytest.raises(DataError, match="1 prompts cannot be split"):
        split_by_prompt(pairs[::20], 0.1, seed=3)
