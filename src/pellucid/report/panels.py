"""The curves of a training stage: which metrics share a panel, and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from pellucid.report.figures import Line, curve_svg
from pellucid.report.read import Curves
from pellucid.report.words import number, percent

ENDS = 5
"""Steps averaged for the words `from … to …`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One small figure."""

    title: str
    caption: str
    summary: str
    """The curves in words: first and last values."""
    figure: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    title: str
    caption: str
    names: tuple[str, ...]
    """Metrics; one that ends in `*` takes all that begin so."""
    is_percent: bool = False


_SPECS = (
    _Spec(
        title="Reward",
        caption="Mean of the scalar trained on, and its terms before weighting.",
        names=("rollout/reward_mean", "rollout/reward/*"),
    ),
    _Spec(
        title="Accuracy",
        caption="Training rollouts that are correct; points: small held-out evaluations.",
        names=("rollout/accuracy", "eval/*"),
        is_percent=True,
    ),
    _Spec(
        title="Reward against truth",
        caption="The reward models' score and the accuracy on the same probe problems: a reward "
        "that rises while accuracy falls is being hacked.",
        names=("probe/reward", "probe/accuracy"),
        is_percent=True,
    ),
    _Spec(
        title="Length",
        caption="Completion tokens.",
        names=("rollout/length_mean", "on-policy/rollout/length_mean"),
    ),
    _Spec(
        title="Cut off and without answer",
        caption="Rollouts that hit the token limit, and those in which no answer was found.",
        names=("rollout/length_truncated_frac", "rollout/verdict/unparsable"),
        is_percent=True,
    ),
    _Spec(
        title="Loss",
        caption="Negative log-probability of the tokens that are learnt, nats per token.",
        names=("sft/loss", "warm-start/sft/loss", "sft/sft/loss", "iterative-sft/sft/loss"),
    ),
    _Spec(
        title="Reverse KL to the teacher",
        caption="On-policy distillation: mean over the student's own tokens of its log-probability "
        "less the teacher's, nats.",
        names=("on-policy/distill/reverse_kl",),
    ),
    _Spec(
        title="Entropy",
        caption="Of the policy, nats per token. A fall to 0 means it has stopped exploring.",
        names=("train/entropy", "on-policy/train/entropy"),
    ),
    _Spec(
        title="KL to the reference",
        caption="How far the policy has moved, nats per token.",
        names=("train/kl",),
    ),
    _Spec(
        title="Gradient norm",
        caption="Before clipping.",
        names=("train/grad_norm",),
    ),
    _Spec(
        title="Speed",
        caption="Completion tokens per second, over whole steps.",
        names=("timing/tokens_per_s",),
    ),
    _Spec(
        title="Memory of the GPU",
        caption="GiB: taken from the device, in use by torch, and what the plan had said.",
        names=("memory/used_gib", "memory/allocated_gib", "memory/planned_gib"),
    ),
)
_LABELS = {
    "rollout/reward_mean": "reward",
    "probe/reward": "score of the reward models",
    "probe/accuracy": "accuracy",
    "rollout/length_mean": "mean length",
    "rollout/length_truncated_frac": "cut off",
    "rollout/verdict/unparsable": "without answer",
    "warm-start/sft/loss": "warm start",
    "sft/sft/loss": "curated examples",
    "iterative-sft/sft/loss": "own right samples",
    "train/kl": "KL",
    "train/grad_norm": "norm",
    "timing/tokens_per_s": "tokens/s",
    "memory/used_gib": "taken",
    "memory/allocated_gib": "in use",
    "memory/planned_gib": "planned",
}


def make_panels(curves: Curves) -> list[Panel]:
    """Panels for all metrics that were measured."""
    panels = []
    for spec in _SPECS:
        lines = [_line(name, curves) for name in _names(spec, curves)]
        lines = [line for line in lines if line.values]
        if lines:
            panels.append(
                Panel(
                    title=spec.title,
                    caption=spec.caption,
                    summary=_in_words(lines, spec.is_percent),
                    figure=Markup(curve_svg(lines, percent=spec.is_percent)),
                )
            )
    return panels


def _names(spec: _Spec, curves: Curves) -> list[str]:
    names = []
    for wanted in spec.names:
        if wanted.endswith("*"):
            found = sorted(n for n in curves if n.startswith(wanted[:-1]))
            names += [n for n in found if not n.endswith(("/std", "/count"))]
        elif wanted in curves:
            names.append(wanted)
    return names


def _line(name: str, curves: Curves) -> Line:
    steps, values = curves[name]
    is_sparse = name.startswith("eval/")
    fallback = f"held-out {name.split('/')[1]}" if is_sparse else name.split("/")[-1]
    label = _LABELS.get(name, fallback)
    return Line(label=label, steps=steps, values=values, is_sparse=is_sparse)


def _in_words(lines: list[Line], is_percent: bool) -> str:
    """`reward 0.1 → 1.6, format 0.3 → 1`; a single curve needs no name."""
    ends = [_ends(line, percent if is_percent else number) for line in lines]
    if len(lines) == 1:
        return ends[0]
    return ", ".join(f"{line.label} {e}" for line, e in zip(lines, ends, strict=True))


def _ends(line: Line, shown: Callable[[float], str]) -> str:
    if len(line.values) == 1:
        return shown(line.values[0])
    if line.is_sparse or len(line.values) < 2 * ENDS:
        first, last = line.values[0], line.values[-1]
    else:
        first, last = fmean(line.values[:ENDS]), fmean(line.values[-ENDS:])
    return f"{shown(first)} → {shown(last)}"
