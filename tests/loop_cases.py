"""Random cases for the bookkeeping of the decoding loop, shared with the tests of its kernel."""

import numpy as np
import torch

from pellucid.rollout.loop_state import LoopState, Work
from pellucid.rollout.pages import NO_PAGES, PageSize

VOCAB = 11
EOS_IDS = (0, 7)
SEED = 2**63 + 12345
TABLE = np.array(  # ends at 3 followed by 4, and at 9
    [[1 if t == 3 else 2 if t == 9 else 0 for t in range(VOCAB)],
     [1 if t == 3 else 2 if t in (4, 9) else 0 for t in range(VOCAB)],
     [2] * VOCAB],
    dtype=np.int16,
)  # fmt: skip


def random_work(rng: np.random.Generator, num_prompts: int, longest: int) -> Work:
    """Prompts with up to four samples each, limits up to `longest`."""
    counts = rng.integers(1, 5, num_prompts)
    prompts = np.repeat(np.arange(num_prompts), counts)
    bodies = rng.integers(0, 9, num_prompts)
    return Work(
        sample_ids=rng.integers(0, 2**64, len(prompts), dtype=np.uint64),
        prompts=prompts,
        limits=rng.integers(1, longest + 1, len(prompts)),
        body_starts=(np.cumsum(bodies) - bodies) * 2**33,
        bodies=bodies,
        last_tokens=rng.integers(0, VOCAB, num_prompts),
    )


def new_state(
    work: Work,
    slots: int,
    *,
    has_stops: bool,
    device: str | torch.device = "cpu",
    pages: PageSize = NO_PAGES,
    expected_pages: int = 1,
) -> LoopState:
    return LoopState.create(
        slots,
        work,
        vocab_size=VOCAB,
        eos_ids=EOS_IDS,
        seed=SEED,
        device=torch.device(device),
        next_state=TABLE if has_stops else None,
        pages=pages,
        expected_pages=expected_pages,
    )


def random_draws(
    rng: np.random.Generator, rows: int, *, bad_frac: float = 0.0, end_frac: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [B] and log-probabilities [B] of a step; few end tokens, so that rows live on."""
    tokens = rng.integers(0, VOCAB, rows)
    spared = np.isin(tokens, (*EOS_IDS, 9)) & (rng.random(rows) > end_frac)
    tokens[spared] = 5
    logprobs = -rng.random(rows).astype(np.float32)
    is_bad = rng.random(rows) < bad_frac
    logprobs[is_bad] = rng.choice([np.nan, np.inf, -np.inf], int(is_bad.sum()))
    return tokens, logprobs


def tensors_of(state: LoopState) -> dict[str, torch.Tensor]:
    """Every tensor that a step may change, by name, copied to the CPU."""
    names = (
        "sample slot token position own group body body_start own_length stop_state uniform "
        "out_tokens out_logprobs out_length out_reason scalars generated"
    )
    found = {name: getattr(state, name).cpu().clone() for name in names.split()}
    if state.pages is not None:
        names = "table held free page place queue num_free seats expected restarts"
        found |= {name: getattr(state.pages, name).cpu().clone() for name in names.split()}
    return found


def assert_same(left: LoopState, right: LoopState) -> None:
    """Bit for bit: NaN equals NaN."""
    theirs = tensors_of(right)
    for name, mine in tensors_of(left).items():
        assert torch.equal(mine.view(torch.uint8), theirs[name].view(torch.uint8)), name
