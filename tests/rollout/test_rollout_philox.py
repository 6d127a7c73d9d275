import numpy as np
import pytest

from pellucid.rollout.philox import philox4x32, uniforms

ONES = 0xFFFFFFFF
PI_COUNTER = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI_COUNTER, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_the_published_known_answers_of_random123_are_met(counter, key, expected) -> None:
    words = philox4x32(tuple(np.array([c], dtype=np.uint64) for c in counter), key)
    assert tuple(int(w[0]) for w in words) == expected


def test_a_draw_is_the_top_53_bits_of_the_first_two_words() -> None:
    id_, position, seed = 0x85A308D3_243F6A88, 0x13198A2E, 0x299F31D0_A4093822
    parts = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0)
    words = philox4x32(
        tuple(np.array([c], dtype=np.uint64) for c in parts), (0xA4093822, 0x299F31D0)
    )
    bits = (int(words[0][0]) << 32 | int(words[1][0])) >> 11
    drawn = uniforms(seed, np.array([id_], dtype=np.uint64), np.array([position]))
    assert drawn[0, 0] == bits / 2**53


def test_a_draw_depends_on_seed_id_and_position_alone() -> None:
    ids = np.array([5, 2**63 - 1, 7], dtype=np.uint64)
    table = uniforms(3, ids, np.arange(10))
    assert np.array_equal(uniforms(3, ids[::-1], np.arange(4, 10)), table[::-1, 4:])
    own = np.array([[1, 2], [4, 5], [0, 1]])
    assert np.array_equal(uniforms(3, ids, own), np.take_along_axis(table, own, 1))
    assert len(np.unique(np.concatenate([table, uniforms(4, ids, np.arange(10))]))) == 60


def test_draws_are_uniform() -> None:
    u = uniforms(0, np.arange(300, dtype=np.uint64), np.arange(200)).ravel()
    counts = np.histogram(u, bins=64, range=(0, 1))[0]
    chi_square = ((counts - u.size / 64) ** 2 / (u.size / 64)).sum()
    assert 30 < chi_square < 104  # 63 degrees of freedom: both tails together below 0.1 %
    assert u.min() >= 0
    assert u.max() < 1
