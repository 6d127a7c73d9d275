"""A decoding step's rows, attended with in one launch, of either kind, and in four."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from attention_rows import Shape, in_pages
from torch import Tensor

from pellucid.kernels.attention import KeySource, attend_rows
from pellucid.kernels.attention_step import StepRows
from pellucid.kernels.rope import rotate_append

Launch = Callable[[StepRows], Tensor]
"""`attend_few` or `attend_alone`."""


class Step(NamedTuple):
    heads: Tensor
    table: Tensor
    position: Tensor
    slot: Tensor
    own_at: Tensor
    length: Tensor
    keys: Tensor
    """[2, S, J, C, K]: keys and values of the slots."""
    prompts: Tensor
    """[2, J, tokens, K]."""
    body_start: Tensor
    body: Tensor


def random_step(
    own: list[int], body: list[int], shape: Shape, dtype: torch.dtype, device: str = "cpu"
) -> Step:
    """Rows with `own` positions, the new one included (0: idle), and prompt bodies of `body`
    tokens that begin in eights. Slots lie in reverse order; NaN wherever no row may look."""
    heads, num_kv, head_dim = shape
    rows, room, longest = len(own), max(own) + 8, max(*body, 1) + 16

    def random(*size: int) -> Tensor:
        return torch.randn(size, device=device).to(dtype)

    length = torch.tensor(own, device=device)
    slot = torch.arange(rows - 1, -1, -1, device=device)
    slot = torch.where(length > 0, slot, -1)
    keys = random(2, rows, num_kv, room, head_dim)
    for row, count in enumerate(own):
        keys[:, slot[row], :, max(count - 1, 0) :] = torch.nan
    turns = torch.arange(room + longest, device=device)[:, None] * torch.arange(
        1, head_dim // 2 + 1, device=device
    )
    # Quarter turns: products stay exact.
    table = torch.stack([(turns % 4 == n).float() - (turns % 4 == n + 2).float() for n in (0, 1)])
    return Step(
        random(rows, heads + 2 * num_kv, head_dim),
        table,
        torch.where(length > 0, length + torch.tensor(body, device=device) - 1, 10**6),
        slot.int(),
        (length - 1).clamp(min=0).int(),
        length.int(),
        keys,
        random(2, num_kv, longest, head_dim),
        torch.tensor([8 * head_dim * (row % 2) for row in range(rows)], device=device),
        torch.tensor(body, device=device).int(),
    )


def attend_in_pages(
    step: Step, shape: Shape, launch: Launch, page: int, **bounds: int
) -> tuple[Tensor, Tensor]:
    """The same in one launch from a cache in pages, which is put together again afterwards."""
    heads, num_kv, head_dim = shape
    slot = step.slot.long().clamp(min=0)
    whole = KeySource(
        *step.keys, slot * step.keys.stride(1), step.length, step.keys.stride(2), head_dim
    )
    own = in_pages(whole, page)
    last = (step.length - 1).clamp(min=0).long()
    at = torch.where(step.slot < 0, -1, own.pages[slot, last // page])
    prompt = KeySource(
        step.prompts[0], step.prompts[1], step.body_start, step.body,
        step.prompts.stride(1), head_dim,
    )  # fmt: skip
    rows = StepRows(
        step.heads, step.table, step.position, at, (last % page).int(), own, prompt,
        slot_stride=own.page_stride, num_heads=heads, num_kv=num_kv, **bounds,
    )  # fmt: skip
    out = launch(rows)
    slots, _, room, _ = step.keys[0].shape
    pages = torch.stack([own.k, own.v])[:, own.pages.flatten().long()]
    pages = pages.view(2, slots, -1, num_kv, page, head_dim).transpose(2, 3)
    return out, pages.reshape(2, slots, num_kv, -1, head_dim)[:, :, :, :room]


def attend(
    step: Step, shape: Shape, launch: Launch | None, max_own: int = 0, max_prompt: int = -1
) -> tuple[Tensor, Tensor]:
    """Output [B, H * K] and the cache [2, S, J, C, K] afterwards; without `launch`, in four."""
    heads, num_kv, head_dim = shape
    keys = step.keys.clone()
    slot_stride = keys.stride(1)
    own = KeySource(
        keys[0], keys[1], step.slot.long().clamp(min=0) * slot_stride, step.length,
        keys.stride(2), head_dim,
    )  # fmt: skip
    prompt = KeySource(
        step.prompts[0], step.prompts[1], step.body_start, step.body,
        step.prompts.stride(1), head_dim,
    )  # fmt: skip
    max_own = max_own or int(step.length.max())
    max_prompt = int(step.body.max()) if max_prompt < 0 else max_prompt
    if launch is not None:
        rows = StepRows(
            step.heads, step.table, step.position, step.slot, step.own_at, own,
            prompt if max_prompt else None, slot_stride=slot_stride, num_heads=heads,
            num_kv=num_kv, max_own=max_own, max_prompt=max_prompt,
        )  # fmt: skip
        return launch(rows), keys
    q = rotate_append(
        step.heads, heads, num_kv, step.table, step.position, keys[0], keys[1], step.slot,
        step.own_at,
    )  # fmt: skip
    group = torch.arange(len(step.heads), dtype=torch.int32, device=q.device)
    out = attend_rows(q, own, prompt, group, num_kv=num_kv, max_own=max_own, max_prompt=max_prompt)
    return out, keys
