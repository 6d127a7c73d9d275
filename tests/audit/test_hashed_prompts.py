"""Hashed prompts give the verdicts that the text would give, and hold no text."""

import base64
import gzip
import json
import random

import pytest
from typer.testing import CliRunner

from pellucid.audit.contamination.corpus import TextSource
from pellucid.audit.contamination.hashed import gram_digests, read_hashed, scan_hashed, write_hashed
from pellucid.audit.contamination.records import Item
from pellucid.audit.contamination.scan import Scanner
from pellucid.cli.audit import app
from pellucid.errors import DataError


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
    assert json.loads(lines[1]).keys() == {"source", "row", "grams"}
    grams = base64.b64decode(json.loads(lines[1])["grams"])
    split = [grams[i : i + 8] for i in range(0, len(grams), 8)]
    assert split == sorted(split), "the order of the text must not show"
    assert [len(g) for _, _, g in read_hashed(path)[1]][:2] == [46, 46]


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
