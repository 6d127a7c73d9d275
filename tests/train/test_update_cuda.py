"""The update on CUDA: the gradients of the plain path, without waiting for the device."""

import pytest
import torch

from pellucid.algo.presets import resolve
from pellucid.config import AlgoConfig, RolloutConfig, RunConfig, TrainConfig
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.train import update
from pellucid.train.packing import TrainSequence
from pellucid.train.update import PolicyUpdater

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SPEC = ModelSpec(
    family="qwen2",
    vocab_size=512,
    width=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    ffn_width=256,
    has_qkv_bias=True,
)
CONFIG = RunConfig(
    rollout=RolloutConfig(max_new_tokens=64),
    algo=AlgoConfig(beta=0.1),
    train=TrainConfig(tokens_per_pack=256, steps=10),
)


def make_updater(device: str, dtype: torch.dtype) -> PolicyUpdater:
    model = Decoder(SPEC)
    init_weights(model, seed=1)
    # Rounded to bfloat16 everywhere, so that both sides have the same weights.
    model.to(torch.bfloat16).to(device, dtype)
    updater = PolicyUpdater(model, CONFIG, resolve(CONFIG.algo))
    assert updater.reference is not None
    with torch.no_grad():  # away from the policy, where the KL has a gradient
        updater.reference.model.embedding.weight.mul_(1.5)
    return updater


def make_sequences() -> list[TrainSequence]:
    generator = torch.Generator().manual_seed(5)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 512, (n,), generator=generator).tolist())

    return [
        TrainSequence(
            prompt_ids=prompt,
            completion_ids=ids(n),
            rollout_logprobs=(-6.0,) * n,
            advantage=float(torch.randn((), generator=generator)),
        )
        for prompt, lengths in ((ids(40), (64, 7, 30, 1)), (ids(1), (20, 50)), (ids(9), (33,)))
        for n in lengths
    ]


def test_gradients_agree_with_those_of_float32_on_the_cpu() -> None:
    slow, fast = make_updater("cpu", torch.float32), make_updater("cuda", torch.bfloat16)
    for updater in (slow, fast):
        updater._accumulate(make_sequences(), "policy", step=1)
    for name, master in fast.optimizer.masters.items():
        want = slow.optimizer.masters[name].grad
        assert master.grad is not None
        assert want is not None
        error = (master.grad.float().cpu() - want).norm() / want.norm()
        assert error < 0.05, f"{name}: {error}"


def test_no_pack_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    updater = make_updater("cuda", torch.bfloat16)
    updater._accumulate(make_sequences(), "policy", step=1)  # compiles the kernels
    monkeypatch.setattr(update, "check_finite", lambda losses, where: None)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        updater._accumulate(make_sequences(), "policy", step=1)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
