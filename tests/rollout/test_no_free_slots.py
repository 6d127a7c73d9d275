"""Where the memory does not hold one sequence nothing is decoded, and the bytes are said."""

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.errors import UserError
from pellucid.records import Request, SamplingParams
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.generation import _fitting_slots
from pellucid.rollout.pages import NO_PAGES
from pellucid.rollout.waves import plan_waves

GIB = 2**30
WIDE = tiny_spec(num_layers=64, num_kv_heads=64, num_heads=64, head_dim=128)
"""4 MiB of float32 keys and values a token: 256 tokens are a GiB."""
REQUESTS = [Request(prompt_ids=(1,) * n, sample_ids=(n,)) for n in (1, 57)]


def plan(free):
    params = SamplingParams(max_new_tokens=200)
    return plan_waves(REQUESTS, params, WIDE, slots=8, budget=free, element_size=4)


def test_the_device_loop_refuses_the_longest_sequence_with_its_bytes_and_those_free():
    with pytest.raises(UserError) as caught:
        plan(GIB - 1)
    assert str(caught.value) == (
        "no memory for one sequence of 257 tokens: it takes 1.00 GiB and 1.00 GiB are free; "
        "lower max_new_tokens"
    )
    waves, size, rows, pages = plan(GIB)
    assert (sum(wave.num_samples for wave in waves), size.slots, rows) == (2, 1, 1)
    assert pages == NO_PAGES, "a sequence of one page has nothing to share"
    with pytest.raises(UserError, match=r"it takes 1\.00 GiB and 0\.00 GiB are free"):
        plan(-GIB)


def test_prompts_leave_room_for_the_longest_completion():
    many = [Request(prompt_ids=(1,) * 41, sample_ids=(n,)) for n in range(5)]
    params = SamplingParams(max_new_tokens=200)
    layout = plan_waves(many, params, WIDE, slots=8, budget=GIB, element_size=4)
    assert [len(wave.requests) for wave in layout.waves] == [1] * 5
    assert layout.size.num_bytes(WIDE, 4) <= GIB


def test_the_host_loop_refuses_it_too():
    model = loud_model(tiny_spec())
    token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head dimension, float32
    with pytest.raises(UserError) as caught:
        _fitting_slots(model, 8, 100, free=100 * token)  # a part of the memory stays free
    line = str(caught.value)
    assert line.startswith("no memory for one sequence of 100 tokens: it takes ")
    assert "are free; lower max_new_tokens" in line
    assert _fitting_slots(model, 8, 100, free=119 * token) == 1
    assert _fitting_slots(model, 8, 100, free=2000 * token) == 8


@pytest.mark.parametrize("slots", [0, -3])
def test_an_engine_without_slots_is_refused(slots):
    with pytest.raises(UserError, match=rf"at least 1 slot, not {slots}: set rollout\.slots"):
        InProcessEngine(loud_model(tiny_spec()), LetterTokenizer(), slots=slots)


def test_a_prompt_longer_than_the_context_has_no_room_to_suggest():
    model = loud_model(tiny_spec())
    asked = [Request(prompt_ids=(1,) * 129, sample_ids=(0,))]
    with torch.inference_mode(), pytest.raises(UserError) as caught:
        InProcessEngine(model, LetterTokenizer()).generate(
            asked, SamplingParams(max_new_tokens=1), seed=0
        )
    assert str(caught.value) == (
        "prompt 0 has 129 tokens and asks for 1 more, but the model's context is 128: "
        "shorten the prompt"
    )
