"""The jobs: their names, their sizes and the order in which a limited time is spent on them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from workload import MIXED_LONGEST, PAGED_LONGEST

Kind = Literal[
    "rollout",
    "mixed",
    "pages",
    "step",
    "planned",
    "train",
    "gap",
    "long-prompt",
    "compiled",
    "overlap",
]
Shape = Literal["0.5b", "1.5b", "7b"]

_LEVER = r"(-(?P<lever>near|nopdl|max|drafts(?P<drafts>[1-7])))?"
_ROLLOUT = re.compile(r"(?P<base>rollout-(?P<shape>[^-]+)-(?P<sizes>\d+x\d+-\d+\+\d+))" + _LEVER)
_OTHER = re.compile(
    r"(?P<base>(?P<kind>mixed|pages|step|planned|train|gap|long-prompt|compiled|overlap)"
    r"-(?P<shape>[^-]+))" + _LEVER
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measurement.

    Example: parse("rollout-0.5b-64x16-128+512") samples 16 completions of 512 tokens for each of
    64 prompts of 128 tokens.
    """

    name: str
    kind: Kind
    shape: Shape
    prompts: int
    group: int
    """Samples per prompt."""
    prompt: int
    """Tokens of a prompt."""
    new: int
    """New tokens of a sample; of a mixed job, at most so many."""
    is_exact: bool = True
    """Rollout and trainer agree to the last bit, as a recipe has it unless it says otherwise."""
    has_pdl: bool = True
    """Kernels are set up while the one before still runs (`kernels/launch.py`)."""
    drafts: int = 0
    """Tokens guessed a row and step once few rows are left."""
    has_autotune: bool = False
    """The compiler tries every tiling of every matrix product."""

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    @property
    def is_variant(self) -> bool:
        """The job of another name with a lever pulled, to see what it does: nothing for peers."""
        return self.drafts > 0 or not self.has_pdl or not self.is_exact or self.has_autotune

    @property
    def environment(self) -> dict[str, str]:
        """What the process of the job is told by its environment."""
        return {} if self.has_pdl else {"PELLUCID_PDL": "0"}

    @property
    def is_mixed(self) -> bool:
        """Lengths differ, and end tokens end samples."""
        return self.kind in ("mixed", "pages")

    def shrunk(self) -> Job:
        """The same job for a rehearsal on a CPU."""
        return replace(
            self,
            prompts=min(self.prompts, 2),
            group=min(self.group, 2),
            prompt=min(self.prompt, 8 if self.kind != "long-prompt" else 24),
            new=min(self.new, 6 if not self.is_mixed else 12),
        )


JOBS = (
    "rollout-0.5b-64x16-128+512",
    "step-0.5b",
    "rollout-1.5b-64x16-128+512",
    "rollout-7b-32x16-128+512",
    "train-0.5b",
    "train-1.5b",
    "train-7b",
    "mixed-0.5b",
    "gap-0.5b",
    "rollout-0.5b-512x1-128+512",
    "rollout-0.5b-64x1-128+256",
    "step-1.5b",
    "planned-0.5b",
    "planned-1.5b",
    "planned-7b",
    "rollout-1.5b-32x16-128+512",
    "rollout-7b-64x1-128+256",
    "rollout-0.5b-32x16-128+512",
    "rollout-0.5b-4x16-128+256",
    "rollout-7b-4x16-128+256",
    "long-prompt-1.5b",
    "gap-1.5b",
    "step-1.5b-near",
    "planned-1.5b-near",
    "rollout-0.5b-64x16-128+512-near",
    "rollout-1.5b-64x16-128+512-near",
    "rollout-1.5b-32x16-128+512-near",
    "rollout-7b-32x16-128+512-near",
    "rollout-0.5b-4x16-128+256-near",
    "rollout-0.5b-64x1-128+256-near",
    "rollout-7b-4x16-128+256-near",
    "rollout-7b-64x1-128+256-near",
    "pages-1.5b",
    "compiled-0.5b",
    "compiled-1.5b",
    "mixed-0.5b-near",
    "mixed-0.5b-nopdl",
    "overlap-0.5b",
)
"""Most important first."""

_SIZES: dict[str, tuple[int, int, int, int]] = {
    "mixed": (64, 16, 128, MIXED_LONGEST),
    "pages": (64, 16, 128, PAGED_LONGEST),
    "step": (64, 16, 128, 512),
    "planned": (64, 16, 128, 512),
    "planned-7b": (8, 16, 128, 512),
    "train": (16, 16, 128, 512),
    "train-1.5b": (8, 16, 128, 512),
    "train-7b": (4, 16, 128, 512),
    "compiled": (16, 16, 128, 512),
    "compiled-1.5b": (8, 16, 128, 512),
    "gap": (8, 16, 128, 512),
    "overlap": (4, 16, 128, 512),
    "long-prompt": (16, 16, 2048, 256),
}
"""Prompts, samples a prompt, tokens of a prompt, new tokens of a sample."""


def parse(name: str) -> Job:
    """The job of a name; ValueError with one line where there is none."""
    if match := _ROLLOUT.fullmatch(name):
        kind = "rollout"
        sizes = tuple(int(text) for text in re.findall(r"\d+", match["sizes"]))
    elif match := _OTHER.fullmatch(name):
        kind = match["kind"]
        sizes = _SIZES.get(match["base"], _SIZES[kind])
    else:
        raise ValueError(f"no job is called {name!r}: see --list, or say rollout-SHAPE-PxG-L+N")
    if match["lever"] and (match["lever"] == "max") is not (kind == "compiled"):
        raise ValueError(f"{name!r}: -max is for compiled jobs, the other levers are for the rest")
    if match["shape"] not in get_args(Shape):
        raise ValueError(f"{name!r}: the shape is one of {', '.join(get_args(Shape))}")
    if min(sizes) < 1:
        raise ValueError(f"{name!r}: every size is at least 1")
    prompts, group, prompt, new = sizes
    return Job(
        name=name,
        kind=kind,
        shape=match["shape"],
        prompts=prompts,
        group=group,
        prompt=prompt,
        new=new,
        is_exact=match["lever"] != "near",
        has_pdl=match["lever"] != "nopdl",
        drafts=int(match["drafts"] or 0),
        has_autotune=match["lever"] == "max",
    )
