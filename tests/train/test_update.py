"""The update: gradients do not depend on packing, and steps move weights in place."""

from dataclasses import replace

import pytest
import torch

from pellucid.algo.loss import TokenBatch, objective_loss
from pellucid.algo.presets import resolve
from pellucid.config import AlgoConfig, RolloutConfig, RunConfig, TrainConfig
from pellucid.errors import NumericsError
from pellucid.model.attention import PackedCausal
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.train.packing import TrainSequence
from pellucid.train.update import PolicyUpdater

SPEC = ModelSpec(
    family="qwen2",
    vocab_size=23,
    width=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    ffn_width=24,
    has_qkv_bias=True,
)


def make_model(dtype: torch.dtype = torch.float32) -> Decoder:
    model = Decoder(SPEC)
    init_weights(model, seed=1)
    return model.to(dtype)


def make_sequences(count: int = 7) -> list[TrainSequence]:
    generator = torch.Generator().manual_seed(3)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 23, (n,), generator=generator).tolist())

    lengths = [(2 + i % 3, 1 + (5 * i) % 6) for i in range(count)]
    return [
        TrainSequence(
            prompt_ids=ids(p),
            completion_ids=ids(c),
            rollout_logprobs=(-3.0,) * c,
            advantage=(-1.0) ** i * (0.5 + 0.1 * i),
        )
        for i, (p, c) in enumerate(lengths)
    ]


def make_config(
    *,
    tokens_per_pack: int = 8192,
    minibatches: int = 1,
    lr: float = 1e-2,
    adam_eps: float = 1e-8,
    **algo: object,
) -> RunConfig:
    return RunConfig(
        rollout=RolloutConfig(max_new_tokens=8),
        algo=AlgoConfig(**{"beta": 0.0} | algo),
        train=TrainConfig(
            tokens_per_pack=tokens_per_pack,
            minibatches=minibatches,
            learning_rate=lr,
            adam_eps=adam_eps,
            steps=10,
        ),
    )


