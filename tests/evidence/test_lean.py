"""Lines cut by their grammar are accepted, and mean, what they do when they are read whole."""

import gzip
import importlib.util
import io
import json
import random
import sys
from itertools import pairwise

import pytest
from honest_dossier import make_samples, pack

from pellucid.evidence.core import lean as lean_file
from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.lean import lean_samples
from pellucid.evidence.core.sample_fields import HEAD
from pellucid.evidence.core.samples import SampleError, redact_sample, sample_line, samples_of


def outcome(read, lines):
    """Records without token ids up to the first bad line, and whether there was one."""
    data = gzip.compress(b"".join(line + b"\n" for line in lines), 1, mtime=0)
    records = []
    try:
        for line, sample in read(io.BytesIO(data), len(data)):
            records.append((line, {**sample, "token_ids": sample["token_ids"] and []}))
    except SampleError:
        return records, True
    return records, False


def both(lines):
    lean, whole = outcome(lean_samples, lines), outcome(samples_of, lines)
    assert lean == whole
    for (_, one), (_, other) in zip(lean[0], whole[0], strict=True):
        assert {name: type(value) for name, value in one.items()} == {
            name: type(value) for name, value in other.items()
        }
    for (_, one), (_, other) in pairwise(lean[0]):
        if one["sampler"] is other["sampler"]:
            assert all(one[name] == other[name] for name in HEAD)
    return lean


def neighbours():
    """A line of an item, and another of the same item that is read by what differs."""
    first, second = make_samples("after", 2)[:2]
    return sample_line(first), second


@pytest.mark.parametrize(
    "changes",
    [
        {"response": 'He said "no" \\ yes\n\t\u00e9\U0001f600 </think> \\boxed{3}'},
        {"response": "", "token_ids": [], "n_out": 0},
        {"response": 'a","retried":true,"sample_id":3'},
        {"response": "\u2028" * 300, "detail": 'x"y', "method": "second", "retried": True},
        {"detail": "long " * 60, "extracted": "long " * 60, "energy_window": "0003"},
        {"logprob_sum": -1e-07, "wall_ms": 0.5, "energy_window": 'a"b'},
        {"logprob_sum": 0, "wall_ms": 7, "extracted": None},
        {"logprob_sum": -123456.75, "sample_id": (1 << 64) - 1},
        {"finish": "error", "verdict": "error", "error": "out of memory"},
        {"finish": "length", "verdict": "timeout", "supersedes": "0" * 64},
        {"token_ids": [0, 10, 0], "n_out": 3},
        {"token_ids": [5] * 8 + [0] + [123456789] * 17, "n_out": 26},
        {"token_ids": [0] * 8 + [1] * 8, "n_out": 16},
        {"token_ids": [999_999_999, 1_000_000_000, (1 << 31) - 1, 7], "n_out": 4},
        {"k": (1 << 40) - 1},
        {"model": "a" * 64},
        {"gold": "another", "prompt_sha256": "b" * 64, "seed": 77, "eval_serial": 9},
    ],
)
def test_what_samples_may_hold_is_read_alike(changes):
    warm, sample = neighbours()
    changed = sample | changes
    if "token_ids" not in changes:
        changed |= {"n_out": len(changed["token_ids"])}
    records, is_bad = both([warm, canonical_json(changed), canonical_json(sample)])
    assert not is_bad
    assert records[1][1] == {**changed, "token_ids": []}


def test_another_item_is_read_by_what_items_of_an_evaluation_share():
    samples = make_samples("after", 4)
    strange = {"question": 'What is "1" + 1?\\\n\u00e9', "gold": "\\frac12", "n_prompt": 999}
    samples += [s | strange | {"item": f"x/{s['item']}", "cluster": "\u2020"} for s in samples]
    lines = [sample_line(s) for s in samples]
    records, is_bad = both(lines)
    assert not is_bad
    assert [record for _, record in records] == [{**s, "token_ids": []} for s in samples]
    heads = {id(record["sampler"]) for _, record in records}
    assert len(heads) == len({s["item"] for s in samples})


@pytest.mark.parametrize(
    "changes",
    [
        {"item": ""},
        {"item": "x" * 501},
        {"item": "a\u0085b"},
        {"cluster": ""},
        {"cluster": "\u2028"},
        {"n_prompt": 1 << 40},
        {"arm": ""},
        {"suite": "a\u00a0b"},
        {"eval_serial": 1 << 40},
        {"prompt_sha256": "a" * 63},
        {"item_sha256": "A" * 64},
        {"gold": None},
        {"grader": ""},
    ],
)
def test_another_item_is_checked_like_the_first(changes):
    warm, sample = neighbours()
    other = sample | {"item": "other", "question": "Why?"} | changes
    records, is_bad = both([warm, canonical_json(other), warm])
    assert is_bad
    assert len(records) == 1


