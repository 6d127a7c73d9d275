import numpy as np
import pytest
import torch
from loop_cases import (
    EOS_IDS,
    SEED,
    TABLE,
    VOCAB,
    assert_same,
    new_state,
    random_draws,
    random_work,
    tensors_of,
)

from pellucid.records import StopReason
from pellucid.rollout.loop_state import NOT_FINITE, REASONS, Work, advance_plain
from pellucid.rollout.philox import uniforms
from pellucid.rollout.philox_torch import uniforms_of


class Obvious:
    """The same loop with lists: one dictionary a live row."""

    def __init__(self, work, slots, *, has_stops):
        self.work, self.has_stops = work, has_stops
        self.rows = []
        self.slots = list(range(slots))
        self.waiting = list(range(len(work.sample_ids)))
        self.tokens = {i: [] for i in self.waiting}
        self.logprobs = {i: [] for i in self.waiting}
        self.reasons = {}
        self.bad = 0
        self.steps = 0

    def seat(self, num_rows):
        while self.waiting and len(self.rows) < num_rows:
            sample = self.waiting.pop(0)
            prompt = int(self.work.prompts[sample])
            body = int(self.work.bodies[prompt])
            token = int(self.work.last_tokens[prompt])
            self.rows.append(
                {"sample": sample, "prompt": prompt, "body": body, "token": token, "own": 0}
            )

    def step(self, tokens, logprobs, num_rows):
        kept, freed = [], []
        self.steps += bool(self.rows)
        for row, slot, token, logprob in zip(self.rows, self.slots, tokens, logprobs, strict=False):
            sample = row["sample"]
            self.tokens[sample].append(int(token))
            self.logprobs[sample].append(float(logprob))
            reason = self.reason(sample)
            if reason is None:
                kept.append((slot, row | {"token": int(token), "own": row["own"] + 1}))
            else:
                freed.append(slot)
                self.reasons[sample] = reason
                if reason == NOT_FINITE and not self.bad:
                    self.bad = sample + 1
        idle = self.slots[len(self.rows) :]
        self.slots = [slot for slot, _ in kept] + freed + idle
        self.rows = [row for _, row in kept]
        self.seat(num_rows)

    def reason(self, sample):
        tokens = self.tokens[sample]
        if not np.isfinite(self.logprobs[sample][-1]):
            return NOT_FINITE
        if tokens[-1] in EOS_IDS:
            return StopReason.EOS
        if self.has_stops and (tokens[-1] == 9 or tokens[-2:] == [3, 4]):
            return StopReason.STOP_STRING
        return StopReason.LENGTH if len(tokens) == self.work.limits[sample] else None

    def check(self, state, num_slots):
        work, rows = self.work, self.rows
        rest = [0] * (num_slots - len(rows))
        column = {key: [row[key] for row in rows] for key in ("sample", "prompt", "body", "own")}
        assert state.slot.tolist() == self.slots
        assert state.sample.tolist() == column["sample"] + [-1 for _ in rest]
        assert state.group.tolist() == column["prompt"] + [-1 for _ in rest]
        assert state.body.tolist() == column["body"] + rest
        assert state.own.tolist() == column["own"] + rest
        assert state.own_length.tolist() == [own + 1 for own in column["own"]] + rest
        assert state.token.tolist() == [row["token"] for row in rows] + rest
        assert state.position.tolist() == [row["body"] + row["own"] for row in rows] + rest
        starts = [int(work.body_starts[prompt]) for prompt in column["prompt"]]
        assert state.body_start.tolist() == starts + rest
        ids = work.sample_ids[column["sample"]] if rows else np.zeros(0, dtype=np.uint64)
        drawn = uniforms(SEED, ids, np.array(column["own"], dtype=np.uint64)[:, None])
        assert state.uniform.tolist() == drawn[:, 0].tolist() + rest
        if self.has_stops:
            last = [self.tokens[sample][-1:] for sample in column["sample"]]
            assert state.stop_state.tolist() == [int(token == [3]) for token in last] + rest
        counts = state.read()
        assert counts.live == len(rows)
        assert counts.max_own == max((own + 1 for own in column["own"]), default=0)
        assert counts.next_sample == counts.total - len(self.waiting)
        assert counts.finished == len(self.reasons)
        assert (counts.bad, counts.steps) == (self.bad, self.steps)
        assert int(state.generated) == sum(map(len, self.tokens.values()))

    def check_results(self, state):
        for sample, tokens in self.tokens.items():
            length = int(state.out_length[sample])
            reason = int(state.out_reason[sample])
            if sample not in self.reasons:
                assert (length, reason) == (0, 0)
                continue
            assert length == len(tokens)
            assert REASONS.get(reason, reason) == self.reasons[sample]
            assert state.out_tokens[sample, :length].tolist() == tokens
            np.testing.assert_array_equal(
                state.out_logprobs[sample, :length].numpy(), np.float32(self.logprobs[sample])
            )


