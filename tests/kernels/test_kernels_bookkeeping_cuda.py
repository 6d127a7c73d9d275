import numpy as np
import pytest
import torch
from loop_cases import EOS_IDS, SEED, TABLE, VOCAB, assert_same, new_state, random_draws

from pellucid.rollout.loop_state import Work, advance_plain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ROWS, SAMPLES = 1024, 3000


def _work(seed: int, num_samples: int = SAMPLES, longest: int = 200) -> Work:
    rng = np.random.default_rng(seed)
    num_prompts = -(-num_samples // 8)
    bodies = rng.integers(0, 400, num_prompts)
    return Work(
        sample_ids=rng.integers(0, 2**63, num_samples, dtype=np.uint64),
        prompts=np.arange(num_samples) // 8,
        limits=rng.integers(1, longest + 1, num_samples),
        body_starts=(np.cumsum(bodies) - bodies) * 64,
        bodies=bodies,
        last_tokens=rng.integers(0, VOCAB, num_prompts),
    )


def _draws(rng, rows, **options):
    return (torch.from_numpy(array).cuda() for array in random_draws(rng, rows, **options))


@pytest.mark.parametrize("has_stops", [False, True])
def test_the_kernel_agrees_with_its_twin_over_many_steps(has_stops):
    from pellucid.kernels.bookkeeping import advance

    rng = np.random.default_rng(0)
    kernel, plain = (
        new_state(_work(0), ROWS, has_stops=has_stops, device="cuda") for _ in range(2)
    )
    for state in (kernel, plain):
        state.start(ROWS)
    rows = ROWS
    for step in range(300):
        tokens, logprobs = _draws(rng, rows, bad_frac=1e-5, end_frac=0.04)
        advance(kernel, tokens, logprobs, rows)
        advance_plain(plain, tokens, logprobs, rows)
        if step % 10 == 0:
            assert_same(kernel, plain)
            counts = kernel.read()
            if counts.next_sample == counts.total:
                rows = max(counts.live, 1)
    assert_same(kernel, plain)
    assert kernel.read().finished > 0.9 * SAMPLES


@pytest.mark.parametrize("rows", [1, 8, 100, 2048, 4096])
def test_any_number_of_rows_agrees(rows):
    from pellucid.kernels.bookkeeping import advance

    rng = np.random.default_rng(rows)
    work = _work(rows, num_samples=3 * rows, longest=9)
    kernel, plain = (new_state(work, rows, has_stops=True, device="cuda") for _ in range(2))
    for state in (kernel, plain):
        state.start(rows)
    for _ in range(20):
        tokens, logprobs = _draws(rng, rows, bad_frac=0.001)
        advance(kernel, tokens, logprobs, rows)
        advance_plain(plain, tokens, logprobs, rows)
        assert_same(kernel, plain)


def test_a_captured_launch_serves_two_calls():
    from pellucid.kernels.bookkeeping import advance

    rng = np.random.default_rng(2)
    kernel, plain = (new_state(_work(2), ROWS, has_stops=True, device="cuda") for _ in range(2))
    tokens, logprobs = _draws(rng, ROWS)
    kernel.start(ROWS)
    advance(kernel, tokens, logprobs, ROWS)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        advance(kernel, tokens, logprobs, ROWS)
    for call, next_state in ((3, TABLE), (4, None)):
        work = _work(call, num_samples=SAMPLES - 100 * call, longest=150)
        for state in (kernel, plain):
            state.reset(work, eos_ids=EOS_IDS, seed=SEED + call, next_state=next_state)
            state.start(ROWS)
        for _ in range(60):
            for static, fresh in zip((tokens, logprobs), _draws(rng, ROWS), strict=True):
                static.copy_(fresh)
            graph.replay()
            advance_plain(plain, tokens, logprobs, ROWS)
        assert_same(kernel, plain)
