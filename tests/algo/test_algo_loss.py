"""The whole loss: equal to the slow version, and the same however the tokens are cut up."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_objective import slow_loss
from torch import Tensor

from pellucid.algo.advantages import ADVANTAGES
from pellucid.algo.loss import MAX_SUMS, LossOutput, TokenBatch, objective_loss
from pellucid.algo.presets import PRESETS, Objective, resolve
from pellucid.config import AlgoConfig

MAX_TOKENS = 9
VARIANTS = [
    {"loss": loss, "aggregation": aggregation, "mismatch": mismatch, "kl": kl, "beta": beta}
    for (loss, aggregation), (mismatch, kl, beta) in itertools.product(
        itertools.product(["clip", "cispo", "gspo"], ["sequence-mean", "token-mean", "constant"]),
        [("off", "k3", 0.0), ("tis", "k1", 0.3), ("mask", "k2", 0.3), ("off", "k3", 0.3)],
    )
]


def objective(**fields: Any) -> Objective:
    return resolve(AlgoConfig.model_validate({"clip_low": 0.2, "clip_high": 0.28, **fields}))


def random_batch(lengths: list[int], seed: int, scale: float = 0.4) -> TokenBatch:
    """Sequences of the given lengths whose ratios, advantages and mismatches hit every bound."""
    generator = torch.Generator().manual_seed(seed)
    per_token = torch.tensor(lengths)
    sequence = torch.arange(len(lengths)).repeat_interleave(per_token)

    def noise(size: int) -> Tensor:
        return scale * torch.randn(size, generator=generator, dtype=torch.float64)

    total = int(per_token.sum())
    policy = -torch.rand(total, generator=generator, dtype=torch.float64) * 3 - 0.1
    old = policy + noise(total)
    return TokenBatch(
        policy_logprobs=policy.requires_grad_(),
        old_logprobs=old.detach(),
        rollout_logprobs=(old + 2 * noise(total)).detach(),
        ref_logprobs=(policy + noise(total)).detach(),
        advantages=(noise(len(lengths)) / scale)[sequence],
        sequence=sequence,
        lengths=per_token[sequence],
    )


def evaluate(batch: TokenBatch, o: Objective, lengths: list[int]) -> LossOutput:
    return objective_loss(
        batch, o, num_sequences=len(lengths), num_tokens=sum(lengths), max_tokens=MAX_TOKENS
    )


def gradient(loss: Tensor, batch: TokenBatch) -> Tensor:
    return torch.autograd.grad(loss, batch.policy_logprobs)[0]


def take(batch: TokenBatch, index: Tensor) -> TokenBatch:
    """The tokens of `index`, still connected to the batch's log-probabilities."""
    fields = {f.name: getattr(batch, f.name)[index] for f in dataclasses.fields(batch)}
    return TokenBatch(**fields)


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda f: "-".join(map(str, f.values())))
@pytest.mark.parametrize("dual_clip", [None, 1.1])
def test_every_variant_equals_the_slow_version_in_value_and_gradient(
    fields: dict[str, Any], dual_clip: float | None
) -> None:
    if fields["loss"] == "cispo" and dual_clip is not None:
        dual_clip = None
    o = objective(**fields, dual_clip=dual_clip)
    lengths = [3, 1, 5, 2, 4]
    batch = random_batch(lengths, seed=1)
    fast = evaluate(batch, o, lengths).loss
    slow = slow_loss(
        batch, o, num_sequences=len(lengths), num_tokens=sum(lengths), max_tokens=MAX_TOKENS
    )
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient(fast, batch), gradient(slow, batch), rtol=1e-6, atol=1e-7)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=7),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**20),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_loss_gradient_and_sums_do_not_change_with_micro_batch_packing_or_order(
    lengths: list[int], variant: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    o = objective(**variant)
    batch = random_batch(lengths, seed)
    whole = evaluate(batch, o, lengths)
    order = data.draw(st.permutations(range(len(lengths))))
    pack_of = data.draw(st.lists(st.integers(0, 3), min_size=len(order), max_size=len(order)))
    outputs = []
    # Packs that stay empty are evaluated too: a rank without work still takes part.
    for pack in range(4):
        members = [s for s, p in zip(order, pack_of, strict=True) if p == pack]
        index = torch.cat(
            [torch.zeros(0, dtype=torch.int64)]
            + [torch.nonzero(batch.sequence == s).flatten() for s in members]
        )
        part = take(batch, index)
        # A pack numbers its own sequences.
        local = {s: i for i, s in enumerate(members)}
        renamed = torch.tensor([local[s] for s in part.sequence.tolist()], dtype=torch.int64)
        outputs.append(evaluate(dataclasses.replace(part, sequence=renamed), o, lengths))
    loss = sum((out.loss for out in outputs), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(loss, whole.loss, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        gradient(loss, batch), gradient(whole.loss, batch), rtol=1e-9, atol=1e-10
    )
    for name, value in whole.sums.items():
        parts = torch.stack([out.sums[name] for out in outputs])
        joined = parts.amax() if name in MAX_SUMS else parts.sum()
        torch.testing.assert_close(joined, value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("loss", ["clip", "cispo", "gspo"])
@pytest.mark.parametrize("aggregation", ["sequence-mean", "token-mean", "constant"])
def test_on_policy_the_gradient_is_reinforce(loss: str, aggregation: str) -> None:
    lengths = [2, 3]
    batch = random_batch(lengths, seed=3)
    batch = dataclasses.replace(batch, old_logprobs=batch.policy_logprobs.detach())
    o = objective(loss=loss, aggregation=aggregation, beta=0.0)
    out = evaluate(batch, o, lengths)
    denominator = {
        "sequence-mean": 2.0 * batch.lengths,
        "token-mean": torch.full((5,), 5.0),
        "constant": torch.full((5,), 2.0 * MAX_TOKENS),
    }[aggregation]
    torch.testing.assert_close(
        gradient(out.loss, batch), -batch.advantages / denominator, rtol=1e-6, atol=0.0
    )
    assert out.sums["ratio"] == 5.0
    assert out.sums["ratio_max"] == 1.0


def test_the_gspo_gradient_is_that_of_the_papers_sequence_objective() -> None:
    lengths = [3, 1, 4, 2, 2, 5]
    batch = random_batch(lengths, seed=5, scale=0.05)
    o = objective(loss="gspo", beta=0.0, clip_low=0.01, clip_high=0.01)
    paper = torch.zeros((), dtype=torch.float64)
    clipped = 0
    for i in range(len(lengths)):
        own = batch.sequence == i
        s = (batch.policy_logprobs[own] - batch.old_logprobs[own]).mean().exp()
        a = batch.advantages[own][0]
        paper = paper + torch.minimum(s * a, s.clamp(0.99, 1.01) * a) / len(lengths)
        clipped += int((s * a > s.clamp(0.99, 1.01) * a).item())
    out = evaluate(batch, o, lengths)
    assert 0 < clipped < len(lengths)
    torch.testing.assert_close(out.loss, -paper, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        gradient(out.loss, batch), -gradient(paper, batch), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("loss", ["clip", "cispo", "gspo"])
def test_a_group_without_advantage_contributes_exactly_nothing_without_kl(loss: str) -> None:
    lengths = [3, 2]
    batch = random_batch(lengths, seed=6, scale=3.0)
    batch = dataclasses.replace(batch, advantages=torch.zeros(5, dtype=torch.float64))
    out = evaluate(batch, objective(loss=loss, beta=0.0), lengths)
    assert out.loss == 0.0
    assert torch.equal(gradient(out.loss, batch).abs(), torch.zeros(5, dtype=torch.float64))


def test_numbers_by_hand_with_kl_and_mismatch() -> None:
    # Two sequences, lengths 2 and 1; ratios 1.5 (clipped at 1.28), 0.9, 0.5 (clipped at 0.8).
    ratio = torch.tensor([1.5, 0.9, 0.5])
    policy = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    old = policy.detach() - ratio.log()
    batch = TokenBatch(
        policy_logprobs=policy,
        old_logprobs=old,
        # w = 1, 3 (capped at 2), 1
        rollout_logprobs=old - torch.tensor([1.0, 3.0, 1.0]).log(),
        # ref / policy = 1, 2, 1: k3 = 0, 2 - ln 2 - 1 = 0.306853, 0
        ref_logprobs=policy.detach() + torch.tensor([1.0, 2.0, 1.0]).log(),
        advantages=torch.tensor([1.0, 1.0, -2.0]),
        sequence=torch.tensor([0, 0, 1]),
        lengths=torch.tensor([2, 2, 1]),
    )
    o = objective(beta=0.5, mismatch="tis")
    out = objective_loss(batch, o, num_sequences=2, num_tokens=3, max_tokens=4)
    # Tokens: -1.28, 2 · -0.9 + 0.5 · 0.306853, 2 · 0.8; weights 1/4, 1/4, 1/2.
    assert out.loss.item() == pytest.approx(-0.32 - 0.45 + 0.125 * 0.306853 + 0.8, rel=1e-5)
    got = {name: value.item() for name, value in out.sums.items()}
    assert got == pytest.approx(
        {
            "tokens": 3.0,
            "kl": 0.306853,
            "ratio": 2.9,
            "ratio_max": 1.5,
            "clipped_low": 1.0,
            "clipped_high": 1.0,
            "clipped_dual": 0.0,
            # |rollout - policy|: ln 1.5, ln 2.7, ln 2
            "mismatch": 0.405465 + 0.993252 + 0.693147,
            "mismatch_max": 0.993252,
            "capped": 1.0,
            "masked": 0.0,
        },
        rel=1e-5,
    )
    assert all(not value.requires_grad for value in out.sums.values())
    # Token 0 is clipped; token 1: (-2 · 0.9 + 0.5 · (1 - 2)) / 4; token 2 is clipped.
    torch.testing.assert_close(gradient(out.loss, batch), torch.tensor([0.0, -0.575, 0.0]))


def one_token(loss: str, ratio: float, advantage: float, **fields: Any) -> tuple[float, LossOutput]:
    policy = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    old = policy.detach() - torch.tensor([ratio], dtype=torch.float64).log()
    batch = TokenBatch(
        policy_logprobs=policy,
        old_logprobs=old,
        rollout_logprobs=old,
        ref_logprobs=None,
        advantages=torch.tensor([advantage], dtype=torch.float64),
        sequence=torch.tensor([0]),
        lengths=torch.tensor([1]),
    )
    out = evaluate(batch, objective(loss=loss, beta=0.0, **fields), [1])
    return gradient(out.loss, batch).item(), out


@pytest.mark.parametrize("loss", ["clip", "gspo"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "flows"),
    [
        (1.2799, 1.0, True),
        (1.2801, 1.0, False),
        (0.5, 1.0, True),
        (0.8001, -1.0, True),
        (0.7999, -1.0, False),
        (5.0, -1.0, True),
    ],
)
def test_the_gradient_stops_exactly_beyond_the_bound_that_binds(
    loss: str, ratio: float, advantage: float, flows: bool
) -> None:
    slope, out = one_token(loss, ratio, advantage)
    assert slope == pytest.approx(-ratio * advantage if flows else 0.0)
    clipped = out.sums["clipped_low"] + out.sums["clipped_high"]
    assert clipped.item() == (0.0 if flows else 1.0)


def test_the_papers_epsilon_of_ten_bounds_good_tokens_at_eleven_and_bad_ones_never() -> None:
    paper = {"clip_low": 10.0, "clip_high": 10.0}
    assert one_token("clip", 10.9, 1.0, **paper)[0] == pytest.approx(-10.9)
    assert one_token("clip", 11.1, 1.0, **paper)[0] == 0.0
    assert one_token("clip", 1e-4, -1.0, **paper)[0] == pytest.approx(1e-4)
    assert one_token("clip", 500.0, -1.0, **paper)[0] == pytest.approx(500.0)


def test_dual_clip_bounds_bad_tokens_above() -> None:
    slope, out = one_token("clip", 4.0, -1.0, dual_clip=3.0)
    assert slope == 0.0
    assert out.loss.item() == pytest.approx(3.0)
    assert out.sums["clipped_dual"] == 1.0
    slope, out = one_token("clip", 2.9, -1.0, dual_clip=3.0)
    assert slope == pytest.approx(2.9)
    assert out.sums["clipped_dual"] == 0.0
    assert one_token("clip", 1.1, 1.0, dual_clip=3.0)[0] == pytest.approx(-1.1)


def test_cispo_keeps_the_gradient_of_clipped_tokens_at_the_bound() -> None:
    assert one_token("cispo", 7.0, 1.0, clip_low=1.0, clip_high=4.0)[0] == pytest.approx(-5.0)
    assert one_token("cispo", 7.0, -2.0, clip_low=1.0, clip_high=4.0)[0] == pytest.approx(10.0)
    assert one_token("cispo", 0.01, 1.0, clip_low=1.0, clip_high=4.0)[0] == pytest.approx(-0.01)
    assert one_token("cispo", 0.5, 1.0)[0] == pytest.approx(-0.8)


@pytest.mark.parametrize("loss", ["clip", "cispo", "gspo"])
@pytest.mark.parametrize("log_ratio", [-400.0, 400.0])
def test_absurd_ratios_give_finite_losses_and_gradients(loss: str, log_ratio: float) -> None:
    policy = torch.tensor([-1.0, -1.0], requires_grad=True)
    batch = TokenBatch(
        policy_logprobs=policy,
        old_logprobs=policy.detach() - log_ratio,
        rollout_logprobs=policy.detach(),
        ref_logprobs=None,
        advantages=torch.tensor([1.0, 0.0]),
        sequence=torch.tensor([0, 1]),
        lengths=torch.tensor([1, 1]),
    )
    out = evaluate(batch, objective(loss=loss, beta=0.0, mismatch="tis"), [1, 1])
    assert torch.isfinite(out.loss)
    assert torch.isfinite(gradient(out.loss, batch)).all()


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("advantage", sorted(ADVANTAGES))
def test_a_step_raises_what_was_better_than_the_group_and_lowers_what_was_worse(
    preset: str, advantage: str
) -> None:
    logits = torch.zeros(4, requires_grad=True)
    actions = torch.tensor([0, 1, 2])
    rewards = torch.tensor([[2.0, 1.0, 0.0]])
    advantages = ADVANTAGES[advantage](rewards, torch.ones(1, 3, dtype=torch.bool))[0]
    logprobs = logits.log_softmax(0)[actions]
    o = resolve(AlgoConfig.model_validate({"preset": preset, "advantage": advantage}))
    batch = TokenBatch(
        policy_logprobs=logprobs,
        old_logprobs=logprobs.detach(),
        rollout_logprobs=logprobs.detach(),
        ref_logprobs=logprobs.detach() if o.has_reference else None,
        advantages=advantages,
        sequence=torch.arange(3),
        lengths=torch.ones(3, dtype=torch.int64),
    )
    (slope,) = torch.autograd.grad(evaluate(batch, o, [1, 1, 1]).loss, logits)
    after = (logits - 0.1 * slope).log_softmax(0)[actions]
    assert after[0] > logprobs[0]
    assert after[2] < logprobs[2]


def test_with_kl_a_group_without_advantage_is_pulled_to_the_reference() -> None:
    batch = random_batch([4], seed=8)
    batch = dataclasses.replace(batch, advantages=torch.zeros(4, dtype=torch.float64))
    out = evaluate(batch, objective(beta=0.1), [4])
    assert batch.ref_logprobs is not None
    above = batch.policy_logprobs > batch.ref_logprobs
    assert torch.equal(gradient(out.loss, batch) > 0, above)


def test_beta_without_reference_logprobs_and_misshapen_fields_are_our_own_mistakes() -> None:
    batch = random_batch([2], seed=9)
    with pytest.raises(AssertionError, match="ref_logprobs"):
        evaluate(dataclasses.replace(batch, ref_logprobs=None), objective(beta=0.1), [2])
    with pytest.raises(AssertionError, match="advantages"):
        evaluate(dataclasses.replace(batch, advantages=torch.zeros(1)), objective(), [2])
