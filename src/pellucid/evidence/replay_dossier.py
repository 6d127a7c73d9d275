"""`pellucid verify --replay M`: samples of a dossier through the weights that it claims.

    every evals/*/*/samples.jsonl.gz → those that claim these weights → choice → prompts rebuilt →
    calibration on this machine → replay → cause

The dossier is read as a stranger's: sizes are bounded, nothing of it is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import DataError
from pellucid.evaluate.runner import prompt_sha256
from pellucid.evidence.core.archive import Archive, ArchiveError, open_archive, read_whole
from pellucid.evidence.core.canonical import leaf_hash
from pellucid.evidence.core.samples import Sample, SampleError, samples_of
from pellucid.evidence.replay import (
    ReplayReport,
    ReplaySample,
    Tolerance,
    calibrate,
    check,
    choose,
)
from pellucid.evidence.replay_causes import Cause, Suspects, name_cause
from pellucid.evidence.with_model import OpenedModel, open_model, params_of, root_of, template_of
from pellucid.records import Request, StopReason, sample_id

if TYPE_CHECKING:
    from pellucid.model.transformer import Decoder

SAMPLES = "/samples.jsonl.gz"
ENVIRONMENT = "env/environment.json"
CALIBRATED_ON = 64
"""Prompts that are answered again on this machine to see what rounding does here."""


def replay_dossier(
    dossier: Path,
    model: str,
    m: int,
    seed: str,
    *,
    device: str = "cpu",
    tolerance: Tolerance | None = None,
    others: Mapping[str, str] | None = None,
) -> ReplayReport:
    """Replays `m` samples, chosen by the referee's `seed`, through `model` (path, name or hub id).

    `tolerance`: calibrated elsewhere on the hardware that drew the samples; None: calibrated here,
    by drawing and replaying samples of the same prompts. `others`: name -> model, other weights
    that may have drawn them. Raises DataError where nothing can be replayed.
    """
    root = root_of(model)
    pool = _Pool(root)
    try:
        with open_archive(dossier) as archive:
            chosen = choose(pool.leaves(archive), seed, m)
            drawn_on = _devices(archive)
    except (ArchiveError, SampleError) as error:
        raise DataError(f"{dossier} cannot be replayed: {error}") from error
    if not chosen:
        raise DataError(
            f"no sample claims the weights {root[:12]}… of {model}; the dossier's are of "
            f"{', '.join(sorted(r[:12] + '…' for r in pool.roots)) or 'none'}: name one of those"
        )
    whole = [(where, s) for where, s in chosen if s["redacted"] is None and s["token_ids"]]
    report = ReplayReport(
        weights_root=root,
        seed=seed,
        eligible=pool.count,
        withheld=len(chosen) - len(whole),
        tolerance=tolerance or Tolerance.floors(),
        checks=(),
    )
    return _replay(report, whole, model, device, drawn_on, others or {}) if whole else report


def _devices(archive: Archive) -> set[str]:
    """What the run says it computed on, without the number of threads; empty: it does not say."""
    if ENVIRONMENT not in archive.sizes:
        return set()
    try:
        stages = json.loads(read_whole(archive, ENVIRONMENT)).values()
        return {str(stage["device"]).partition(",")[0] for stage in stages}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()


@dataclass(slots=True)
class _Pool:
    """Counts what a dossier holds while it is read."""

    root: str
    count: int = 0
    roots: set[str] = field(default_factory=set)

    def leaves(self, archive: Archive) -> Iterator[tuple[bytes, tuple[str, Sample]]]:
        """(leaf, (where, record)) of all samples that claim the root."""
        for path in sorted(archive.sizes):
            if not (path.startswith("evals/") and path.endswith(SAMPLES)):
                continue
            with archive.open(path) as file:
                for line, sample in samples_of(file, archive.sizes[path]):
                    self.roots.add(sample["model"])
                    if sample["model"] == self.root and sample["finish"] != "error":
                        self.count += 1
                        folder = path.removesuffix(SAMPLES)
                        where = f"{folder} {sample['item']} #{sample['k']}"
                        yield leaf_hash(line), (where, sample)


def _replay(
    report: ReplayReport,
    chosen: Sequence[tuple[str, Sample]],
    model: str,
    device: str,
    drawn_on: Collection[str],
    others: Mapping[str, str],
) -> ReplayReport:
    from pellucid.rollout.teacher_force import replay

    engine = chosen[0][1]["engine"]
    opened = open_model(
        model, dtype=engine["dtype"], device=device, exact=engine["batch_invariant"]
    )
    tokenizer = opened.loaded.tokenizer
    samples, strange = [], []
    for where, record in chosen:
        sample = _sample(where, record, opened)
        same = prompt_sha256(sample.prompt_ids) == record["prompt_sha256"]
        (samples if same else strange).append(sample)
    if strange:
        return report.with_cause(
            Cause.PROMPT,
            f"{len(strange)} of {len(chosen)} samples: the prompt that was answered is not the "
            f"template's with the recorded question, first {strange[0].where}",
        )
    tolerance = report.tolerance
    if not tolerance.hardware:
        known = _known(opened, samples, report.seed)
        tolerance = calibrate(opened.loaded.model, known, opened.hardware)
        if drawn_on and not any(opened.hardware.startswith(name) for name in drawn_on):
            tolerance = tolerance.for_other_hardware(", ".join(sorted(drawn_on)))
    replayed = replay(opened.loaded.model, [s.recorded() for s in samples])
    checks = tuple(
        check(s, r, tolerance, tokenizer) for s, r in zip(samples, replayed, strict=True)
    )
    suspects = Suspects(
        models={n: _loader(path, engine["dtype"], device) for n, path in others.items()}
    )
    return name_cause(
        opened.loaded.model,
        replace(report, tolerance=tolerance, checks=checks),
        samples,
        suspects,
    )


def _sample(where: str, record: Sample, opened: OpenedModel) -> ReplaySample:
    template = template_of(record["template_sha256"])
    tokenizer = opened.loaded.tokenizer
    question, response = record["question"] or "", record["response"] or ""
    return ReplaySample(
        where=where,
        prompt_ids=template.prompt_ids(question, tokenizer, grader=record["grader"]),
        token_ids=tuple(record["token_ids"] or ()),
        text=response.removeprefix(template.prefill),
        sample_id=record["sample_id"],
        seed=record["seed"],
        params=params_of(record["sampler"]),
        logprob_sum=record["logprob_sum"],
        stop=StopReason(record["finish"]),
    )


def _known(opened: OpenedModel, samples: Sequence[ReplaySample], seed: str) -> list[ReplaySample]:
    """Samples of the same prompts, drawn here and now, and so honest."""
    params = samples[0].params
    asked = list({s.prompt_ids: s for s in samples if s.params == params}.values())
    asked = asked[:CALIBRATED_ON]
    requests = [
        Request(prompt_ids=s.prompt_ids, sample_ids=(sample_id("calibration", seed, number),))
        for number, s in enumerate(asked)
    ]
    own_seed = sample_id("calibration", seed)
    groups = opened.engine.generate(requests, params, seed=own_seed)
    return [
        replace(
            sample,
            token_ids=completion.token_ids,
            text=completion.text,
            sample_id=completion.sample_id,
            seed=own_seed,
            logprob_sum=float(sum(completion.logprobs)),
            stop=completion.stop,
        )
        for sample, (completion,) in zip(asked, groups, strict=True)
    ]


def _loader(path: str, dtype: str, device: str) -> Callable[[], Decoder]:
    return lambda: open_model(path, dtype=dtype, device=device).loaded.model
