"""Rollouts whose rows share pages, captured on a GPU: the bits of rollouts with a slot a row."""

import torch
from rollout_numbers import NEEDS_HOPPER, VOCAB, Numbers, uneven_requests

from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Completion, Request, SamplingParams
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.waves import PAGE

pytestmark = NEEDS_HOPPER
SPEC = ModelSpec(
    family="qwen2", vocab_size=VOCAB, width=128, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=64, ffn_width=256, max_context=4096, is_head_tied=True, has_qkv_bias=True,
)  # fmt: skip
TOKEN_BYTES = 2 * 2 * 2 * 64 * 2
NEW = 4 * PAGE
PARAMS = SamplingParams(max_new_tokens=NEW)
REQUESTS = uneven_requests(20, NEW, least=30, spread=500)
"""Of twenty groups one sample runs to the limit, the others end much earlier."""


def make_model() -> Decoder:
    model = Decoder(SPEC)
    init_weights(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6.0)
    model.to("cuda", torch.bfloat16)
    model.exact = True
    return model


def sampled(engine: InProcessEngine) -> list[list[Completion]]:
    return engine.generate(REQUESTS, PARAMS, seed=3)


def test_rows_over_pages_draw_the_bits_of_rows_with_slots() -> None:
    model = make_model()
    expected = sampled(InProcessEngine(model, Numbers(0, 1), slots=256))
    lengths = [len(c.token_ids) for row in expected for c in row]
    assert max(lengths) > 2 * PAGE
    for num_slots in (8, 20, 60):
        limit = TOKEN_BYTES * (num_slots * NEW + 4096)
        engine = InProcessEngine(model, Numbers(0, 1), slots=256, kv_limit=limit)
        for _ in range(3):  # the later ones know how long samples are
            assert sampled(engine) == expected
            state = engine._resident._steps[-1].state
            assert state.capacity.pages.total >= 4 * num_slots
            assert state.capacity.slots > num_slots
            assert int(state.pages.num_free) == state.capacity.pages.total
        steps = engine._resident._steps
        assert len(steps) == 1, "the later calls find the step of the first"
        assert steps[0].captured.graphs


def test_too_much_hope_costs_rows_that_begin_again_and_no_bit() -> None:
    model = make_model()
    wanted = [
        Request(prompt_ids=(5, g), sample_ids=tuple(100 * g + k for k in range(8)))
        for g in range(4)
    ]
    numbers = Numbers()  # all run to the limit
    expected = InProcessEngine(model, numbers, slots=64).generate(wanted, PARAMS, seed=1)
    engine = InProcessEngine(model, numbers, slots=64, kv_limit=TOKEN_BYTES * (12 * NEW + 4096))
    assert engine.generate(wanted, PARAMS, seed=1) == expected
    first = int(engine._resident._steps[-1].state.pages.restarts)
    assert engine.generate(wanted, PARAMS, seed=1) == expected
    assert first > 0 == int(engine._resident._steps[-1].state.pages.restarts)
