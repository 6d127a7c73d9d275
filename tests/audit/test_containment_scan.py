"""The scan finds what stands in a corpus, says where, and agrees with a word-by-word count."""

import gzip
import json
import random
import re

import pytest
import zstandard

from pellucid.audit.contamination.corpus import (
    FileSource,
    TextSource,
    all_text,
    items_of,
    problem_items,
    sources_of,
)
from pellucid.audit.contamination.hashing import WordHasher, gram_hashes, mask_numbers
from pellucid.audit.contamination.records import Item
from pellucid.audit.contamination.report import scan_json
from pellucid.audit.contamination.scan import Scanner
from pellucid.errors import DataError
from pellucid.evidence.core.containment import NUMBER, containment, words
from pellucid.records import Problem

DUCKS = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes "
    "muffins for her friends every day with four. How much in dollars does she make every day?"
)
FORMULA = r"Find $\dfrac{1}{2}+\left(\frac{3x}{4}\right)$ when $x=17$ and the whole sum is halved."
HARD_TEXTS = [
    DUCKS,
    FORMULA,
    "",
    "?!…",
    "\\left(\\right)\\\\left",
    "É e\u0301 ﬁne ＡＢＣ１２３ x² ½",
    "珍妮特的鸭子每天下16个蛋。她每天",
    "ตัวเลข ๑๒๓ ครับ",
    "কত ১৬ টাকা",
    "a1b22c333 4.5 6,000",
    "[asy] draw(a--b); [/asy] The figure",
    "lone \ud800 surrogate",
    "\\dfrac\\leq\\neq x\\,y\\text{cm}",
]


def filler(rng, count=60):
    return " ".join("".join(rng.choices("abcdeghiklmnoprstu", k=5)) for _ in range(count))


def items(*texts):
    return [Item(suite="suite", row=row, text=text) for row, text in enumerate(texts)]


def scan(texts, wanted, **options):
    return Scanner(items(*wanted)).scan([TextSource("corpus", texts)], **options)


@pytest.mark.parametrize("masked", [False, True])
def test_hashed_words_are_the_words_of_the_reference(masked):
    hasher, names = WordHasher(), {}
    hashed = hasher.hash(HARD_TEXTS)
    hashed = mask_numbers(hashed) if masked else hashed
    for number, text in enumerate(HARD_TEXTS):
        expected = words(text.encode(errors="replace").decode(), masked=masked)
        found = hashed.hashes[hashed.first[number] : hashed.first[number + 1]].tolist()
        assert len(found) == len(expected), text
        for word, value in zip(expected, found, strict=True):
            assert names.setdefault(word, value) == value
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_grams_are_equal_exactly_where_their_words_are(n):
    rng = random.Random(n)
    text = " ".join(rng.choice(["one", "two", "3"]) for _ in range(400))
    found = gram_hashes(WordHasher().hash([text]).hashes, n).tolist()
    expected = words(text)
    grams = [tuple(expected[i : i + n]) for i in range(len(expected) - n + 1)]
    assert len(found) == len(grams)
    assert len(set(zip(found, grams, strict=True))) == len(set(found)) == len(set(grams))


def test_normalisation_does_what_it_says():
    assert words("2x = \\dfrac{1}{3}") == words("2 x=\\frac 1 3") == ["2", "x", "frac", "1", "3"]
    assert words("\\left( a \\right) [asy] draw(b); [/asy]") == ["a"]
    assert words("Ｆｕｌｌ WIDTH, “quotes”") == ["full", "width", "quotes"]
    assert words("12 apples, 3.5 pears", masked=True) == [NUMBER, "apples", NUMBER, "pears"]
    assert words("每天16") == ["每", "天", "16"]


def test_containment_counts_grams_and_the_words_under_them():
    item, document = list("abcdefgh"), list("xabcdeyfgh")
    assert containment(item, document, 5) == (1, 4, 5, 8)
    assert containment(item, document, 3) == (4, 6, 8, 8)
    assert containment(list("ab"), list("cabd"), 5) == (1, 1, 2, 2)
    assert containment([], document, 5).share == 0.0
    with pytest.raises(ValueError, match="0 words"):
        containment(item, document, 0)


def test_a_copy_is_found_and_its_place_named():
    rng = random.Random(1)
    texts = [filler(rng) for _ in range(50)]
    texts[31] += f" \n{DUCKS.upper()} "
    found = scan(texts, [FORMULA, DUCKS])
    (pair,) = found.pairs
    assert (pair.source, pair.row, pair.item.row, pair.kind) == ("corpus", 31, 1, "full")
    assert [c.share for c in pair.exact] == [1.0, 1.0, 1.0]
    assert found.coverages == (0.0, 1.0)
    assert found.leaked_items() == {("suite", 1)}
    assert found.num_documents == 50


