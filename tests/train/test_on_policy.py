"""On-policy distillation: its update, averaged over all samples, is the analytic gradient of the
reverse KL of the next token, at the places where the student goes.
"""

import itertools
from collections.abc import Callable

import pytest
import torch

from pellucid.algo.presets import resolve
from pellucid.config import AlgoConfig, RolloutConfig, RunConfig
from pellucid.model.attention import PackedCausal
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Completion, Problem, StopReason
from pellucid.train.draw import Group
from pellucid.train.on_policy import as_sequences, judge
from pellucid.train.packing import TrainSequence
from pellucid.train.reverse_kl import ReverseKlUpdater
from pellucid.train.update import PolicyUpdater

VOCABULARY, LENGTH, PROMPT = 5, 2, (1, 3, 2)
SPEC = ModelSpec(
    family="llama",
    vocab_size=VOCABULARY,
    width=8,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    ffn_width=12,
)


def make_model(seed: int) -> Decoder:
    """Random, with distributions that are far from flat."""
    model = Decoder(SPEC)
    init_weights(model, seed=seed)
    with torch.no_grad():
        model.head.weight.mul_(40)
    return model


def next_logprobs(model: Decoder, ids: tuple[int, ...], temperature: float) -> torch.Tensor:
    """[V] of the token behind `ids`, by the plain way."""
    model.reserve_context(len(ids))
    hidden = model(torch.tensor(ids), PackedCausal(torch.tensor([len(ids)])))
    return (model.head(hidden)[-1] / temperature).log_softmax(-1)


def reverse_kl(student: Decoder, teacher: Decoder, temperature: float) -> torch.Tensor:
    """Mean over the places of a sample of KL(student || teacher) of the next token there. How often
    the student goes to a place is taken as given: the method has no credit over later tokens.
    """
    total = torch.zeros(())
    for length in range(LENGTH):
        for body in itertools.product(range(VOCABULARY), repeat=length):
            reach = sum(
                next_logprobs(student, PROMPT + body[:i], temperature)[body[i]].item()
                for i in range(length)
            )
            own = next_logprobs(student, PROMPT + body, temperature)
            other = next_logprobs(teacher, PROMPT + body, temperature).detach()
            total = total + torch.tensor(reach).exp() * (own.exp() * (own - other)).sum() / LENGTH
    return total


def gradients(model: Decoder) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def every_sample(student: Decoder, temperature: float) -> Group:
    """All that the student could say to the prompt, once each."""
    completions = []
    for ids in itertools.product(range(VOCABULARY), repeat=LENGTH):
        with torch.no_grad():
            logprobs = tuple(
                next_logprobs(student, PROMPT + ids[:i], temperature)[ids[i]].item()
                for i in range(LENGTH)
            )
        completions.append(
            Completion(
                sample_id=len(completions),
                token_ids=ids,
                logprobs=logprobs,
                stop=StopReason.LENGTH,
                text="",
            )
        )
    problem = Problem(id="p", question="", gold="", grader="open")
    return Group(problem, PROMPT, completions)


Learn = Callable[
    [Decoder, Decoder, RunConfig, Group, float], tuple[PolicyUpdater, list[TrainSequence]]
]


def from_tokens(student, teacher, config, group, coefficient):
    updater = PolicyUpdater(student, config, resolve(config.algo))
    sequences = judge(as_sequences([group]), updater, teacher, coefficient=coefficient)
    assert sequences[0].advantage != 0.0
    return updater, sequences


def from_vocabulary(student, teacher, config, group, coefficient):
    objective = resolve(config.algo)
    updater = ReverseKlUpdater(student, config, objective, teacher=teacher, coefficient=coefficient)
    return updater, as_sequences([group])


@pytest.mark.parametrize("way", [from_tokens, from_vocabulary])
@pytest.mark.parametrize(("temperature", "coefficient"), [(1.0, 1.0), (0.7, 0.5)])
def test_the_expected_update_is_the_gradient_of_the_reverse_kl(
    way: Learn, temperature: float, coefficient: float
) -> None:
    student, teacher = make_model(1), make_model(2).requires_grad_(False)
    divergence = reverse_kl(student, teacher, temperature)
    assert divergence > 0.1
    (coefficient * divergence).backward()
    exact = gradients(student)
    config = RunConfig(
        algo=AlgoConfig(preset="dapo"),
        rollout=RolloutConfig(temperature=temperature, max_new_tokens=LENGTH),
    )
    group = every_sample(student, temperature)
    updater, sequences = way(student, teacher, config, group, coefficient)
    expected = {name: torch.zeros_like(value) for name, value in exact.items()}
    for sequence in sequences:
        student.zero_grad(set_to_none=True)
        updater._accumulate([sequence], "policy", step=1)
        probability = torch.tensor(sequence.rollout_logprobs).sum().exp()
        for name, value in gradients(student).items():
            expected[name] += probability * value
    for name, value in exact.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(expected[name], value, atol=1e-4 * scale + 1e-7, rtol=1e-3)
