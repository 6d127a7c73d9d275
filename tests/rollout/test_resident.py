"""The loop on the device, in Triton's interpreter: the same completions as the loop of the host."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.errors import NumericsError
from pellucid.kernels.attention_alone import attend_alone
from pellucid.kernels.attention_step import StepRows
from pellucid.records import Request, SamplingParams, StopReason
from pellucid.rollout import resident_step
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.harvest import Harvest
from pellucid.rollout.resident_engine import OTHER_STEPS, ResidentEngine


class ByteLetters(LetterTokenizer):
    def token_bytes(self):
        return [text.encode() for text in self.texts]


SPEC = tiny_spec(num_heads=2, num_kv_heads=1, head_dim=16, num_layers=1)
PARAMS = SamplingParams(temperature=1.0, max_new_tokens=6)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """In the interpreter each program of a kernel costs milliseconds."""
    monkeypatch.setattr("pellucid.rollout.waves.LEAST_ROWS", 1)
    monkeypatch.setattr("pellucid.rollout.resident.CHUNK", 2)


def requests(groups=3, size=3, **more):
    return [
        Request(
            prompt_ids=tuple(range(1, 3 + 4 * g)),
            sample_ids=tuple(100 * g + k for k in range(size)),
            **more,
        )
        for g in range(groups)
    ]


def both(model, wanted, params, *, slots, seed=7):
    """(resident, plain) completions, request by request."""
    model.reserve_context(model.spec.max_context)
    resident = ResidentEngine(model, ByteLetters(), slots=slots)
    seen = {}
    with torch.inference_mode():
        fast = resident.generate(wanted, params, seed=seed, on_group=seen.__setitem__)
    assert [seen.get(i, []) for i in range(len(wanted))] == fast
    slow = InProcessEngine(model, ByteLetters(), slots=slots).generate(wanted, params, seed=seed)
    return fast, slow


def assert_same(fast, slow):
    assert [len(row) for row in fast] == [len(row) for row in slow]
    for mine, theirs in zip(chain(*fast), chain(*slow), strict=True):
        assert mine.sample_id == theirs.sample_id
        assert mine.token_ids == theirs.token_ids
        assert (mine.stop, mine.text) == (theirs.stop, theirs.text)
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_tokens_are_those_of_the_host_loop_with_refill_and_compaction() -> None:
    fast, slow = both(loud_model(SPEC), requests(), PARAMS, slots=4)
    assert_same(fast, slow)
    assert len({c.stop for row in fast for c in row}) > 1, "some end early, some do not"


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (3, 4)])
def test_attention_is_told_how_many_rows_share_a_prompt(monkeypatch, size, expected) -> None:
    seen = set()
    attend_rows = resident_step.attend_rows

    def spied(*tensors, siblings, **bounds):
        seen.add(siblings)
        return attend_rows(*tensors, siblings=siblings, **bounds)

    monkeypatch.setattr(resident_step, "FEW_ROWS", 0)
    monkeypatch.setattr(resident_step, "attend_rows", spied)
    fast, slow = both(loud_model(SPEC), requests(size=size), PARAMS, slots=4)
    assert_same(fast, slow)
    assert seen == {expected}


def only_one_program_a_row(monkeypatch) -> list[StepRows]:
    """Every step's attention is `attend_alone`'s, where prompts are short; what it was given."""
    given = []

    def spied(rows):
        given.append(rows)
        return attend_alone(rows)

    monkeypatch.setattr("pellucid.kernels.attention_alone.ENOUGH_PROGRAMS", 1)
    monkeypatch.setattr(resident_step, "attend_alone", spied)
    monkeypatch.setattr(resident_step, "attend_few", None)
    monkeypatch.setattr(resident_step, "attend_rows", None)
    return given


def test_rows_that_read_alone_draw_the_same_tokens(monkeypatch) -> None:
    given = only_one_program_a_row(monkeypatch)
    fast, slow = both(loud_model(SPEC), requests(), PARAMS, slots=4)
    assert_same(fast, slow)
    assert all(rows.own.pages is None for rows in given)
    assert any(rows.prompt is not None for rows in given)


def test_stop_strings_are_found_on_the_device() -> None:
    model = loud_model(SPEC, seed=3)
    params = SamplingParams(temperature=1.0, max_new_tokens=8, stop=("b>c", "e", "</a>"))
    fast, slow = both(model, requests(), params, slots=4)
    assert_same(fast, slow)
    assert any(c.stop is StopReason.STOP_STRING for row in fast for c in row)


def test_each_sample_keeps_its_own_limit() -> None:
    wanted = requests(size=3, limits=(1, 3, 6))
    fast, slow = both(loud_model(SPEC), wanted, PARAMS, slots=4)
    assert_same(fast, slow)
    assert all(len(row[0].token_ids) == 1 for row in fast)


def test_a_step_is_used_again_and_sees_new_weights() -> None:
    model = loud_model(SPEC)
    model.reserve_context(64)
    engine = ResidentEngine(model, ByteLetters(), slots=4)
    with torch.inference_mode():
        first = engine.generate(requests(), PARAMS, seed=1)
        steps = list(engine._steps)
        again = engine.generate(requests(), PARAMS, seed=1)
        assert engine._steps == steps
    assert first == again
    with torch.no_grad():
        model.blocks[0].mlp.down.weight.mul_(-1.0)
    with torch.inference_mode():
        changed = engine.generate(requests(), PARAMS, seed=1)
    plain = InProcessEngine(model, ByteLetters(), slots=4).generate(requests(), PARAMS, seed=1)
    assert changed != first
    assert_same(changed, plain)


def test_requests_that_do_not_fit_together_are_decoded_in_waves(monkeypatch) -> None:
    token = 2 * SPEC.num_layers * SPEC.num_kv_heads * SPEC.head_dim * 4
    monkeypatch.setattr(
        "pellucid.rollout.resident_engine.free_bytes", lambda device: int(token * 60 / 0.85)
    )
    seen = []
    plan = ResidentEngine._prepare
    monkeypatch.setattr(ResidentEngine, "_prepare", lambda *a: seen.append(plan(*a)) or seen[-1])
    fast, slow = both(loud_model(SPEC), requests(groups=5), PARAMS, slots=4)
    assert len(seen[0][2]) > 1
    assert_same(fast, slow)


def paged(monkeypatch, positions: int) -> list[ResidentEngine]:
    """Makes engines find memory for so many positions, in pages of 64; those that planned."""
    token = 2 * SPEC.num_layers * SPEC.num_kv_heads * SPEC.head_dim * 4
    monkeypatch.setattr("pellucid.rollout.waves.PAGE", 64)
    monkeypatch.setattr("pellucid.rollout.waves.PROMPT_GRAIN", 1)
    monkeypatch.setattr(
        "pellucid.rollout.resident_engine.free_bytes",
        lambda device: int(token * (positions + 24) / 0.85),
    )
    seen = []
    prepare = ResidentEngine._prepare

    def watch(engine, *more):
        found = prepare(engine, *more)
        seen.append((engine, found[1][-1].state))
        return found

    monkeypatch.setattr(ResidentEngine, "_prepare", watch)
    return seen


def test_with_pages_more_rows_than_slots_are_decoded_to_the_same_tokens(monkeypatch) -> None:
    """Three pages of 64 hold two slots of 100, but three rows until two of them are long."""
    seen = paged(monkeypatch, 3 * 64)
    monkeypatch.setattr(ByteLetters, "eos_ids", ())
    params = SamplingParams(temperature=1.0, max_new_tokens=100)
    fast, slow = both(loud_model(SPEC), requests(groups=1, limits=(66, 66, 5)), params, slots=6)
    assert_same(fast, slow)
    engine, state = seen[0]
    assert state.capacity.pages == (3, 2, 64)
    assert state.capacity.slots == 3
    assert int(state.pages.restarts) == 1, "the second begins again when both need a page"
    assert engine._mean_pages == pytest.approx(5 / 3)


def test_rows_over_pages_that_read_alone_draw_the_same_tokens(monkeypatch) -> None:
    given = only_one_program_a_row(monkeypatch)
    paged(monkeypatch, 3 * 64)
    monkeypatch.setattr(ByteLetters, "eos_ids", ())
    params = SamplingParams(temperature=1.0, max_new_tokens=100)
    fast, slow = both(loud_model(SPEC), requests(groups=1, limits=(66, 3, 5)), params, slots=6)
    assert_same(fast, slow)
    assert all(rows.own.pages is not None for rows in given)


def test_the_second_call_expects_what_samples_needed_in_the_first(monkeypatch) -> None:
    seen = paged(monkeypatch, 3 * 64)
    model = loud_model(SPEC, seed=3)
    model.reserve_context(128)
    engine = ResidentEngine(model, ByteLetters(), slots=6)
    expected = []
    for mean in (None, 1.2):
        engine._mean_pages = mean
        with torch.inference_mode():
            engine.generate(
                requests(groups=2, size=3, limits=(3, 1, 2)),
                SamplingParams(max_new_tokens=100),
                seed=1,
            )
        expected.append(int(seen[-1][1].pages.expected))
    assert expected == [1, 2]
    assert engine._mean_pages == 1


def test_progress_ends_with_every_sample() -> None:
    model = loud_model(SPEC)
    model.reserve_context(64)
    told = []
    with torch.inference_mode():
        ResidentEngine(model, ByteLetters(), slots=4).generate(
            requests(), PARAMS, seed=1, progress=lambda done, total: told.append((done, total))
        )
    assert told[-1] == (9, 9)
    assert told == sorted(told)


@pytest.mark.parametrize("at_once", [1, 4])
def test_groups_are_handed_on_as_they_end_and_are_those_that_are_returned(
    monkeypatch, at_once
) -> None:
    monkeypatch.setattr("pellucid.rollout.harvest.GROUPS_AT_ONCE", at_once)
    model = loud_model(SPEC)
    model.reserve_context(64)
    limits = [(1, 2), (6, 6), (1, 1), (2, 2)]
    wanted = [replace(r, limits=n) for r, n in zip(requests(groups=4, size=2), limits, strict=True)]
    wanted.insert(1, Request(prompt_ids=(1,), sample_ids=()))
    seen, finished = {}, []

    def on_group(index, group):
        assert index not in seen
        seen[index] = (list(group), finished[-1])

    with torch.inference_mode():
        engine = ResidentEngine(model, ByteLetters(), slots=8)
        whole = engine.generate(wanted, PARAMS, seed=1)
        got = engine.generate(
            wanted,
            PARAMS,
            seed=1,
            progress=lambda done, total: finished.append(done),
            on_group=on_group,
        )
    assert got == whole
    assert {i: group for i, (group, _) in seen.items()} == {i: g for i, g in enumerate(got) if g}
    assert max(len(c.token_ids) for c in got[2]) > 4  # the slow one
    assert seen[0][1] < 8
    assert seen[2][1] == 8


@pytest.mark.parametrize("is_told", [False, True])
def test_tokens_read_while_others_are_decoded_are_those_read_at_the_end(
    monkeypatch, is_told
) -> None:
    model = loud_model(SPEC)
    model.reserve_context(64)
    wanted = requests(groups=3, size=2, limits=(9, 3))
    params = SamplingParams(temperature=1.0, max_new_tokens=9)
    seen, told = [], {}
    follow = Harvest.follow
    monkeypatch.setattr(Harvest, "follow", lambda h, n: seen.append(n) or follow(h, n))
    results = []
    for tail_rows in (64, 0):
        monkeypatch.setattr("pellucid.rollout.resident.TAIL_ROWS", tail_rows)
        engine = ResidentEngine(model, ByteLetters(), slots=6)
        with torch.inference_mode():
            on_group = told.__setitem__ if is_told else None
            results.append(engine.generate(wanted, params, seed=2, on_group=on_group))
        assert bool(seen) == (tail_rows == 0)
    assert max(seen) > 3, "some had ended before"
    assert max(len(c.token_ids) for row in results[0] for c in row) > max(seen)
    assert results[0] == results[1]
    assert [told.get(i) for i in range(3)] == (results[1] if is_told else [None] * 3)


def test_bad_logits_are_named() -> None:
    model = loud_model(SPEC)
    model.reserve_context(64)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with torch.inference_mode(), pytest.raises(NumericsError, match="request 0, sample 0, token 0"):
        ResidentEngine(model, ByteLetters(), slots=4).generate(requests(), PARAMS, seed=1)


def test_a_call_without_stop_strings_is_not_stopped_by_those_of_an_earlier_one() -> None:
    model = loud_model(SPEC, seed=3)
    model.reserve_context(64)
    engine = ResidentEngine(model, ByteLetters(), slots=4)
    with torch.inference_mode():
        engine.generate(requests(), replace(PARAMS, stop=("e", "b")), seed=7)
        free = engine.generate(requests(), PARAMS, seed=7)
    plain = InProcessEngine(model, ByteLetters(), slots=4).generate(requests(), PARAMS, seed=7)
    assert_same(free, plain)


def test_an_evaluation_leaves_the_steps_of_training_alone() -> None:
    model = loud_model(SPEC)
    model.reserve_context(64)
    engine = ResidentEngine(model, ByteLetters(), slots=4)
    evaluation = SamplingParams(temperature=0.6, top_p=0.9, max_new_tokens=8)
    with torch.inference_mode():
        engine.generate(requests(), evaluation, seed=2)  # the larger one makes the memory
        first = engine.generate(requests(), PARAMS, seed=1)
        step, store = engine._steps[-1], engine._store
        engine.generate(requests(), evaluation, seed=2)
        engine.generate(requests(), replace(PARAMS, max_new_tokens=8), seed=1)
        again = engine.generate(requests(), PARAMS, seed=1)
    assert engine._store is store
    assert engine._steps[-1] is step, "the smallest that fits"
    assert again == first
    slow = InProcessEngine(model, ByteLetters(), slots=4).generate(requests(), PARAMS, seed=1)
    assert_same(again, slow)


def test_few_steps_are_kept_and_only_small_ones(monkeypatch) -> None:
    model = loud_model(SPEC)
    model.reserve_context(64)
    engine = ResidentEngine(model, ByteLetters(), slots=4)
    few = [Request(prompt_ids=(1, 2), sample_ids=(0,))]
    with torch.inference_mode():
        for number in range(OTHER_STEPS + 2):
            params = SamplingParams(temperature=1.0 + number, max_new_tokens=2)
            engine.generate(few, params, seed=1)
        assert len(engine._steps) == OTHER_STEPS + 1
        temperatures = [step.params.temperature for step in engine._steps]
        assert temperatures == [2.0, 3.0, 4.0, 5.0]
        monkeypatch.setattr("pellucid.rollout.resident_engine.OTHER_BYTES", 0)
        engine.generate(few, params, seed=1)
    assert [step.params.temperature for step in engine._steps] == [5.0]


class LentBuffer:
    """Stands in for memory that comes and goes, which a CPU has not."""

    def __init__(self, shape, dtype, device) -> None:
        self.tensor, self.is_mapped = torch.zeros(shape, dtype=dtype), True

    make = classmethod(lambda cls, *arguments: cls(*arguments))

    def give_back(self) -> None:
        self.is_mapped = False

    def take(self) -> None:
        self.is_mapped = True


def test_memory_that_was_lent_is_taken_again_only_where_it_is_free(monkeypatch) -> None:
    monkeypatch.setattr("pellucid.rollout.arena.FixedBuffer", LentBuffer)
    free = [2**30]
    monkeypatch.setattr("pellucid.rollout.resident_engine.free_bytes", lambda device: free[0])
    model = loud_model(SPEC)
    model.reserve_context(64)
    engine = ResidentEngine(model, ByteLetters(), slots=4, kv_limit=2**30, is_shared=True)
    with torch.inference_mode():
        first = engine.generate(requests(), PARAMS, seed=1)
        large, step = engine._store, engine._steps[-1]
        engine.suspend()
        assert large.held_bytes == 0
        assert engine.generate(requests(), PARAMS, seed=1) == first
        assert engine._store is large
        assert engine._steps == [step]
        engine.suspend()
        free[0] = large.num_bytes - 1
        assert_same(engine.generate(requests(), PARAMS, seed=1), first)
    assert engine._store.num_bytes < large.num_bytes
