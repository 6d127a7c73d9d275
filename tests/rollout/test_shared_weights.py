"""The loop on the device, in Triton's interpreter, reads the tensors that the optimiser writes."""

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.config import TrainConfig
from pellucid.model.attention import PackedCausal
from pellucid.records import Request, SamplingParams
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.resident_engine import ResidentEngine
from pellucid.train.optimizer import Optimizer

pytest.importorskip("triton")
REQUESTS = [Request(prompt_ids=(4, 7, 1), sample_ids=(1, 2))]
PARAMS = SamplingParams(max_new_tokens=4)


def tokens(completions):
    return [[c.token_ids for c in row] for row in completions]


def test_an_optimizer_step_is_in_the_next_rollout_without_a_word(monkeypatch):
    monkeypatch.setattr("pellucid.rollout.waves.LEAST_ROWS", 1)
    model = loud_model(tiny_spec(num_heads=2, num_kv_heads=1, head_dim=16, num_layers=1))
    model.reserve_context(64)
    engine = ResidentEngine(model, LetterTokenizer(), slots=2)
    optimizer = Optimizer(model, TrainConfig())
    with torch.inference_mode():
        first = engine.generate(REQUESTS, PARAMS, seed=2)
    step, addresses = engine._steps[-1], [p.data_ptr() for p in model.parameters()]

    hidden = model(torch.tensor([1, 2, 3]), PackedCausal([3], torch.device("cpu")))
    model.head(hidden).logsumexp(-1).sum().backward()
    assert optimizer.step(0.05, where="test") > 0.0
    with torch.inference_mode():
        second = engine.generate(REQUESTS, PARAMS, seed=2)

    assert [p.data_ptr() for p in model.parameters()] == addresses
    assert engine._steps == [step], "the step of before serves"
    assert tokens(second) != tokens(first)
    fresh = InProcessEngine(model, LetterTokenizer(), slots=2).generate(REQUESTS, PARAMS, seed=2)
    assert tokens(second) == tokens(fresh)
