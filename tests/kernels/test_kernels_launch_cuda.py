"""Early launches change no bit: a kernel that read or wrote too soon would see another layer's or
another replay's numbers, as all layers share one cache and each replay has other inputs."""

from typing import NamedTuple

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytest.importorskip("triton")

import numpy as np
from attention_rows import Rows, Shape, random_rows
from loop_cases import assert_same, new_state, random_draws
from torch import Tensor

from pellucid.kernels import attention
from pellucid.kernels.attention import attend_rows
from pellucid.kernels.bookkeeping import advance
from pellucid.kernels.head_sample import HeadSampler
from pellucid.kernels.launch import pdl
from pellucid.kernels.norm import add_norm
from pellucid.kernels.rope import rotate_append
from pellucid.kernels.swiglu import swiglu
from pellucid.rollout.loop_state import Work

pytestmark = pytest.mark.skipif(
    torch.cuda.get_device_capability() < (9, 0), reason="needs early launches"
)
SHAPE = Shape(heads=14, num_kv=2, head_dim=64)
WIDTH, FUSED = 14 * 64, (14 + 2 * 2) * 64
TOKENS, LAYERS, VOCAB, REPLAYS = 4, 5, 5000, 50
BF16 = torch.bfloat16


class Weights(NamedTuple):
    gain: Tensor
    wide_gain: Tensor
    up: Tensor
    embedding: Tensor
    table: Tensor


def _weights() -> Weights:
    frequencies = 1e4 ** -(torch.arange(32, device="cuda") / 32)
    angles = torch.outer(torch.arange(2048, device="cuda").float(), frequencies)
    return Weights(
        gain=torch.rand(WIDTH, device="cuda").to(BF16),
        wide_gain=torch.rand(2 * FUSED, device="cuda").to(BF16),
        up=(torch.randn(WIDTH, 2 * FUSED, device="cuda") * WIDTH**-0.5).to(BF16),
        embedding=torch.randn(VOCAB, WIDTH, device="cuda").to(BF16),
        table=torch.stack([angles.cos(), angles.sin()]),
    )


def _rows(count: int) -> Rows:
    own = [1 + (37 * row) % 600 for row in range(count)]
    prompt = [1 + (211 * group) % 700 for group in range(-(-count // 16))]
    return random_rows(own, prompt, [row // 16 for row in range(count)], SHAPE, BF16, "cuda")


class Chain:
    """Some tokens' layers: every kernel of a decoding step right after each that it can follow."""

    def __init__(self, rows: Rows, weights: Weights) -> None:
        count = len(rows.q)
        self.rows, self.weights = rows, weights
        self.start = torch.randn(count, WIDTH, device="cuda")
        self.u = torch.rand(count, dtype=torch.float64, device="cuda")
        self.sampler = HeadSampler(weights.embedding, temperature=1.0, max_rows=count)
        self.slot = torch.arange(count - 1, -1, -1, dtype=torch.int32, device="cuda")
        self.own = rows.own.length - 1
        self.position = (self.own + rows.prompt.length).long()

    def _attend(self, heads: Tensor) -> Tensor:
        rows, own = self.rows, self.rows.own
        q = rotate_append(
            heads, SHAPE.heads, SHAPE.num_kv, self.weights.table,
            self.position, own.k, own.v, self.slot, self.own,
        )  # fmt: skip
        return attend_rows(
            q, own, rows.prompt, rows.group, num_kv=SHAPE.num_kv, max_own=600, max_prompt=700
        )

    def __call__(self) -> Tensor:
        """All that the chain computes on its way [N, B, *], as float64."""
        weights, x, seen = self.weights, self.start, []
        for _ in range(TOKENS):
            delta = None
            for _ in range(LAYERS):
                x, normed = add_norm(x, delta, weights.gain, 1e-6)
                _, wide = add_norm((normed @ weights.up).float(), None, weights.wide_gain, 1e-6)
                heads = swiglu(wide).view(len(x), -1, SHAPE.head_dim)
                delta = self._attend(heads)
                seen += [x, delta]
            _, hidden = add_norm(x, delta, weights.gain, 1e-6)
            tokens, logprobs = self.sampler(hidden, self.u)
            seen += [torch.stack([tokens.double(), logprobs.double()], 1)]
            x = weights.embedding[tokens].float()
        return torch.cat([tensor.double() for tensor in seen], 1)


def _captured(chain: Chain) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    with torch.no_grad():
        chain()  # compiles
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            return graph, chain()


@pytest.mark.parametrize(
    ("count", "forks"), [(1, True), (64, True), (64, False), (1024, True)]
)  # fmt: skip
def test_a_chain_launched_early_has_the_bits_of_one_launched_in_turn(count, forks, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(attention, "FORKS", forks)
    chain = Chain(_rows(count), _weights())
    monkeypatch.setenv("PELLUCID_PDL", "0")
    assert "launch_pdl" not in pdl(chain.start.device)
    late, expected = _captured(chain)
    monkeypatch.delenv("PELLUCID_PDL")
    assert pdl(chain.start.device)["launch_pdl"]
    early, got = _captured(chain)
    inputs = torch.randn(REPLAYS, *chain.start.shape, device="cuda")
    differing = torch.zeros(REPLAYS, device="cuda")
    for replay in range(REPLAYS):
        chain.start.copy_(inputs[replay])
        chain.u.uniform_()
        late.replay()
        early.replay()
        differing[replay] = (got != expected).sum()  # NaN differs too
    assert differing.tolist() == [0] * REPLAYS
    early.replay()
    with torch.no_grad():
        assert torch.equal(chain(), got), "outside a graph"


def test_bookkeeping_launched_early_has_the_bits_of_one_launched_in_turn(monkeypatch):
    rows, samples, steps = 256, 4000, 20
    rng = np.random.default_rng(0)
    work = Work(
        sample_ids=rng.integers(0, 2**63, samples, dtype=np.uint64),
        prompts=np.arange(samples) // 8,
        limits=rng.integers(1, 60, samples),
        body_starts=np.arange(samples // 8) * 64,
        bodies=np.ones(samples // 8, dtype=np.int64),
        last_tokens=np.zeros(samples // 8, dtype=np.int64),
    )
    draws = [
        [torch.from_numpy(array).cuda() for array in random_draws(rng, rows)] for _ in range(steps)
    ]
    states = []
    for switch in "01":
        monkeypatch.setenv("PELLUCID_PDL", switch)
        state = new_state(work, rows, has_stops=True, device="cuda")
        state.start(rows)
        saved = [row.clone() for row in state.volatile]
        advance(state, *draws[0], rows)  # compiles
        for row, value in zip(state.volatile, saved, strict=True):
            row.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for tokens, logprobs in draws:
                advance(state, tokens, logprobs, rows)
        for _ in range(5):
            graph.replay()
        states.append(state)
    late, early = states
    assert early.read().finished > rows
    assert_same(early, late)
