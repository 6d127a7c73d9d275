"""Gzip data are read by zlib itself: what Python's own reader takes but for unknown flags."""

import gzip
import io
import random
import zlib

import pytest

from pellucid.evidence.core.samples import SampleError, gzip_lines


def read(data):
    return b"".join(line + b"\n" for line in gzip_lines(io.BytesIO(data), len(data)))


def attempt(data):
    """(text, why there is none)"""
    try:
        return read(data), ""
    except SampleError as error:
        return None, str(error)


def slow(data):
    """What Python's own module reads; None: it refuses."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def test_members_and_the_zeros_between_them_are_one_text():
    draw = random.Random(1)
    first, second = (draw.randbytes(300_000).replace(b"\n", b"") for _ in range(2))
    parts = [gzip.compress(first), gzip.compress(second + b"\nx\n"), gzip.compress(b"")]
    for gap in (b"", b"\0", b"\0" * 200_000):
        assert read(gap.join(parts) + gap) == first + second + b"\nx\n"
    assert read(b"") == b""


@pytest.mark.parametrize("size", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3 << 18])
def test_no_byte_is_lost_where_a_chunk_ends(size):
    text = b"x" * (size - 1) + b"\n"
    assert read(gzip.compress(text)) == text


def test_damage_anywhere_is_refused_where_python_refuses_it():
    draw = random.Random(2)
    data = gzip.compress(b"one line\n" * 30) + gzip.compress(b"another\n" * 9)
    refused = 0
    for _ in range(600):
        at = draw.randrange(len(data))
        flipped = bytes([data[at] ^ 1 << draw.randrange(8)])
        changed = draw.choice([data[:at], data[:at] + flipped + data[at + 1 :], data + flipped])
        text, why = attempt(changed)
        refused += text is None
        assert text == slow(changed) or "unknown header flags" in why
    assert refused > 400
    with pytest.raises(SampleError, match="damaged gzip"):
        read(b"\0" + data)