@pytest.mark.parametrize("has_stops", [False, True])
@pytest.mark.parametrize("slots", [1, 3, 8, 40])
@pytest.mark.parametrize("seed", range(4))
def test_random_scenarios_go_as_with_lists(seed, slots, has_stops):
    rng = np.random.default_rng(seed)
    work = random_work(rng, num_prompts=int(rng.integers(1, 12)), longest=7)
    state = new_state(work, slots, has_stops=has_stops)
    obvious = Obvious(work, slots, has_stops=has_stops)
    state.start(slots)
    obvious.seat(slots)
    obvious.check(state, slots)
    while obvious.rows:
        tokens, logprobs = random_draws(rng, slots, bad_frac=0.03)
        advance_plain(state, torch.from_numpy(tokens), torch.from_numpy(logprobs), slots)
        obvious.step(tokens, logprobs, slots)
        obvious.check(state, slots)
    obvious.check_results(state)
    assert state.read().finished == len(work.sample_ids)


def test_fewer_rows_may_be_decoded_once_nothing_waits():
    rng = np.random.default_rng(5)
    work, slots = random_work(rng, num_prompts=9, longest=12), 16
    state, obvious = new_state(work, slots, has_stops=True), Obvious(work, slots, has_stops=True)
    state.start(slots)
    obvious.seat(slots)
    seen = set()
    while obvious.rows:
        rows = slots if obvious.waiting else len(obvious.rows)
        seen.add(rows)
        tokens, logprobs = random_draws(rng, rows)
        advance_plain(state, torch.from_numpy(tokens), torch.from_numpy(logprobs), rows)
        obvious.step(tokens, logprobs, rows)
        obvious.check(state, slots)
    obvious.check_results(state)
    assert len(seen) > 4


def test_fewer_rows_than_slots_are_filled_up_to_the_rows():
    work = random_work(np.random.default_rng(0), num_prompts=9, longest=12)
    state = new_state(work, 16, has_stops=False)
    state.start(5)
    assert state.sample.tolist() == [0, 1, 2, 3, 4] + [-1] * 11
    assert state.read().next_sample == 5


def test_a_step_without_live_rows_changes_nothing():
    work = random_work(np.random.default_rng(1), num_prompts=2, longest=1)
    state = new_state(work, 16, has_stops=True)
    state.start(16)
    fives = torch.full((16,), 5)
    advance_plain(state, fives, torch.zeros(16), 16)
    before = tensors_of(state)
    assert state.read().live == 0
    advance_plain(state, fives, torch.full((16,), float("nan")), 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(state).items())


