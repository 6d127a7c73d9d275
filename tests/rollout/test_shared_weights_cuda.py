"""The sampler reads the weights that the trainer writes, and both compute the same bits."""

from dataclasses import replace

import pytest
import torch
from rollout_numbers import NEEDS_HOPPER, Numbers

from pellucid.algo.presets import resolve
from pellucid.config import AlgoConfig, RolloutConfig, RunConfig, TrainConfig
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Completion, Request, SamplingParams
from pellucid.rollout.device_memory import can_give_back
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.teacher_force import Recorded, replay
from pellucid.train.packing import TrainSequence
from pellucid.train.update import PolicyUpdater

DEVICE = "cuda"

pytestmark = NEEDS_HOPPER

VOCAB = 1000
LENGTHS = (5, 1, 40, 300)
"""Of the prompts: with and without a body, and one longer than a split of the attention."""
GROUP = 9
REQUESTS = [
    Request(
        prompt_ids=tuple((7 * g + 13 * i) % VOCAB for i in range(length)),
        sample_ids=tuple(100 * g + k for k in range(GROUP)),
    )
    for g, length in enumerate(LENGTHS)
]


def make_model(*, has_qk_norm: bool = False, is_head_tied: bool = True) -> Decoder:
    """Loud enough for its distribution to depend on all that came before."""
    spec = ModelSpec(
        family="qwen3" if has_qk_norm else "qwen2", vocab_size=VOCAB, width=128, num_layers=3,
        num_heads=4, num_kv_heads=2, head_dim=64, ffn_width=256, max_context=1024,
        is_head_tied=is_head_tied, has_qk_norm=has_qk_norm, has_qkv_bias=not has_qk_norm,
    )  # fmt: skip
    model = Decoder(spec)
    init_weights(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6.0)
            else:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.to(DEVICE, torch.bfloat16)
    model.exact = True
    return model


def make_updater(model: Decoder, *, new: int, temperature: float = 1.0) -> PolicyUpdater:
    config = RunConfig(
        rollout=RolloutConfig(max_new_tokens=new, temperature=temperature, group_size=GROUP),
        algo=AlgoConfig(beta=0.0),
        train=TrainConfig(tokens_per_pack=2048, steps=10, learning_rate=5e-3),
    )
    return PolicyUpdater(model, config, resolve(config.algo))


def sequences_of(completions: list[list[Completion]]) -> list[TrainSequence]:
    return [
        TrainSequence(
            prompt_ids=request.prompt_ids,
            completion_ids=completion.token_ids,
            rollout_logprobs=completion.logprobs,
            advantage=1.0 if number % 2 else -1.0,
        )
        for request, row in zip(REQUESTS, completions, strict=True)
        for number, completion in enumerate(row)
    ]


def test_a_captured_step_sees_an_optimizer_step_without_a_copy() -> None:
    model = make_model()
    params = SamplingParams(max_new_tokens=40)
    engine = InProcessEngine(model, Numbers(), slots=64)
    first = engine.generate(REQUESTS, params, seed=3)
    step = engine._resident._steps[-1]
    graphs = dict(step.captured.graphs)
    assert graphs, "the step has been captured"
    addresses = [p.data_ptr() for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]

    make_updater(model, new=40).update(sequences_of(first), step=1)

    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    second = engine.generate(REQUESTS, params, seed=3)
    assert second != first
    assert second == InProcessEngine(model, Numbers(), slots=64).generate(REQUESTS, params, seed=3)
    assert [p.data_ptr() for p in model.parameters()] == addresses
    assert engine._resident._steps == [step]
    assert step.captured.graphs == graphs, "no shape was captured anew"


@pytest.mark.parametrize("has_qk_norm", [False, True])
@pytest.mark.parametrize(("is_head_tied", "temperature"), [(True, 1.0), (False, 0.7)])
def test_the_trainer_finds_the_bits_of_the_captured_rollout(
    has_qk_norm, is_head_tied, temperature
) -> None:
    model = make_model(has_qk_norm=has_qk_norm, is_head_tied=is_head_tied)
    new = 300  # more than one split of the attention
    params = SamplingParams(max_new_tokens=new, temperature=temperature)
    engine = InProcessEngine(model, Numbers(0, 1), slots=16)
    limits = tuple(new - new * k // GROUP for k in range(GROUP))
    requests = [replace(request, limits=limits) for request in REQUESTS]
    updater = make_updater(model, new=new, temperature=temperature)
    for number in (1, 2):  # the second rollout is that of updated weights
        completions = engine.generate(requests, params, seed=number)
        sequences = sequences_of(completions)
        scored = updater.logprobs(sequences, model)
        for sequence, values in zip(sequences, scored, strict=True):
            sampled = torch.tensor(sequence.rollout_logprobs)
            assert torch.equal(values.cpu(), sampled), (values.cpu() - sampled).abs().max()
        metrics = updater.update(sequences, step=number)
        assert metrics["mismatch_max"] == 0.0, "with gradients, too"
    assert engine._resident._steps[-1].captured.graphs


def test_captured_steps_survive_an_evaluation_and_lent_memory() -> None:
    if not can_give_back(torch.device(DEVICE)):
        pytest.skip("cuda.bindings is not installed, or the driver cannot map memory")
    model = make_model()
    engine = InProcessEngine(model, Numbers(), slots=64, kv_limit=2**30, is_shared=True)
    params = SamplingParams(max_new_tokens=40)
    evaluation = SamplingParams(max_new_tokens=60, temperature=0.6, top_p=0.9)
    measured = engine.generate(REQUESTS, evaluation, seed=5)  # the larger one makes the memory
    first = engine.generate(REQUESTS, params, seed=3)
    step = engine._resident._steps[-1]
    graphs = dict(step.captured.graphs)
    for _ in range(2):
        engine.suspend()
        assert engine.generate(REQUESTS, evaluation, seed=5) == measured
        engine.suspend()
        poison = torch.full((1 << 28,), float("nan"), device=DEVICE)
        del poison
        assert engine.generate(REQUESTS, params, seed=3) == first
        assert engine._resident._steps[-1] is step
        assert step.captured.graphs == graphs
    assert graphs


def test_what_an_exact_engine_drew_replays_without_a_gap() -> None:
    model = make_model()
    params = SamplingParams(max_new_tokens=40)
    completions = InProcessEngine(model, Numbers(), slots=64).generate(REQUESTS, params, seed=3)
    samples = [
        Recorded(
            prompt_ids=request.prompt_ids,
            token_ids=tuple(one.token_ids),
            sample_id=one.sample_id,
            seed=3,
            params=params,
        )
        for request, row in zip(REQUESTS, completions, strict=True)
        for one in row
    ]
    drawn = [one.logprobs for row in completions for one in row]

    for sample, logprobs, again in zip(samples, drawn, replay(model, samples), strict=True):
        # The replay's head sums in another order, in float64.
        assert again.gap.max() < 1e-5
        assert abs(again.logprobs - torch.tensor(logprobs).numpy()).max() < 1e-4
        assert (again.token_ids == torch.tensor(sample.token_ids).numpy()).mean() > 0.99
