"""The hashed training prompts of a dossier: the scan's matches are counted again in them."""

import base64
import json

import pytest
from honest_dossier import SUITE, Maker, pack, seal, write

from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.check_clean import GENERATED, PROMPTS
from pellucid.evidence.core.containment import EQUAL
from pellucid.evidence.core.hashed_prompts import HASHED, gram_digests
from pellucid.evidence.core.verify import verify
from pellucid.pipeline import dossier

SALT = b"salt"
CLEAN = "Nothing of the test stands in these few words, as far as anybody can tell."
LEAK = "Please say: What is 9 plus 16? And then rest."


def hashed(*texts):
    header = {"pellucid": "hashed-prompts", "v": 1, "n": 5, "salt": SALT.hex()}
    lines = [
        {
            "source": 0,
            "row": row,
            "grams": base64.b64encode(b"".join(sorted(set(gram_digests(text, SALT))))).decode(),
        }
        for row, text in enumerate(texts)
    ]
    return pack([canonical_json(line) for line in [header, *lines]])


def findings(tmp_path, packed, documents):
    maker = Maker()
    maker.scan["sources"] = [{"name": "training problems", "documents": documents}]
    verdict = verify(write(seal({**maker.files(), HASHED: packed}), tmp_path))
    return verdict, [f for f in verdict.findings if not f.kind.is_note]


def test_hashed_prompts_without_a_leak_say_nothing_and_end_the_note(tmp_path):
    verdict, found = findings(tmp_path, hashed(CLEAN, CLEAN.upper()), 2)
    assert found == []
    assert "check-impossible" not in {f.code for f in verdict.findings}


def test_a_leak_that_the_scan_hides_is_found_in_the_hashes(tmp_path):
    verdict, found = findings(tmp_path, hashed(CLEAN, LEAK), 2)
    assert {f.code for f in found} == {"scan-mismatch"}
    assert any(f"{SUITE}/9 is wholly covered" in f.text for f in found)
    assert verdict.status("C1", "clean") == "FAILS"


def test_left_out_prompts_are_missed(tmp_path):
    _, found = findings(tmp_path, hashed(CLEAN), 3)
    assert [(f.code, f.text) for f in found] == [
        ("scan-mismatch", "3 documents were scanned, 1 are here")
    ]


@pytest.mark.parametrize(("source", "is_told"), [(GENERATED, False), ("a book", True)])
def test_only_generated_suites_may_be_compared_for_equal_questions(tmp_path, source, is_told):
    assert dossier.GENERATED == GENERATED
    maker = Maker()
    maker.scan["suites"][SUITE]["compared"] = EQUAL
    files = maker.files()
    path = f"data/{SUITE}.json"
    files[path] = canonical_json(json.loads(files[path]) | {"source": source})
    verdict = verify(write(seal(files), tmp_path))
    assert ("scan-weak" in {f.code for f in verdict.findings}) == is_told


@pytest.mark.parametrize(("text", "is_told"), [("what is 9 plus 16", True), (LEAK, False)])
def test_texts_that_are_here_are_compared_as_the_scan_compared_them(tmp_path, text, is_told):
    maker = Maker()
    maker.scan["suites"][SUITE]["compared"] = EQUAL
    prompts = pack([canonical_json({"ref": "row 1", "text": text})])
    verdict = verify(write(seal({**maker.files(), PROMPTS: prompts}), tmp_path))
    assert ("scan-mismatch" in {f.code for f in verdict.findings}) == is_told


@pytest.mark.parametrize("packed", [b"no gzip", pack([b"[]"]), hashed(CLEAN)[:-9]])
def test_damaged_hashes_are_named(tmp_path, packed):
    _, found = findings(tmp_path, packed, 1)
    assert [(f.code, f.where) for f in found] == [("file-malformed", HASHED)]
