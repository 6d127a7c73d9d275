"""Hashed prompts give the verdicts that the text would give, and hold no text."""

import base64
import gzip
import json
import random

import pytest
from typer.testing import CliRunner

from pellucid.audit.contamination.corpus import TextSource
from pellucid.audit.contamination.hashed import read_hashed, scan_hashed, write_hashed
from pellucid.audit.contamination.records import Item
from pellucid.audit.contamination.report import scan_json
from pellucid.audit.contamination.scan import Scanner
from pellucid.cli.audit import app
from pellucid.errors import DataError
from pellucid.evidence.core.hashed_prompts import (
    HashedError,
    count_again,
    gram_digests,
    parse_hashed,
)


@pytest.fixture
def world():
    rng = random.Random(11)

    def text(count):
        return " ".join("".join(rng.choices("abcdeghiklmnoprstu", k=5)) for _ in range(count))

    items = [Item(suite="exam", row=row, text=text(30)) for row in range(12)]
    corpus = [text(50) for _ in range(40)]
    corpus[5] += items[2].text.upper()
    corpus[9] = " ".join(items[7].text.split()[:15]) + " " + corpus[9]
    return items, corpus


def test_the_verdicts_are_those_of_the_text(world, tmp_path):
    items, corpus = world
    path = tmp_path / "p.hashed.jsonl.gz"
    sources = [TextSource("secret-a", corpus[:8]), TextSource("secret-b", corpus[8:])]
    assert write_hashed(sources, path, b"salt") == 40
    hashed, plain = scan_hashed(items, path), Scanner(items).scan(sources)
    shown = [(p.row, p.item.row, p.kind, p.weighted, p.evidence, p.exact[0]) for p in plain.pairs]
    assert [
        (p.row, p.item.row, p.kind, p.weighted, p.evidence, p.exact[0]) for p in hashed.pairs
    ] == shown
    assert len(shown) == 2
    assert [p.source for p in hashed.pairs] == ["p.hashed.jsonl.gz: 0", "p.hashed.jsonl.gz: 1"]
    assert hashed.coverages == plain.coverages


def test_no_word_and_no_name_is_in_the_file(world, tmp_path):
    _, corpus = world
    path = tmp_path / "p.hashed.jsonl.gz"
    write_hashed([TextSource("secret", corpus)], path, b"salt")
    written = gzip.decompress(path.read_bytes()).decode()
    assert "secret" not in written
    assert not any(word in written for text in corpus for word in text.split()[:3])
    lines = written.splitlines()
    assert json.loads(lines[1]).keys() == {"source", "row", "grams", "whole"}
    grams = base64.b64decode(json.loads(lines[1])["grams"])
    split = [grams[i : i + 8] for i in range(0, len(grams), 8)]
    assert split == sorted(split), "the order of the text must not show"
    assert [len(d.grams) for d in read_hashed(path)[1]][:2] == [46, 46]


def test_another_salt_gives_other_hashes():
    one, other = (set(gram_digests("a b c d e f g", salt)) for salt in (b"1", b"2"))
    assert len(one) == len(other) == 3
    assert not one & other


def test_what_is_no_such_file_is_refused(world, tmp_path):
    items, corpus = world
    source = TextSource("s", corpus)
    with pytest.raises(DataError, match=r"end it in \.hashed"):
        write_hashed([source], tmp_path / "p.jsonl", b"salt")
    with pytest.raises(DataError, match="0 bytes"):
        write_hashed([source], tmp_path / "p.hashed.jsonl.gz", b"")
    path = tmp_path / "q.hashed.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    with pytest.raises(DataError, match="holds no hashed prompts"):
        scan_hashed(items, path)
    header = {"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": "00"}
    lines = [header, {"source": 0, "row": 0, "grams": "AAAA"}]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    with pytest.raises(DataError, match="is damaged"):
        scan_hashed(items, path)


