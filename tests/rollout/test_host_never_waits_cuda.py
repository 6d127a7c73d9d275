"""While captured steps decode, the host never waits for the chunk in flight.

Between the first replay and the last, anything that waits for a stream raises (torch's debug mode
for synchronisation), and so does a wait for the device. That mode does not see waits for events:
these are written down, and each must be for the chunk before the newest, but where none is left to
start, or where pages of keys and values make the rows come and go.
"""

from collections.abc import Iterator

import pytest
import torch
from host_looks import RECORD, WAIT, waits, watch_looks
from rollout_numbers import NEEDS_HOPPER, VOCAB, Numbers, uneven_requests

from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Completion, SamplingParams
from pellucid.rollout.drafts import DraftRows
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.harvest import Harvest
from pellucid.rollout.resident import ResidentRollout
from pellucid.rollout.resident_step import ResidentStep

pytestmark = NEEDS_HOPPER
NEW = 300
SPEC = ModelSpec(
    family="qwen2", vocab_size=VOCAB, width=128, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=64, ffn_width=256, max_context=1024, is_head_tied=True, has_qkv_bias=True,
)  # fmt: skip
TOKEN_BYTES = 2 * 2 * 2 * 64 * 2
FEW_SLOTS = TOKEN_BYTES * (8 * NEW + 512)
"""Room for eight slots and the prompts: nine rows share nine pages."""
REQUESTS = uneven_requests(12, NEW, least=20, spread=200)
"""Three times as many samples as rows, most of them ending early."""
RUN, READ = "run", "read"


def warm_engine(kv_limit: int | None = None) -> tuple[InProcessEngine, list[list[Completion]]]:
    """An engine that has captured all that `sampled` needs, and what it drew."""
    model = Decoder(SPEC)
    init_weights(model, seed=1)
    model.to("cuda", torch.bfloat16)
    model.exact = True
    engine = InProcessEngine(model, Numbers(), slots=32, kv_limit=kv_limit)
    for is_told in (False, True, False):  # from the second on it knows how long samples are
        drawn = sampled(engine, is_told=is_told)
    return engine, drawn


def sampled(engine: InProcessEngine, *, is_told: bool = False) -> list[list[Completion]]:
    on_group = (lambda index, group: None) if is_told else None
    params = SamplingParams(max_new_tokens=NEW)
    return engine.generate(REQUESTS, params, seed=3, on_group=on_group)


@pytest.fixture
def trace(monkeypatch) -> Iterator[list[tuple]]:
    """What happened, once `forbid_waits` was called."""
    yield []
    torch.cuda.set_sync_debug_mode("default")


def forbid_waits(monkeypatch, trace: list[tuple]) -> None:
    """From the first replay of a wave on, until its counts of drafts are read at the end."""
    run, read, take, copy = ResidentStep.run, DraftRows.read, Harvest.take, Harvest._read
    follow = Harvest.follow
    synchronize = torch.cuda.synchronize

    def strict_run(step, shape, num_steps):
        torch.cuda.set_sync_debug_mode("error")
        trace.append((RUN,))
        run(step, shape, num_steps)

    def free_read(drafts):
        torch.cuda.set_sync_debug_mode("default")
        trace.append((READ,))
        return read(drafts)

    def free_take(harvest, lengths):
        """Groups are copied on a stream of their own: to wait for that is not to wait for steps."""
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        take(harvest, lengths)
        torch.cuda.set_sync_debug_mode(mode)

    def free_follow(harvest, tokens):
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        follow(harvest, tokens)
        torch.cuda.set_sync_debug_mode(mode)

    def apart(harvest, begin, end, width=None):
        if width is not None:  # while steps run
            assert torch.cuda.current_stream() != torch.cuda.default_stream()
        return copy(harvest, begin, end, width)

    def refuse(device=None):
        assert torch.cuda.get_sync_debug_mode() == 0, "the host waits for the device"
        synchronize(device)

    class Event(torch.cuda.Event):
        def record(self, stream=None):
            trace.append((RECORD, self))
            super().record(stream)

        def synchronize(self):
            trace.append((WAIT, self))
            super().synchronize()

    monkeypatch.setattr(ResidentStep, "run", strict_run)
    monkeypatch.setattr(DraftRows, "read", free_read)
    monkeypatch.setattr(Harvest, "take", free_take)
    monkeypatch.setattr(Harvest, "follow", free_follow)
    monkeypatch.setattr(Harvest, "_read", apart)
    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch_looks(monkeypatch, trace)


@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("kv_limit", [None, FEW_SLOTS])
def test_between_the_first_replay_and_the_last_the_host_waits_for_old_chunks_only(
    monkeypatch, trace, kv_limit, is_told
) -> None:
    engine, expected = warm_engine(kv_limit)
    (step,) = engine._resident._steps
    graphs = dict(step.captured.graphs)
    has_pages = step.state.pages is not None
    assert has_pages == (kv_limit is not None)

    forbid_waits(monkeypatch, trace)
    assert sampled(engine, is_told=is_told) == expected

    assert engine._resident._steps == [step]
    assert step.captured.graphs.keys() == graphs.keys(), "all had been captured"
    calls = [what for what, *_ in trace if what in (RUN, READ)]
    num_runs = calls.count(RUN)
    assert num_runs > 30
    assert calls == [READ, *[RUN] * num_runs, READ], "waits were forbidden all along"
    found = waits(trace)
    for is_newest, is_done, is_waiting in found:
        assert is_newest == (is_done or (has_pages and is_waiting))
    assert [is_waiting for _, _, is_waiting in found].count(True) > 10
    assert [is_newest for is_newest, *_ in found].count(False) > 5


def scalars(rollout: ResidentRollout) -> None:
    rollout.state.scalars[2].item()


def all_scalars(rollout: ResidentRollout) -> None:
    rollout.state.read()


def stream(rollout: ResidentRollout) -> None:
    torch.cuda.current_stream().synchronize()


def device(rollout: ResidentRollout) -> None:
    torch.cuda.synchronize()


@pytest.mark.parametrize("wait", [scalars, all_scalars, stream, device])
def test_a_wait_inside_the_loop_would_be_seen(monkeypatch, trace, wait) -> None:
    engine, _ = warm_engine()
    forbid_waits(monkeypatch, trace)
    rows = ResidentRollout._rows
    monkeypatch.setattr(
        ResidentRollout, "_rows", lambda rollout, *of: wait(rollout) or rows(rollout, *of)
    )
    with pytest.raises((RuntimeError, AssertionError), match=r"synchronizing|waits for the device"):
        sampled(engine)
    assert (RUN,) in trace, "it began"
