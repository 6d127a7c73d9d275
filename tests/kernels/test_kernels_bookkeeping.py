import inspect

import numpy as np
import pytest
import torch
from loop_cases import assert_same, new_state, random_draws, random_work

from pellucid.rollout import waves
from pellucid.rollout.loop_state import Counts, advance_plain

triton = pytest.importorskip("triton")
from pellucid.kernels import bookkeeping  # noqa: E402  (after the check for triton)
from pellucid.kernels.philox import philox4x32  # noqa: E402

tl = triton.language
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def words_of(inputs, outputs):
    c0, c1, c2 = tl.load(inputs), tl.load(inputs + 1), tl.load(inputs + 2)
    c3, k0, k1 = tl.load(inputs + 3), tl.load(inputs + 4), tl.load(inputs + 5)
    w0, w1, w2, w3 = philox4x32(c0, c1, c2, c3, k0, k1)
    tl.store(outputs, w0)
    tl.store(outputs + 1, w1)
    tl.store(outputs + 2, w2)
    tl.store(outputs + 3, w3)


def _pair(seed, *, slots, has_stops, num_prompts):
    rng = np.random.default_rng(seed)
    work = random_work(rng, num_prompts, longest=7)
    states = [new_state(work, slots, has_stops=has_stops, device=DEVICE) for _ in range(2)]
    for state in states:
        state.start(slots)
    return rng, states


def _step(rng, states, rows, **options):
    tokens, logprobs = (torch.from_numpy(a).to(DEVICE) for a in random_draws(rng, rows, **options))
    kernel, plain = states
    bookkeeping.advance(kernel, tokens, logprobs, rows)
    advance_plain(plain, tokens, logprobs, rows)
    assert_same(kernel, plain)


@pytest.mark.parametrize("has_stops", [False, True])
@pytest.mark.parametrize(("slots", "num_prompts"), [(1, 1), (7, 5), (64, 30), (200, 70)])
def test_the_kernel_and_its_twin_agree_bit_for_bit(slots, num_prompts, has_stops):
    rng, states = _pair(slots, slots=slots, has_stops=has_stops, num_prompts=num_prompts)
    for _ in range(100):
        _step(rng, states, slots, bad_frac=0.01)
        if not states[0].read().live:
            break
    counts = states[0].read()
    assert counts.finished == counts.total
    _step(rng, states, slots)  # nothing is live


def test_they_agree_when_fewer_rows_are_decoded():
    rng, states = _pair(3, slots=40, has_stops=True, num_prompts=16)
    rows = 40
    while rows:
        _step(rng, states, rows, end_frac=0.1)
        counts = states[0].read()
        if counts.next_sample == counts.total:
            rows = counts.live
    assert states[0].read().finished == states[0].read().total


def test_waves_have_no_more_rows_than_the_kernel_takes():
    assert waves.MOST_ROWS == bookkeeping.MAX_ROWS


def test_the_kernel_names_the_scalars_as_the_state_does():
    assert Counts._fields == bookkeeping.SCALARS


def test_words_of_philox_meet_the_published_known_answers():
    known = {
        (0,) * 6: (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        (0xFFFFFFFF,) * 6: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0): (
            0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1,
        ),
    }  # fmt: skip
    for inputs, expected in known.items():
        words = torch.tensor(inputs, dtype=torch.uint32, device=DEVICE)
        outputs = torch.zeros(4, dtype=torch.uint32, device=DEVICE)
        words_of[(1,)](words, outputs)
        assert tuple(outputs.tolist()) == expected


def test_only_pointers_come_before_the_number_of_rows():
    names = list(inspect.signature(bookkeeping._advance.fn).parameters)
    assert names[bookkeeping.POINTERS] == "rows"
