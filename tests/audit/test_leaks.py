"""Planted leaks are found and counted, and what is written down can be counted again."""

import json
import random

import pytest
from typer.testing import CliRunner

from pellucid.audit.contamination.corpus import TextSource
from pellucid.audit.contamination.leaks import (
    LEAKS,
    PLANTED,
    Plant,
    SelfTest,
    plant,
    scan_and_test,
)
from pellucid.audit.contamination.records import Item
from pellucid.audit.contamination.report import by_suite, counts, scan_json
from pellucid.audit.contamination.scan import Scanner
from pellucid.cli.audit import app
from pellucid.evidence.core.containment import check_match, words


def sentence(rng, count):
    return " ".join("".join(rng.choices("abcdeghiklmnoprstu", k=5)) for _ in range(count))


@pytest.fixture
def world():
    rng = random.Random(7)
    items = [
        Item(suite="exam", row=row, text=sentence(rng, 30), answer=str(row)) for row in range(25)
    ]
    corpus = [sentence(rng, 80) for _ in range(60)]
    corpus[17] += "\n" + items[4].text.title()
    corpus[40] = items[9].text.split()[0] + " " + " ".join(items[9].text.split()[15:])
    return items, corpus


def test_all_five_kinds_are_recovered_and_the_plants_leave_no_trace(world):
    items, corpus = world
    scanner, source = Scanner(items), TextSource("corpus", corpus)
    scan, test = scan_and_test(scanner, [source], per_kind=20)
    assert list(test.recalls) == list(LEAKS)
    assert {kind: (e.value, e.n) for kind, e in test.recalls.items()} == dict.fromkeys(
        LEAKS, (1.0, 20)
    )
    assert test.recall == 1.0
    assert (test.documents, test.flagged, test.at_most_false) == (60, 2, 1)
    assert scan.leaked_documents() == {("corpus", 17), ("corpus", 40)}
    assert scan.leaked_items() == {("exam", 4), ("exam", 9)}
    alone = scanner.scan([source])
    assert [round(c, 1) for c in scan.coverages] == [round(c, 1) for c in alone.coverages]
    assert sum(c > 0 for c in scan.coverages) == 2


def test_recall_is_told_by_the_length_of_the_items():
    plants = [Plant(kind, 12, kind != "half copy") for kind in LEAKS for _ in range(20)]
    plants += [Plant(kind, 30, True) for kind in LEAKS for _ in range(20)]
    test = SelfTest(plants=plants, documents=9, flagged=0, at_most_false=0)
    assert [(least, recall) for least, recall, _ in test.by_length] == [(10, 0.8), (25, 1.0)]
    assert test.recalls["half copy"].value == 0.5
    assert test.reliable_from == 14
    told = test.as_json()
    assert told["reliable_from_words"] == 14
    assert told["recall_by_length"][0]["words_from"] == 10
    assert told["recall_by_length"][0]["recall"]["half copy"] == 0.0
    assert told["recall_by_length"][1]["planted"] == dict.fromkeys(LEAKS, 20)


def test_of_too_few_leaks_no_recall_is_claimed():
    plants = [Plant(kind, 30, True) for kind in LEAKS for _ in range(19)]
    test = SelfTest(plants=plants, documents=9, flagged=0, at_most_false=0)
    assert test.recall == 1.0
    assert test.reliable_from is None


def test_a_scanner_that_sees_nothing_has_no_recall(world, monkeypatch):
    items, corpus = world
    monkeypatch.setattr("pellucid.audit.contamination.scan.decide", _nothing)
    _, test = scan_and_test(Scanner(items), [TextSource("corpus", corpus)], per_kind=5)
    assert test.recall == 0.0
    assert all(e.value == 0.0 and e.high < 0.5 for e in test.recalls.values())


def _nothing(index, rows, **_):
    from pellucid.audit.contamination.decide import decide
    from pellucid.audit.contamination.index import Match

    return decide(index, Match(*(column[:0] for column in rows)))


def test_the_kinds_do_what_their_names_say():
    item = Item(suite="s", row=0, text=" ".join(f"w{i}" for i in range(32)), answer="41")
    rng = random.Random(0)
    leak = {kind: make(rng, item, ["other"]) for kind, make in LEAKS.items()}
    assert leak["verbatim"] == f"{item.text}\n41"
    assert leak["question without answer"] == item.text
    assert words(leak["case and punctuation"])[:64] == words(item.text)
    assert leak["case and punctuation"] != item.text
    assert len(leak["half copy"].split()) == 16
    assert leak["half copy"] in item.text
    edited = leak["one word in eight edited"].split()
    assert sum(a != b for a, b in zip(edited, item.text.split(), strict=True)) == 4


def test_plants_are_a_function_of_the_seed_and_use_all_items(world):
    items, corpus = world
    source = TextSource("corpus", corpus)
    first = plant(items, [source], seed=1, per_kind=30)
    assert first == plant(items, [source], seed=1, per_kind=30)
    assert first != plant(items, [source], seed=2, per_kind=30)
    assert {item.row for _, item in first[1]} == set(range(25))
    assert plant(items, [], seed=1, per_kind=2)[0]


def test_scan_json_lists_every_item_and_can_be_counted_again(world):
    items, corpus = world
    scan, test = scan_and_test(Scanner(items), [TextSource("corpus", corpus)], per_kind=4)
    document = json.loads(json.dumps(scan_json(scan, test)))
    listed = document["suites"]["exam"]["items"]
    assert set(listed) == {item.id for item in items}
    over = {i for i, entry in listed.items() if entry["containment"] >= document["threshold"]}
    assert over == {"exam/4", "exam/9"}
    match = listed["exam/9"]["matches"][0]
    assert (match["source"], match["row"], match["kind"]) == ("corpus", 40, "partial")
    assert match["words"] == [15, 30]
    assert check_match(match, items[9].text, corpus[40]) is None
    assert "are claimed" in check_match(match, items[9].text, corpus[17])
    forged = match | {"words": [3, 30]}
    assert "3 of 30 words are claimed, 15 of 30 counted" in check_match(
        forged, items[9].text, corpus[40]
    )
    assert document["self_test"]["documents"] == 60
    assert PLANTED not in json.dumps(document["suites"])
    assert counts(scan) == {
        "documents": 60,
        "items": 25,
        "items_too_short": 0,
        "leaked_documents": 2,
        "leaked_items": 2,
        "twin_items": 0,
    }
    assert by_suite(scan) == {"exam": {"items": 25, "full": 1, "partial": 1, "twin": 0}}


def test_the_command_names_file_and_row(world, tmp_path):
    items, corpus = world
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in corpus))
    (tmp_path / "exam.jsonl").write_text("\n".join(json.dumps({"question": i.text}) for i in items))
    arguments = ["contamination", str(tmp_path / "c.jsonl"), "--against"]
    out = tmp_path / "scan.json"
    result = CliRunner().invoke(app, [*arguments, str(tmp_path / "exam.jsonl"), "--out", str(out)])
    assert result.exit_code == 1, result.output
    assert "c.jsonl row 17: 100.0 % of" in result.output
    assert "half copy 100.0 %" in result.output
    assert "on to the next: 25: 100.0 %" in result.output
    assert "95.0 % or more are found in items of 0 words or more" in result.output
    assert json.loads(out.read_text())["counts"]["leaked_items"] == 2
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": corpus[0]}))
    clean = CliRunner().invoke(app, [*arguments, str(tmp_path / "exam.jsonl"), "--json"])
    assert clean.exit_code == 0
    assert json.loads(clean.stdout)["counts"]["leaked_items"] == 0