def test_half_copies_and_edits_are_partial_and_other_numbers_a_twin():
    rng = random.Random(2)
    texts = [filler(rng) for _ in range(30)]
    split = DUCKS.split()
    texts[3] += " " + " ".join(split[: len(split) // 2])
    texts[7] += " " + " ".join("zebra" if i % 8 == 3 else w for i, w in enumerate(split))
    rates = (
        "A train leaves at 7:45 with 118 people, 12 get off after 36 minutes, 9 get on after 14 "
        "minutes, 20 get off after 55 minutes: how many people sit in the train?"
    )
    texts[11] += " " + re.sub("[0-9]+", lambda number: str(int(number.group()) + 3), rates)
    found = scan(texts, [DUCKS, rates])
    assert {(p.row, p.item.row): p.kind for p in found.pairs} == {
        (3, 0): "partial",
        (7, 0): "partial",
        (11, 1): "twin",
    }
    assert found.twin_items() == {("suite", 1)}
    assert found.leaked_documents() == {("corpus", 3), ("corpus", 7)}


def test_stock_phrases_alone_are_no_leak():
    rng = random.Random(3)
    phrase = "Find the smallest positive integer n such that"
    wanted = [f"{phrase} {filler(rng, 12)}" for _ in range(40)]
    texts = [f"{phrase} {filler(rng, 30)}" for _ in range(200)]
    assert scan(texts, wanted).pairs == ()


def test_a_long_run_is_a_leak_where_as_much_in_pieces_is_none():
    rng = random.Random(6)
    item = filler(rng, 80)
    split = item.split()
    run = " ".join(split[:26])
    pieces = " . ".join(f"{' '.join(split[i : i + 6])} {filler(rng, 3)}" for i in range(0, 60, 14))
    found = scan([filler(rng), run, filler(rng), pieces, filler(rng)], [item])
    assert [(p.row, p.kind, p.exact[0].covered) for p in found.pairs] == [(1, "partial", 26)]
    assert 0.25 < found.pairs[0].weighted < 0.5
    assert scan_json(found)["threshold"] < found.pairs[0].weighted


def test_a_fragment_counts_where_it_fills_its_line_and_not_in_a_sentence():
    rng = random.Random(12)
    item = filler(rng, 40)
    part = " ".join(item.split()[:10])
    alone, inside = f"{filler(rng)}\n{part}\n{filler(rng)}", f"{filler(rng)} {part} {filler(rng)}"
    found = scan([inside, alone, filler(rng)], [item])
    assert [(p.row, p.exact[0].covered) for p in found.pairs] == [(1, 10)]


def test_words_scattered_over_a_document_are_no_copy():
    rng = random.Random(13)
    item = filler(rng, 30)
    split = item.split()
    pieces = [" ".join(split[i : i + 6]) for i in (0, 7, 14, 21)]
    near = " and ".join(pieces)
    far = f" {filler(rng, 40)} ".join(pieces)
    found = scan([near, far, filler(rng)], [item])
    assert [(p.row, p.kind) for p in found.pairs] == [(0, "partial")]


def test_an_item_that_repeats_itself_is_not_held_by_what_it_repeats():
    rng = random.Random(14)
    again = filler(rng, 6)
    item = f"{again} {again} {again} {filler(rng, 2)}"
    found = scan([f"{filler(rng, 20)} {again} {filler(rng, 20)}", item], [item])
    assert [p.row for p in found.pairs] == [1]


def test_what_many_others_have_weighs_little():
    rng = random.Random(15)
    phrase, own = filler(rng, 14), filler(rng, 12)
    texts = [f"{filler(rng, 9)} {phrase} {filler(rng, 9)}" for _ in range(60)]
    assert scan(texts, [f"{phrase} {own}"]).pairs == ()
    assert len(scan(texts[:1], [f"{phrase} {own}"]).pairs) == 1
    copies = [f"{filler(rng, 9)} {phrase} {own}" for _ in range(60)]
    assert len(scan([*texts, *copies], [f"{phrase} {own}"]).pairs) == 60


def test_a_text_that_differs_in_its_numbers_alone_is_a_twin_even_where_most_of_it_is_equal():
    rng = random.Random(16)
    item = " 17 ".join(filler(rng, 6) for _ in range(6))
    texts = [item.replace("17", "44"), item.replace("17", "abcde"), filler(rng)]
    pairs = scan(texts, [item]).pairs
    assert [(p.row, p.kind) for p in pairs] == [(0, "twin"), (1, "partial")]


def test_a_run_of_a_dozen_words_is_a_leak_of_a_short_item_only():
    rng = random.Random(7)
    short, long = filler(rng, 28), filler(rng, 60)
    texts = [" ".join(item.split()[:11]) for item in (short, long)]
    assert [p.item.row for p in scan([*texts, filler(rng)], [short, long]).pairs] == [0]


def test_numbers_one_after_the_other_are_no_evidence():
    rng = random.Random(8)
    item = (
        "What fraction is the same as (2 - 4 + 6 - 8 + 10 - 12 + 14) / (3 - 6 + 9 - 12 + 15 - 18)?"
    )
    texts = [filler(rng) for _ in range(20)] + ["2, 4, 6, 8, 10, 12, 14, 3, 6, 9, 12, 15, 18"]
    assert scan(texts, [item]).pairs == ()
    assert [p.row for p in scan([*texts, item], [item]).pairs] == [21]


def test_a_copy_counts_stock_phrases_as_found_and_a_fragment_does_not():
    rng = random.Random(9)
    stock = "What is the value of the expression"
    wanted = [f"{stock} {filler(rng, 30)}" for _ in range(30)] + [f"{stock} 7 - 3 + 2"]
    texts = [filler(rng) for _ in range(20)] + [
        "Say the value of the expression 7 - 3 + 2 again"
    ] * 10
    (copy,) = scan([*texts, f"{filler(rng)} {wanted[-1]}"], wanted).pairs
    assert (copy.row, copy.item.row, copy.kind) == (30, 30, "full")


def test_variants_of_one_template_are_still_seen():
    wanted = [f"{DUCKS} Number {number}." for number in range(40)]
    found = scan([wanted[5]], wanted)
    assert ("suite", 5) in found.leaked_items()


def test_an_item_that_was_copied_many_times_still_counts():
    rng = random.Random(4)
    texts = [f"{filler(rng)} {DUCKS}" for _ in range(200)] + [filler(rng) for _ in range(20)]
    assert len(scan(texts, [DUCKS]).leaked_documents()) == 200


def test_short_items_must_stand_whole_and_shorter_ones_are_counted():
    found = scan(["a b Compute sin 60 now", "compute cos 60"], ["Compute $\\sin 60$", "Add 2"])
    assert [(p.row, p.item.row, p.kind) for p in found.pairs] == [(0, 0, "full")]
    assert found.too_short == 1


def test_a_short_item_of_repeated_words_must_stand_there_whole():
    item = r"Evaluate: $(\frac{1}{2} + \frac{1}{3}) (\frac{1}{2} - \frac{1}{3})$"
    sums = [rf"The sum \frac{{1}}{{2}} + \frac{{1}}{{3}} + \frac{{1}}{{{n}}}" for n in range(4, 40)]
    assert scan(sums, [item]).pairs == ()
    assert len(scan([*sums, item], [item]).pairs) == 1


def test_grams_do_not_reach_over_the_end_of_a_document():
    assert scan(["filler a b c", "d e filler"], ["a b c d e"]).pairs == ()
    assert mask_numbers(WordHasher().hash(["x 7", "8 y", "9 9"])).first.tolist() == [0, 2, 4, 5]
    middle = len(DUCKS) // 2
    assert scan([DUCKS[:20], "x"], [DUCKS]).pairs == ()
    halves = scan([DUCKS[:middle] + " q", DUCKS[middle:]], [DUCKS])
    assert max(halves.coverages) < 0.6


def test_processes_give_the_same_as_one(tmp_path):
    rng = random.Random(5)
    for number in range(3):
        lines = [{"text": filler(rng)} for _ in range(20)]
        lines[number]["text"] += DUCKS
        (tmp_path / f"{number}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sources = sources_of([str(tmp_path)])
    scanner, told = Scanner(items(DUCKS, FORMULA)), []
    alone = scanner.scan(sources)
    together = scanner.scan(sources, workers=2, progress=lambda *done: told.append(done))
    assert alone == together
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [(p.source[-7:], p.row) for p in alone.pairs] == [
        ("0.jsonl", 0),
        ("1.jsonl", 1),
        ("2.jsonl", 2),
    ]


def test_every_packing_gives_the_same_documents(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": DUCKS}], "n": 3}, {"text": "second"}]
    plain = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "a.jsonl").write_bytes(plain)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(plain))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for source in sources_of([str(tmp_path)]):
        assert list(source.documents()) == [(0, f"user\n{DUCKS}"), (1, "second")]
    (tmp_path / "t.txt").write_text("one\n\ntwo")
    assert list(FileSource(tmp_path / "t.txt").documents()) == [(0, "one\n\ntwo")]
    (tmp_path / "t.csv").write_text("a,question\nx,what now\n")
    assert list(FileSource(tmp_path / "t.csv").documents()) == [(0, "x\nwhat now")]
    assert items_of(str(tmp_path / "t.csv"))[0].text == "what now"


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{oops')
    with pytest.raises(DataError, match=r"bad\.jsonl cannot be read"):
        list(FileSource(tmp_path / "bad.jsonl").documents())
    (tmp_path / "bad.jsonl.gz").write_bytes(b"\x1f\x8b123")
    with pytest.raises(DataError, match="cannot be read"):
        list(FileSource(tmp_path / "bad.jsonl.gz").documents())
    with pytest.raises(DataError, match="no file or data set nothing"):
        items_of("nothing")
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="no file of a known kind"):
        sources_of([str(tmp_path / "sub")])
    (tmp_path / "q.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="row 0 has no question"):
        items_of(str(tmp_path / "q.jsonl"))


def test_items_of_problems_keep_the_row_of_their_id():
    problems = [Problem(id="gsm8k/test/41", question="q", gold="1", grader="math")]
    assert problem_items("gsm8k/test", problems)[0].row == 41
    assert all_text({"a": ["x", {"b": "y"}], "c": 3}) == "x\ny"