def test_a_state_serves_a_later_smaller_call_as_a_new_one_would():
    rng = np.random.default_rng(2)
    first, second = random_work(rng, 9, longest=6), random_work(rng, 3, longest=5)
    used = new_state(first, 8, has_stops=True)
    addresses = [tensor.data_ptr() for tensor in used.volatile]
    used.start(8)
    for _ in range(5):
        tokens, logprobs = random_draws(rng, 8, bad_frac=0.1)
        advance_plain(used, torch.from_numpy(tokens), torch.from_numpy(logprobs), 8)
    assert used.fits(4, second, vocab_size=VOCAB)
    used.reset(second, eos_ids=EOS_IDS, seed=SEED)
    fresh = new_state(second, 8, has_stops=False)
    for state in (used, fresh):
        state.start(8)
    for _ in range(6):
        tokens, logprobs = (torch.from_numpy(a) for a in random_draws(rng, 8))
        for state in (used, fresh):
            advance_plain(state, tokens, logprobs, 8)
        mine, new = tensors_of(used), tensors_of(fresh)
        for name in ("sample", "slot", "token", "uniform", "scalars", "stop_state"):
            assert torch.equal(mine[name], new[name]), name
    count, longest = new["out_tokens"].shape
    assert torch.equal(mine["out_tokens"][:count, :longest], new["out_tokens"])
    assert torch.equal(mine["out_length"][:count], new["out_length"])
    assert [tensor.data_ptr() for tensor in used.volatile] == addresses


def test_a_larger_call_another_vocabulary_or_a_first_stop_string_do_not_fit():
    rng = np.random.default_rng(3)
    work = random_work(rng, 4, longest=6)
    state = new_state(work, 8, has_stops=False)
    assert state.fits(8, work, vocab_size=VOCAB)
    assert not state.fits(9, work, vocab_size=VOCAB)
    assert not state.fits(8, work, vocab_size=VOCAB - 1)
    assert not state.fits(8, random_work(rng, 40, longest=6), vocab_size=VOCAB)
    assert not state.fits(8, work, vocab_size=VOCAB, next_state=TABLE)


def test_what_a_step_changed_can_be_put_back():
    rng = np.random.default_rng(4)
    work = random_work(rng, 6, longest=3)
    once, twice = (new_state(work, 8, has_stops=True) for _ in range(2))
    tokens, logprobs = (torch.from_numpy(a) for a in random_draws(rng, 8, bad_frac=0.2))
    for state in (once, twice):
        state.start(8)
        saved = [tensor.clone() for tensor in state.volatile]
        advance_plain(state, tokens, logprobs, 8)
    for tensor, value in zip(twice.volatile, saved, strict=True):
        tensor.copy_(value)
    advance_plain(twice, tokens, logprobs, 8)
    assert_same(once, twice)


def test_the_first_sample_that_is_not_finite_is_named():
    work = Work(
        sample_ids=np.arange(3), prompts=np.zeros(3), limits=np.full(3, 9),
        body_starts=np.zeros(1), bodies=np.ones(1), last_tokens=np.ones(1),
    )  # fmt: skip
    state = new_state(work, 3, has_stops=False)
    state.start(3)
    nan = float("nan")
    advance_plain(state, torch.tensor([5, 0, 0]), torch.tensor([-1.0, nan, nan]), 3)
    assert state.read().bad == 2
    advance_plain(state, torch.tensor([5, 5, 5]), torch.tensor([nan, -1.0, -1.0]), 3)
    assert state.read().bad == 2
    assert state.out_reason.tolist() == [NOT_FINITE] * 3


def test_draws_of_tensors_are_those_of_arrays():
    rng = np.random.default_rng(6)
    edges = np.array([0, 2**64 - 1, 2**63], dtype=np.uint64)
    ids = np.concatenate([rng.integers(0, 2**64, 50, dtype=np.uint64), edges])
    index = rng.integers(0, 2**31, len(ids))
    words = ids.view(np.uint32).reshape(-1, 2).view(np.int32)
    for seed in (0, 1, 2**31, 2**64 - 1, SEED):
        key = torch.from_numpy(np.array([seed], dtype=np.uint64).view(np.int32))
        low, high = (torch.from_numpy(words[:, i].copy()) for i in range(2))
        drawn = uniforms_of(key, low, high, torch.from_numpy(index))
        assert drawn.tolist() == uniforms(seed, ids, index[:, None])[:, 0].tolist()