def weights_after(config: RunConfig, sequences: list[TrainSequence]) -> dict[str, torch.Tensor]:
    model = make_model()
    updater = PolicyUpdater(model, config, resolve(config.algo))
    updater.update(sequences, step=1)
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("aggregation", ["sequence-mean", "token-mean", "constant"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_an_update_does_not_depend_on_packing(aggregation: str, beta: float) -> None:
    # A large eps makes Adam's first step proportional to the gradient, small components included.
    settings = {"aggregation": aggregation, "beta": beta, "adam_eps": 10.0, "lr": 10.0}
    sequences = make_sequences()
    start = {n: p.detach() for n, p in make_model().named_parameters()}
    one = weights_after(make_config(**settings), sequences)
    many = weights_after(make_config(**settings, tokens_per_pack=9), sequences)
    turned = weights_after(make_config(**settings, tokens_per_pack=13), sequences[::-1])
    assert (one["embedding.weight"] - start["embedding.weight"]).abs().max() > 1e-3
    for name in one:
        torch.testing.assert_close(one[name], many[name], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(one[name], turned[name], atol=1e-6, rtol=1e-5)


GROUPS = {
    "two groups": ((4, (3, 5, 1)), (2, (2, 6))),
    "one-token prompts beside longer ones": ((1, (2, 3)), (5, (1, 4)), (1, (1,))),
    "single samples": ((3, (2,)), (4, (5,)), (2, (1,))),
}


def make_groups(name: str) -> list[TrainSequence]:
    """Interleaved, as a shuffle leaves them."""
    generator = torch.Generator().manual_seed(5)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 23, (n,), generator=generator).tolist())

    prompts = [(ids(prompt), lengths) for prompt, lengths in GROUPS[name]]
    sequences = [
        TrainSequence(
            prompt_ids=prompt,
            completion_ids=ids(n),
            rollout_logprobs=(-3.0,) * n,
            advantage=float(torch.randn((), generator=generator)),
        )
        for prompt, lengths in prompts
        for n in lengths
    ]
    return sequences[::2] + sequences[1::2]


def gradients_one_by_one(
    model: Decoder, updater: PolicyUpdater, sequences: list[TrainSequence]
) -> dict[str, torch.Tensor]:
    """The objective of each sequence in a row of its own, behind its whole prompt."""
    reference = updater.reference
    total = sum(len(s.completion_ids) for s in sequences)
    for s in sequences:
        ids = torch.tensor(s.prompt_ids + s.completion_ids)
        count = len(s.completion_ids)

        def logprobs(m: Decoder, ids: torch.Tensor = ids, count: int = count) -> torch.Tensor:
            attend = PackedCausal(torch.tensor([len(ids)]))
            m.reserve_context(len(ids))
            rows = m.head(m(ids, attend)).log_softmax(-1)[-count - 1 : -1]
            return rows.gather(1, ids[-count:, None]).squeeze(1)

        policy = logprobs(model)
        objective_loss(
            TokenBatch(
                policy_logprobs=policy,
                old_logprobs=policy.detach(),
                rollout_logprobs=torch.tensor(s.rollout_logprobs),
                ref_logprobs=logprobs(reference.model).detach() if reference else None,
                advantages=torch.full((count,), s.advantage),
                sequence=torch.zeros(count, dtype=torch.long),
                lengths=torch.full((count,), count),
            ),
            updater.objective,
            num_sequences=len(sequences),
            num_tokens=total,
            max_tokens=updater.config.rollout.max_new_tokens,
        ).loss.backward()
    return {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("capacity", [1, 9, 13, 8192])
@pytest.mark.parametrize("name", GROUPS)
def test_gradients_of_shared_prompts_are_those_of_sequences_in_rows_of_their_own(
    name: str, capacity: int, beta: float
) -> None:
    sequences = make_groups(name)
    config = make_config(tokens_per_pack=capacity, beta=beta)
    objective = resolve(config.algo)
    shared, alone = (PolicyUpdater(make_model(), config, objective) for _ in range(2))
    for updater in (shared, alone):
        if updater.reference is not None:  # away from the policy, where the KL has a gradient
            with torch.no_grad():
                updater.reference.model.embedding.weight.mul_(1.5)
    shared._accumulate(sequences, "policy", step=1)
    expected = gradients_one_by_one(alone.model, alone, sequences)
    assert max(g.abs().max() for g in expected.values()) > 1e-3
    for name, parameter in shared.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("old", ["recompute", "rollout"])
def test_several_minibatches_of_shared_prompts_do_not_depend_on_packing(old: str) -> None:
    settings = {"minibatches": 2, "beta": 0.1, "adam_eps": 10.0, "lr": 10.0, "old_logprobs": old}
    sequences = make_groups("two groups")
    one = weights_after(make_config(**settings), sequences)
    many = weights_after(make_config(**settings, tokens_per_pack=7), sequences)
    for name in one:
        torch.testing.assert_close(one[name], many[name], atol=1e-6, rtol=1e-5)


def test_an_update_raises_the_probability_of_the_better_sample() -> None:
    good, bad = make_sequences(2)
    good, bad = replace(good, advantage=1.0), replace(bad, advantage=-1.0)
    model, config = make_model(), make_config()
    updater = PolicyUpdater(model, config, resolve(config.algo))
    before = [x.sum().item() for x in updater.logprobs([good, bad], model)]
    updater.update([good, bad], step=1)
    after = [x.sum().item() for x in updater.logprobs([good, bad], model)]
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_logprobs_equal_a_plain_log_softmax_of_each_sequence_alone() -> None:
    model, config = make_model(), make_config(tokens_per_pack=10)
    sequences = make_sequences(4)
    packed = PolicyUpdater(model, config, resolve(config.algo)).logprobs(sequences, model)
    for sequence, values in zip(sequences, packed, strict=True):
        ids = torch.tensor(sequence.prompt_ids + sequence.completion_ids)
        attend = PackedCausal(torch.tensor([len(ids)]))
        with torch.no_grad():
            logprobs = model.head(model(ids, attend)).log_softmax(-1)
        start = len(sequence.prompt_ids)
        plain = logprobs[torch.arange(start - 1, len(ids) - 1), ids[start:]]
        torch.testing.assert_close(values, plain, atol=1e-5, rtol=1e-5)


def test_sequences_without_advantage_change_nothing_but_the_denominator() -> None:
    sequences = make_sequences(4)
    idle = [replace(s, advantage=0.0) for s in make_sequences(8)[4:]]
    model = make_model()
    config = make_config()
    updater = PolicyUpdater(model, config, resolve(config.algo))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert updater.update(idle, step=1)["trained_tokens"] == 0
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    metrics = updater.update(sequences + idle, step=2)
    assert metrics["trained_tokens"] == sum(len(s.completion_ids) for s in sequences)


@pytest.mark.parametrize("loss", ["clip", "cispo", "gspo"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_constant_advantages_of_tokens_are_the_advantage_of_the_sequence_to_the_last_bit(
    loss: str, beta: float
) -> None:
    config = make_config(loss=loss, beta=beta, tokens_per_pack=16, minibatches=2)
    sequences = make_sequences()
    by_token = [
        replace(s, advantage=0.0, token_advantages=(s.advantage,) * len(s.completion_ids))
        for s in sequences
    ]
    expected, got = weights_after(config, sequences), weights_after(config, by_token)
    assert all(torch.equal(expected[n], got[n]) for n in expected)
    start = dict(make_model().named_parameters())
    assert not all(torch.equal(start[n], got[n]) for n in got)


def test_an_advantage_raises_the_probability_of_its_token_alone() -> None:
    [sequence] = make_sequences(5)[4:]
    num_tokens = len(sequence.completion_ids)
    assert num_tokens > 1
    one = replace(sequence, advantage=0.0, token_advantages=(0.0,) * (num_tokens - 1) + (1.0,))
    model = make_model()
    config = make_config(lr=1e-3)
    updater = PolicyUpdater(model, config, resolve(config.algo))
    [before] = updater.logprobs([one], model)
    updater.update([one], step=1)
    [after] = updater.logprobs([one], model)
    rise = (after - before).tolist()
    assert rise[-1] > 0
    assert rise[-1] > max(abs(r) for r in rise[:-1])


def test_weights_keep_their_addresses_and_bfloat16_weights_follow_float32_masters() -> None:
    model = make_model(torch.bfloat16)
    addresses = {n: p.data_ptr() for n, p in model.named_parameters()}
    config = make_config(lr=1e-5)  # far below bfloat16's resolution for one step
    updater = PolicyUpdater(model, config, resolve(config.algo))
    start = {n: m.detach().clone() for n, m in updater.optimizer.masters.items()}
    for step in range(3):
        updater.update(make_sequences(), step=step)
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == addresses
    moved = updater.optimizer.masters["embedding.weight"] - start["embedding.weight"]
    assert moved.abs().max() > 1e-6
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, updater.optimizer.masters[name].to(torch.bfloat16))


def test_minibatches_split_the_rollout_without_loss_and_move_the_ratio_off_one() -> None:
    config = make_config(minibatches=3, clip_low=10.0, clip_high=10.0)
    updater = PolicyUpdater(make_model(), config, resolve(config.algo))
    sequences = make_sequences(7)
    parts = updater._split(sequences, step=4)
    assert sorted(len(p) for p in parts) == [2, 2, 3]
    assert {id(s) for p in parts for s in p} == {id(s) for s in sequences}
    metrics = updater.update(sequences, step=4)
    assert updater.optimizer_steps == 3
    assert metrics["ratio_max"] > 1.0


def test_a_gradient_that_is_not_finite_stops_by_name_and_changes_nothing() -> None:
    model, config = make_model(), make_config()
    updater = PolicyUpdater(model, config, resolve(config.algo))
    before = model.embedding.weight.detach().clone()
    broken = [replace(s, advantage=float("inf")) for s in make_sequences(2)]
    with pytest.raises(NumericsError, match="step 5"):
        updater.update(broken, step=5)
    assert torch.equal(before, model.embedding.weight)


def test_a_loss_that_is_not_finite_names_its_pack() -> None:
    model, config = make_model(), make_config(tokens_per_pack=1)
    updater = PolicyUpdater(model, config, resolve(config.algo))
    before = model.embedding.weight.detach().clone()
    # The shortest of three sequences, so the last of the packs.
    good, other, bad = sorted(make_sequences(3), key=lambda s: -len(s.completion_ids))
    with pytest.raises(NumericsError, match=r"step 7: the loss of pack 3 of 3 is nan"):
        updater.update([replace(bad, advantage=float("nan")), good, other], step=7)
    assert torch.equal(before, model.embedding.weight)
    assert updater.optimizer_steps == 0


def test_a_prompt_whose_samples_have_no_advantage_is_not_fed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed: list[list[int]] = []
    sequences = make_groups("two groups")
    idle = sequences[0].prompt_ids
    sequences = [replace(s, advantage=0.0) if s.prompt_ids == idle else s for s in sequences]
    rest = [s for s in sequences if s.prompt_ids != idle]
    config = make_config()
    updater = PolicyUpdater(make_model(), config, resolve(config.algo))
    forward = Decoder.forward
    monkeypatch.setattr(
        Decoder,
        "forward",
        lambda m, ids, attend: (fed.append(ids.tolist()), forward(m, ids, attend))[1],
    )
    updater.update(sequences, step=1)
    assert [len(f) for f in fed] == [
        len(rest[0].prompt_ids) - 1 + sum(len(s.completion_ids) for s in rest)
    ]


def test_the_reference_is_replaced_every_so_many_optimizer_steps() -> None:
    config = make_config(beta=0.1, reference_every=2)
    model = make_model()
    updater = PolicyUpdater(model, config, resolve(config.algo))
    assert updater.reference is not None
    start = model.embedding.weight.detach().clone()
    updater.update(make_sequences(), step=1)
    assert torch.equal(updater.reference.model.embedding.weight, start)
    updater.update(make_sequences(), step=2)
    assert torch.equal(updater.reference.model.embedding.weight, model.embedding.weight)


def test_kl_is_reported_where_there_is_a_reference_and_never_as_a_false_zero() -> None:
    for beta, has_kl in ((0.0, False), (0.1, True)):
        config = make_config(beta=beta)
        updater = PolicyUpdater(make_model(), config, resolve(config.algo))
        metrics = updater.update(make_sequences(), step=1)
        assert ("kl" in metrics) is has_kl
        assert {"loss", "entropy", "mismatch", "mismatch_max", "grad_norm"} <= metrics.keys()


def test_the_loss_of_several_minibatches_is_their_mean() -> None:
    sequences = make_sequences(6)
    config = make_config(minibatches=3, lr=1e-12, aggregation="sequence-mean")
    updater = PolicyUpdater(make_model(), config, resolve(config.algo))
    parts = updater._split(sequences, step=1)
    on_policy = [-sum(s.advantage for s in part) / len(part) for part in parts]
    assert updater.update(sequences, step=1)["loss"] == pytest.approx(sum(on_policy) / 3, abs=1e-5)