@pytest.fixture
def recounting(world, tmp_path):
    """(scan.json, function that counts a changed one again in the hashes)"""
    items, corpus = world
    corpus[20] += f" {items[4].text}"
    source, path = TextSource("training problems", corpus), tmp_path / "p.hashed.jsonl.gz"
    write_hashed([source], path, b"salt")
    scanned = json.loads(json.dumps(scan_json(Scanner(items).scan([source]))))
    questions = {("exam", item.id): item.text for item in items}

    def again(scan, keep=40):
        lines = gzip.decompress(path.read_bytes()).splitlines()[: keep + 1]
        return count_again(scan, questions, *parse_hashed(lines))

    return scanned, again


def test_the_matches_of_a_scan_are_counted_again_in_the_hashes(recounting):
    scan, again = recounting
    assert again(scan) == ([], 40, 3)


def test_a_scan_that_says_otherwise_than_the_hashes_is_told(recounting):
    scan, again = recounting
    item = scan["suites"]["exam"]["items"]["exam/7"]
    match = item["matches"][0]
    honest = dict(match)
    match["words"] = [14, 30]
    assert again(scan).problems == ["exam/7, row 9: [11, 26, 14, 30] claimed, [11, 26, 15, 30]"]
    match |= honest | {"row": 41}
    assert again(scan).problems == ["1 matches are in documents that are not here"]
    match |= honest
    whole = scan["suites"]["exam"]["items"]["exam/4"]
    whole |= {"containment": 0.0, "matches": []}
    assert again(scan).problems == ["exam/4 is wholly covered, recorded is no leak"]
    assert "40 documents were scanned, 30 are here" in again(scan, keep=30).problems


def test_of_a_suite_compared_for_equal_questions_those_alone_count(tmp_path):
    path, ask = tmp_path / "p.hashed.jsonl.gz", "Calculate 11 - 24 * (25 + 8)."
    write_hashed([TextSource("made", [ask.replace("+", "-"), ask.upper()])], path, b"salt")
    about = {"containment": 0.0, "matches": []}
    scan = {
        "threshold": 1.0,
        "suites": {"sums": {"compared": "equal questions", "items": {"sums/0": about}}},
        "dropped": ["one"],
    }
    salt, documents = read_hashed(path)
    first, second = documents
    assert count_again(scan, {("sums", "sums/0"): ask}, salt, [first]).problems == []
    told = ["sums/0 is wholly covered, recorded is no leak"]
    assert count_again(scan, {("sums", "sums/0"): ask}, salt, [second]).problems == told
    older = second._replace(whole=None)
    assert count_again(scan, {("sums", "sums/0"): ask}, salt, [older]).problems == []


@pytest.mark.parametrize("wrong", [{"row": []}, {"grams": 3}, {"source": "else"}, {"words": None}])
def test_matches_of_a_wrong_shape_are_refused(recounting, wrong):
    scan, again = recounting
    scan["suites"]["exam"]["items"]["exam/7"]["matches"][0] |= wrong
    with pytest.raises(HashedError, match="does not go with"):
        again(scan)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"[]"],
        [b'{"pellucid": "hashed-prompts", "v": 2, "n": 5, "salt": "00"}'],
        [b'{"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": "xy"}'],
        [b'{"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": ""}'],
        [b'{"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": "00"}', b'{"row": 1}'],
        [b'{"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": "00"}', b"{"],
        [
            b'{"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": "00"}',
            b'{"source": 0, "row": 0, "grams": "AAAA"}',
        ],
        [
            b'{"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": "00"}',
            b'{"source": 0, "row": 0, "grams": "", "whole": 7}',
        ],
    ],
)
def test_damaged_hashes_are_refused(lines):
    with pytest.raises(HashedError):
        list(parse_hashed(lines)[1])


def test_the_two_commands_work_together(world, tmp_path):
    items, corpus = world
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in corpus))
    (tmp_path / "exam.jsonl").write_text("\n".join(json.dumps({"question": i.text}) for i in items))
    out = str(tmp_path / "p.hashed.jsonl.gz")
    made = CliRunner().invoke(app, ["hash-prompts", str(tmp_path / "c.jsonl"), "--out", out])
    assert made.exit_code == 0, made.output
    found = CliRunner().invoke(
        app, ["contamination", out, "--against", str(tmp_path / "exam.jsonl")]
    )
    assert found.exit_code == 1, found.output
    assert "row 5: 96.2 % of" in found.output
    assert "no self-test" in found.output
