"""Packed samples give back the same lines, and a stranger's packed file cannot do harm."""

import gzip
import io
import json
from collections import deque

import pytest
from honest_dossier import make_samples

from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.lean import lean_samples
from pellucid.evidence.core.packed import Packer, PackError, Unpacker
from pellucid.evidence.core.samples import SampleError, read_lines, read_samples, redact_sample
from pellucid.evidence.evaluations import SamplesWriter, packed_texts

LIMIT = 1 << 20
TEXTS = {3: b"The answer", 5: b" ist ", 7: "größer".encode()[:3], 8: "größer".encode()[3:],
         9: b"", 20_000: "日".encode()}  # fmt: skip
HEADER = b'{"packed":1,"start":""}'


def sample(**changed):
    made = {**make_samples("after", 1)[0], **changed}
    return made | {"n_out": len(made["token_ids"] or ())}


def spoken(ids, start="<think>"):
    text = start + b"".join(TEXTS[token] for token in ids).decode(errors="replace")
    return sample(token_ids=list(ids), response=text)


def packed_lines(samples, texts=TEXTS):
    packer = Packer(texts)
    return [line for one in samples for line in packer.lines(canonical_json(one), one)]


def unpacked(lines):
    unpacker = Unpacker(lines[0], LIMIT)
    return [unpacker.line(line) for line in lines[1:]]


def test_text_is_rebuilt_from_tokens_and_what_stays_is_left_out():
    samples = [spoken([3, 5, 7, 8, 20_000, 9]), spoken([3, 3, 5, 9]) | {"k": 1}]
    lines = packed_lines(samples)
    assert unpacked(lines) == [canonical_json(one) for one in samples]
    assert lines[0] == b'{"packed":1,"start":"<think>"}'
    fields, new = json.loads(lines[2])
    assert fields.keys() == {"k", "n_out", "token_ids"}
    assert new == []


@pytest.mark.parametrize(
    "change",
    [
        {"response": "said something else"},
        {"response": "", "token_ids": [], "finish": "length"},
        {"token_ids": [4, 123_456], "response": "tokens without texts"},
        {"logprob_sum": -0.0},
        {"logprob_sum": 0.0},
        {"logprob_sum": 1e-300, "retried": True},
        {"sampler": {"stop": [], "temperature": 1.0}},
        {"sampler": {"stop": [], "temperature": 1}},
        {"extracted": None},
    ],
    ids=lambda change: " ".join(change),
)
def test_no_line_changes(change):
    plain = spoken([3, 5])
    samples = [plain, {**plain, **change}, plain, redact_sample(plain), plain]
    assert unpacked(packed_lines(samples)) == [canonical_json(one) for one in samples]


def test_a_line_in_another_form_is_kept_as_it_is():
    one = spoken([3])
    line = json.dumps(one).encode()
    packer = Packer(TEXTS)
    lines = [*packer.lines(line, one), *packer.lines(canonical_json(one), one)]
    assert unpacked(lines) == [line, canonical_json(one)]


def test_many_tokens_have_many_signs():
    ids = list(range(60_000))
    one = sample(token_ids=ids, response="x")
    assert unpacked(packed_lines([one], {})) == [canonical_json(one)]


def test_files_are_read_packed_or_plain(tmp_path):
    samples = make_samples("after", 1)
    for name, texts in (("plain", None), ("packed", TEXTS)):
        with SamplesWriter(tmp_path / name, texts) as writer:
            for one in samples:
                writer.add(canonical_json(one), one)
    assert gzip.decompress((tmp_path / "packed").read_bytes()).startswith(b'{"packed":1')
    assert list(read_samples(tmp_path / "packed")) == list(read_samples(tmp_path / "plain"))
    with (tmp_path / "packed").open("rb") as file:
        lean = [line for line, _ in lean_samples(file, LIMIT)]
    assert lean == [canonical_json(one) for one in samples]
    assert packed_texts(tmp_path / "plain") is None
    assert packed_texts(tmp_path / "packed").keys() == {
        token for one in samples for token in one["token_ids"]
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[", "no JSON"),
        (b"7", "neither a sample nor a packed one"),
        (b"[{},[],[]]", "neither a sample nor a packed one"),
        (b'[{"token_ids":"#"},[]]', "not announced"),
        (b"[{},[]]", "neither its text nor its tokens"),
        (b'[{"token_ids":null},[]]', "neither its text nor its tokens"),
        (b'[{"token_ids":"#"},[[1,"a"],[1,"b"]]]', "a new token twice"),
        (b'[{"token_ids":"#"},[[true,"a"]]]', "a new token that is none"),
        ('[{"token_ids":"#"},[[1,"ā"]]]'.encode(), "whose text is no bytes"),
        (b'[{"token_ids":"#"},[[1,"%s"]]]' % (b"a" * 2000), "too long"),
        (b'[{"token_ids":"%s"},[[1,"%s"]]]' % (b"#" * 2000, b"a" * 1000), "a response of more"),
        (b'[{"token_ids":"%s"},[[1000000000,""]]]' % (b"#" * 200_000), "a line of more"),
        (b'[{"token_ids":"","logprob_sum":1e999},[]]', "Out of range"),
    ],
)
def test_what_no_packer_writes_is_refused(line, why):
    with pytest.raises(PackError, match=why):
        Unpacker(HEADER, LIMIT).line(line)


def test_another_header_is_refused():
    for header in (b'{"packed":2,"start":""}', b'{"packed":1}', b'{"packed":1,"start":3}'):
        with pytest.raises(PackError, match="use a newer verifier"):
            Unpacker(header, LIMIT)


def test_a_bomb_of_packed_lines_is_refused():
    big = b'[{"token_ids":"%s"},[[1,"%s"]]]' % (b"#" * 3900, b"a" * 1000)
    again = b'[{"token_ids":"%s"},[]]' % (b"#" * 3900)
    data = gzip.compress(b"\n".join([HEADER, big, *[again] * 40, b""]))
    with pytest.raises(SampleError, match="unpacks to more than"):
        deque(read_lines(io.BytesIO(data), len(data)), maxlen=0)
