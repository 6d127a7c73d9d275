"""Decoding with the loop on the device: the host replays captured steps and looks at old counts.

    prefill bodies -> seat the first samples -> replay a chunk, start copying the counts
                                                -> read the counts of the chunk before -> …

Stops, refill and compaction happen inside the step (`kernels.bookkeeping`). The host needs to know
only how many rows are live, to choose a smaller shape once nothing waits: a count one chunk old is
a safe upper bound then, because it cannot rise. It never waits for the chunk in flight, but where
pages of keys and values decide how many rows there are: while samples wait, it looks at each
chunk's end, since rows come and go then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.errors import NumericsError
from pellucid.kernels.attention import ROW_TILE
from pellucid.model.transformer import Decoder
from pellucid.protocols import GroupFn, ProgressFn, Tokenizer
from pellucid.records import Completion, Request, SamplingParams
from pellucid.rollout.captured import StepShape
from pellucid.rollout.drafts import DRAFT_ROWS, DraftCounts, DraftPolicy
from pellucid.rollout.harvest import Harvest
from pellucid.rollout.loop_buffers import Counts
from pellucid.rollout.loop_state import NOT_FINITE
from pellucid.rollout.prefill import prefill_bodies
from pellucid.rollout.resident_step import ResidentStep
from pellucid.rollout.stops import StopRule
from pellucid.rollout.waves import Wave, round_rows

CHUNK = 16
"""Steps between two looks of the host: enough to hide its work."""
TAIL_CHUNK, TAIL_ROWS = 4, 64
"""With few rows left a step more is a share of what is left to do."""
SPLIT = 256
"""Bounds of a captured step are multiples of it: the split of the attention kernel."""
FINE_BOUNDS = 8
"""So many bounds up to the first that is not; above, four to each power of two."""


class ResidentRollout:
    """One call of the engine, over a step that outlives it."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        params: SamplingParams,
        step: ResidentStep,
        *,
        seed: int,
        next_state: NDArray[np.int16] | None,
        policy: DraftPolicy | None = None,
        expected_pages: int = 1,
    ) -> None:
        """`next_state` [states, V]: the table of stop strings, None where there are none;
        `expected_pages`: see `Pages.reset`."""
        self.expected_pages = expected_pages
        self.next_state = next_state
        self.policy = policy or DraftPolicy(0)
        self.model, self.tokenizer, self.params, self.seed = model, tokenizer, params, seed
        self.step, self.state = step, step.state
        self.stops = StopRule(tokenizer, model.spec.vocab_size, params)

    def run(
        self,
        waves: Sequence[Wave],
        progress: ProgressFn | None,
        on_group: GroupFn | None = None,
    ) -> list[list[Completion]]:
        """Decodes the waves one after another until every sample has ended."""
        total = sum(wave.num_samples for wave in waves)
        done: list[list[Completion]] = []
        num_done = 0
        self.step.drafts.counts.zero_()
        self.policy.begin()
        for wave in waves:
            prefill_bodies(self.model, self.step.arena, wave.requests)
            self.state.reset(
                wave.work(self.model.spec, self.params),
                eos_ids=self.tokenizer.eos_ids,
                seed=self.seed,
                next_state=self.next_state,
                expected_pages=self.expected_pages,
            )

            def tell(finished: int, before: int = num_done) -> None:
                if progress is not None:
                    progress(before + finished, total)

            harvest = Harvest(
                self.state, self.stops, wave.requests, first=len(done), on_group=on_group
            )
            self._decode(wave, tell, harvest)
            done.extend(harvest.rest())
            num_done += wave.num_samples
        return done

    def _decode(self, wave: Wave, tell: Callable[[int], None], harvest: Harvest) -> None:
        """Replays chunks until no row is live."""
        rows = min(round_rows(wave.num_samples), self.state.capacity.slots)
        self.state.start(rows)
        body, siblings = round_bound(wave.longest_body), round_siblings(wave.most_siblings)
        look = _Look(self.state.read(), self.step.drafts.read(), None, 0, 0)
        # None waits, and without pages none begins again: every sample has a token more each step.
        are_together = self.state.pages is None and not look.counts.is_waiting
        finished = started = 0
        snapshots = _Snapshots(self.state.scalars, self.step.drafts.counts, harvest.ended)
        while look.counts.live:
            steps = self._chunk(look)
            if steps == 0:  # all that was live has ended, or is about to
                look = snapshots.newest()
                continue
            rows = self._rows(look, rows)
            drafts = self._drafts(look, rows)
            most = steps * (1 + drafts)
            furthest = min(look.counts.max_own + look.most + most, self.state.capacity.new_tokens)
            shape = StepShape(rows, round_bound(furthest), body, drafts, siblings)
            self.step.run(shape, steps)
            started += steps
            snapshots.take()
            is_open = self.state.pages is not None and look.counts.is_waiting
            look = snapshots.newest() if is_open else snapshots.before_newest(look, steps, most)
            self.policy.observe(look.drafted)
            self._check(look.counts, wave.requests)
            if look.counts.finished > finished:
                finished = look.counts.finished
                tell(finished)
            if are_together and look.counts.live > TAIL_ROWS:
                harvest.follow(started - look.ahead)
            if look.ended is not None:
                harvest.take(look.ended)
        self._check(look.counts, wave.requests)
        self.policy.observe(self.step.drafts.read())
        assert look.counts.finished == wave.num_samples, "a sample was lost"
        if finished < wave.num_samples:
            tell(wave.num_samples)

    def _rows(self, look: _Look, rows: int) -> int:
        """Rows of the next steps: at least those that are live. `rows`: of the steps before."""
        if not look.counts.is_waiting:
            return min(rows, round_rows(look.counts.live))
        if self.state.pages is None or look.ahead:
            return rows  # since an old look, rows that began again may have come back
        more = max(look.counts.live // 8, 1)
        return min(round_rows(look.counts.live + more), self.state.capacity.slots)

    def _drafts(self, look: _Look, rows: int) -> int:
        """Tokens to draft a row: few rows must be left, and none to come; drafted rows would share
        a page."""
        is_tail = not look.counts.is_waiting and rows <= DRAFT_ROWS
        can_draft = self.policy.is_on and self.state.pages is None
        return self.policy.drafts if is_tail and can_draft else 0

    def _chunk(self, look: _Look) -> int:
        """Steps to run before the next look; 0: look again first."""
        if look.counts.is_waiting:
            return CHUNK
        left = self.params.max_new_tokens - look.counts.max_own + 1 - look.ahead
        return min(CHUNK if look.counts.live > TAIL_ROWS else TAIL_CHUNK, max(left, 0))

    def _check(self, counts: Counts, requests: Sequence[Request]) -> None:
        if not counts.bad:
            return
        sample = counts.bad - 1
        owners = np.repeat(np.arange(len(requests)), [len(r.sample_ids) for r in requests])
        ids = [i for request in requests for i in request.sample_ids]
        assert int(self.state.out_reason[sample]) == NOT_FINITE, "the first bad sample has ended"
        raise NumericsError(
            f"logits of the rollout hold NaN or infinity: request {owners[sample]}, "
            f"sample {ids[sample]}, token {int(self.state.out_length[sample]) - 1}"
        )


class _Look(NamedTuple):
    """Counts as they were, and what was started since."""

    counts: Counts
    drafted: DraftCounts
    ended: torch.Tensor | None
    """See `Harvest.take`; overwritten by the snapshot after the next."""
    ahead: int
    """Steps: the tokens that a row which goes on has got at least."""
    most: int
    """Tokens that it can have got."""


class _Snapshots:
    """Copies of the counts on their way to the host, two at most."""

    def __init__(
        self, counts: torch.Tensor, drafted: torch.Tensor, ended: torch.Tensor | None
    ) -> None:
        self.watched = [counts, drafted] + ([] if ended is None else [ended])
        pinned = counts.is_cuda

        def hosts() -> list[torch.Tensor]:
            return [torch.zeros(len(w), dtype=torch.int32, pin_memory=pinned) for w in self.watched]

        self.hosts = [hosts(), hosts()]
        self.events = [torch.cuda.Event() for _ in range(2)] if pinned else []
        self.taken = 0

    def take(self) -> None:
        """Starts copying the counts as they will be after the steps just started."""
        place = self.taken % 2
        for host, watched in zip(self.hosts[place], self.watched, strict=True):
            host.copy_(watched, non_blocking=True)
        if self.events:
            self.events[place].record()
        self.taken += 1

    def before_newest(self, first: _Look, steps: int, most: int) -> _Look:
        """The snapshot before the newest: the one whose steps have been running all along."""
        if self.taken < 2:
            return first._replace(ahead=first.ahead + steps, most=first.most + most)
        return self._read(self.taken - 2, steps, most)

    def newest(self) -> _Look:
        return self._read(self.taken - 1, 0, 0)

    def _read(self, number: int, ahead: int, most: int) -> _Look:
        if self.events:
            self.events[number % 2].synchronize()
        counts, drafted, *ended = self.hosts[number % 2]
        return _Look(
            Counts(*counts.tolist()),
            DraftCounts(*drafted.tolist()),
            ended[0] if ended else None,
            ahead,
            most,
        )


def round_bound(length: int) -> int:
    """The bound of a captured step that covers `length`: few shapes, little to skip."""
    grain = SPLIT
    while length > FINE_BOUNDS * grain:
        grain *= 2
    return -(-length // grain) * grain


def round_siblings(count: int) -> int:
    """A power of two that covers `count`, up to ROW_TILE: few shapes."""
    return min(1 << max(count - 1, 0).bit_length(), ROW_TILE)