def test_other_spellings_and_withheld_texts_are_read_alike():
    warm, sample = neighbours()
    line = sample_line(sample)
    spaced = json.dumps(sample).encode()
    escaped = line.replace(b"think", b"\\u0074hink")
    assert escaped != line
    gapped = line.replace(b'"token_ids":[', b'"token_ids":[ ')
    withheld = canonical_json(redact_sample(sample))
    records, is_bad = both([warm, line, spaced, escaped, gapped, withheld, line])
    assert len(records) == 7
    assert not is_bad


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"k":1', b'"k":01'),
        (b'"k":1', b'"k":1.0'),
        (b'"k":1', b'"k":-1'),
        (b'"k":1', b'"k":true'),
        (b'"v":1', b'"v":1.0'),
        (b'"redacted":null', b'"redacted":0'),
        (b'"n_out":', b'"n_out":1'),
        (b"I think", b"I\tthink"),
        (b"I think", b'I "think'),
        (b"I think", b"I \\x think"),
        (b"I think", b"I \\u12 think"),
        (b"I think", b"I \xff think"),
        (b'"response":"', b'"response":"x","response":"'),
        (b'"detail":"', b'"detail":"\x01'),
        (b'"retried":false', b'"retried":null'),
        (b'"finish":"eos"', b'"finish":"stop"'),
        (b'"sample_id":', b'"sample_id":99999999999999999999'),
        (b'"logprob_sum":', b'"logprob_sum":-'),
        (b'"arm":"after"', b'"arm":"aft\ner"'),
        (b'"wall_ms":null}', b'"wall_ms":null} '),
        (b'"wall_ms":null}', b'"wall_ms":null}}'),
        (b'"wall_ms":null}', b'"wall_ms":1e999}'),
        (b'{"arm"', b' {"arm"'),
        (b'"token_ids":[', b'"token_ids":[,'),
        (b'"token_ids":[', b'"token_ids":[0'),
        (b'"token_ids":[', b'"token_ids":[0,'),
        (b'"token_ids":[', b'"token_ids":[1,2,3,4,5,6,7,08,'),
        (b'"token_ids":[', b'"token_ids":[1,2,3,4,5,6,7,8,,'),
        (b'"response":"', b'"response":'),
        (b'"response":"', b'"response":x'),
        (b'"energy_window":null', b'"energy_window":"null'),
    ],
)
def test_a_line_that_is_none_is_refused_beside_a_good_neighbour(old, new):
    warm, sample = neighbours()
    line = sample_line(sample)
    assert line.count(old) == 1
    records, is_bad = both([warm, line.replace(old, new)])
    assert is_bad
    assert len(records) == 1


def test_an_identity_of_more_than_64_bits_is_refused():
    warm, sample = neighbours()
    assert both([warm, canonical_json(sample | {"sample_id": 1 << 64})])[1]


def test_token_ids_are_left_out_however_they_are_spelled():
    warm, _ = neighbours()
    data = pack([warm, warm, warm.replace(b'"token_ids":[', b'"token_ids":[ ')])
    read = lean_samples(io.BytesIO(data), len(data))
    assert [sample["token_ids"] for _, sample in read] == [[], [], []]


@pytest.mark.parametrize("ids", [[1 << 31], [3, 10**40], [0, -1], [True, 2], [5, 1.0]])
def test_numbers_that_are_no_token_ids_are_refused_first_and_beside_a_good_neighbour(ids):
    warm, sample = neighbours()
    line = canonical_json(sample | {"token_ids": ids, "n_out": len(ids)})
    assert both([line]) == ([], True)
    records, is_bad = both([warm, line])
    assert is_bad
    assert len(records) == 1


def test_random_changes_are_judged_alike():
    draw = random.Random(3)
    warm, sample = neighbours()
    lines = [sample_line(sample), canonical_json(redact_sample(sample))]
    refused = 0
    for _ in range(1500):
        line = draw.choice(lines)
        at, size = draw.randrange(len(line)), draw.choice((0, 0, 1, 1, 2, 30))
        put = bytes(draw.choice(b'01,"\\{}[]:.eanx\n\xc3') for _ in range(draw.randrange(3)))
        changed = line[:at] + put + line[at + size :]
        refused += both([warm, changed.replace(b"\n", b" "), line])[1]
    assert 800 < refused < 1500


def test_a_bad_line_is_named_by_its_number():
    warm, sample = neighbours()
    data = pack([warm, sample_line(sample), b"{}"])
    with pytest.raises(SampleError, match="line 3: lacks arm"):
        list(lean_samples(io.BytesIO(data), len(data)))


def test_pythons_with_wrong_possessive_matches_get_a_grammar_without_them(monkeypatch):
    """CPython before 3.11.5 took numbers for token ids that are none."""
    spec = importlib.util.spec_from_file_location("lean_of_earlier_pythons", lean_file.__file__)
    earlier = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 11, 2))
        spec.loader.exec_module(earlier)
    assert not earlier.IS_POSSESSIVE
    assert "+" not in earlier._match_line.__self__.pattern
    warm, sample = neighbours()
    for ids in ([7], [1, 0, 3], list(range(40)), [], [1 << 31], [3, 10**40], [-1]):
        line = canonical_json(sample | {"token_ids": ids, "n_out": len(ids)})
        lines = [warm, line]
        assert outcome(earlier.lean_samples, lines) == outcome(samples_of, lines)
