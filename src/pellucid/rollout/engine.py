"""The in-process engine: prompts in, completions out, from the very weights that are trained."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pellucid.errors import UserError
from pellucid.kernels.available import hopper_ready
from pellucid.model.packed import Packing
from pellucid.model.transformer import Decoder
from pellucid.protocols import GroupFn, ProgressFn, Tokenizer
from pellucid.records import Completion, Request, SamplingParams
from pellucid.rollout.generation import Generation, decoded_context
from pellucid.rollout.step import DecodeStep

if TYPE_CHECKING:
    from pellucid.rollout.resident_engine import ResidentEngine

log = logging.getLogger(__name__)

SPARE_CPU_BYTES = 2**29
"""On a CPU keys and values up to this size stay allocated for the next call: first touches of fresh
memory cost a small model a tenth of its time."""
SPARE_CUDA_FRAC = 0.125
"""Share of a CUDA device's memory that may stay allocated between calls on the plain path."""


class InProcessEngine:
    """Implements `protocols.Engine`: batched decoding, continuous refill, counter-based sampling.

    Where the kernels run, the loop lives on the device (`rollout.resident`); elsewhere, and for
    what they do not support, the host leads it (`rollout.generation`). Both draw the same tokens
    from the same logits. A completion depends on the weights, the prompt, the parameters, the seed
    and its sample id: not on the other requests, their order, or the number of slots (up to
    rounding of the logits, which on most kernels depends on the batch).
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        slots: int = 512,
        kv_limit: int | None = None,
        is_shared: bool = False,
        drafts: int = 0,
        must_be_exact: bool = False,
    ) -> None:
        """`slots`: sequences decoded at once; on CUDA fewer if the memory does not hold them.
        `kv_limit`: bytes that keys and values may take there. `is_shared`: `suspend` lends their
        memory to others. `drafts`: tokens guessed a row and step once few rows are left (0: none),
        where the loop is on the device; they do not change what is drawn from the same logits.
        `must_be_exact`: refuse what only the host can lead, rather than serve it inexactly.
        """
        if slots < 1:
            raise UserError(f"the engine needs at least 1 slot, not {slots}: set rollout.slots")
        self.model = model
        self.tokenizer = tokenizer
        self.slots = slots
        self._spare: DecodeStep | None = None
        self._is_shared, self._must_be_exact = is_shared, must_be_exact
        self._resident = self._new_resident(kv_limit)
        self.drafts = drafts
        self.refresh()

    @property
    def drafts(self) -> int:
        """Tokens guessed a row and step; 0 where the host leads the loop."""
        return self._resident.drafts if self._resident is not None else 0

    @drafts.setter
    def drafts(self, number: int) -> None:
        if self._resident is not None:
            self._resident.drafts = number

    @property
    def accepted_per_row_step(self) -> float:
        """Guesses that came true for each live row of a step that had them."""
        return self._resident.drafted.counts.per_row_step if self._resident is not None else 0.0

    @property
    def most_rows(self) -> int:
        """Sequences that the last call decoded at a time, at most."""
        return self._resident.most_rows if self._resident is not None else self.slots

    @property
    def restarts(self) -> int:
        """Rows that began again in the last call for want of a page (`rollout.pages`)."""
        return self._resident.restarts if self._resident is not None else 0

    def refresh(self) -> None:
        """Must be called after the weights changed: drops the copies made for fast inference."""
        self._packing: Packing | None = None

    def release(self) -> None:
        """Gives back keys, values and captured steps; the next `generate` makes them anew."""
        self._spare = None
        if self._resident is not None:
            self._resident.release()

    def suspend(self) -> None:
        """Lends the memory of keys and values to others until the next `generate`, where the
        engine was made `is_shared`.
        """
        if not self._is_shared:
            return
        self._spare = None
        if self._resident is not None:
            self._resident.suspend()

    def generate(
        self,
        requests: Sequence[Request],
        params: SamplingParams,
        *,
        seed: int,
        progress: ProgressFn | None = None,
        on_group: GroupFn | None = None,
    ) -> list[list[Completion]]:
        """Completions in the order of `requests` and of their `sample_ids`; `on_group` gets those
        of each request that has samples, as they end.

        Raises UserError where a prompt is empty or does not fit the model's context, or exactness
        was asked for in vain, NumericsError where logits are not finite.
        """
        self._check(requests, params)
        if not any(request.sample_ids for request in requests):
            return [[] for _ in requests]
        longest = max(len(request.prompt_ids) for request in requests)
        is_cuda = self.model.embedding.weight.is_cuda
        # Outside inference mode: the trainer uses this table too, and autograd refuses tensors
        # made inside.
        self.model.reserve_context(decoded_context(longest, params.max_new_tokens, is_cuda=is_cuda))
        with torch.inference_mode():
            if self._resident is not None and self._resident.can_serve(params):
                return self._resident.generate(
                    requests, params, seed=seed, progress=progress, on_group=on_group
                )
            if self._must_be_exact:
                raise UserError(
                    f"exact = true, but the device cannot follow the stop strings {params.stop} "
                    'with this tokenizer: set exact = "auto", or choose a template without them'
                )
            return self._generate_plainly(requests, params, seed, progress, on_group)

    def _generate_plainly(
        self,
        requests: Sequence[Request],
        params: SamplingParams,
        seed: int,
        progress: ProgressFn | None,
        on_group: GroupFn | None,
    ) -> list[list[Completion]]:
        if self._packing is None:
            self._packing = Packing(self.model)
        # While it runs nothing is spare: if it fails, what it leaves may hold NaN.
        spare, self._spare = self._spare, None
        generation = Generation(
            self.model,
            self._packing.head,
            self.tokenizer,
            requests,
            params,
            seed=seed,
            slots=self.slots,
            spare=spare,
            on_group=on_group,
        )
        del spare
        with self._packing.attached():
            completions = generation.run(progress)
        if generation.step.cache.num_bytes <= self._spare_bytes():
            self._spare = generation.step
        return completions

    def _new_resident(self, kv_limit: int | None) -> ResidentEngine | None:
        """The engine on the device, where its kernels run and fit the model."""
        weight = self.model.embedding.weight
        if not hopper_ready(weight.device):  # which says why
            return None
        from pellucid.rollout.resident_engine import ResidentEngine, supports

        if weight.dtype != torch.bfloat16:
            _say_that_the_host_leads(f"weights are {str(weight.dtype).removeprefix('torch.')}")
            return None
        if not supports(self.model.spec):
            _say_that_the_host_leads("the rollout kernels are not made for this model's shape")
            return None
        return ResidentEngine(
            self.model,
            self.tokenizer,
            slots=self.slots,
            kv_limit=kv_limit,
            is_shared=self._is_shared,
        )

    def _spare_bytes(self) -> int:
        device = self.model.embedding.weight.device
        if device.type != "cuda":
            return SPARE_CPU_BYTES
        return int(torch.cuda.get_device_properties(device).total_memory * SPARE_CUDA_FRAC)

    def _check(self, requests: Sequence[Request], params: SamplingParams) -> None:
        if params.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {params.max_new_tokens}")
        if "" in params.stop:
            raise UserError("an empty stop string would end every completion: leave it out")
        context = self.model.spec.max_context
        for number, request in enumerate(requests):
            length = len(request.prompt_ids)
            if length == 0:
                raise UserError(f"prompt {number} is empty: give it at least one token")
            limits = request.limits
            if limits is not None and len(limits) != len(request.sample_ids):
                raise UserError(
                    f"prompt {number} has {len(limits)} limits for {len(request.sample_ids)} "
                    "samples: give one each"
                )
            if limits and not 1 <= min(limits) <= max(limits) <= params.max_new_tokens:
                raise UserError(
                    f"prompt {number} has limits outside 1 … {params.max_new_tokens}: "
                    "raise max_new_tokens"
                )
            if length + params.max_new_tokens > context:
                room = context - length
                remedy = f"lower max_new_tokens to {room} or " if room > 0 else ""
                raise UserError(
                    f"prompt {number} has {length} tokens and asks for {params.max_new_tokens} "
                    f"more, but the model's context is {context}: {remedy}shorten the prompt"
                )


@functools.cache
def _say_that_the_host_leads(why: str) -> None:
    """Once for each reason, however many engines a pipeline opens."""
    log.warning("the host leads decoding, slower and not exact: %s", why)
