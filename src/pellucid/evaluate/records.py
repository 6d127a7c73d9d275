"""What an evaluation leaves behind: a record per sample, a result per suite and arm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pellucid.artifacts import canonical_json, sha256_json
from pellucid.errors import RunError
from pellucid.records import Problem, StopReason, Verdict
from pellucid.stats import Estimate


def item_sha256(problem: Problem) -> str:
    """Digest of what is asked and how it is graded: plans name problems by it."""
    item = {name: getattr(problem, name) for name in ("id", "question", "gold", "grader")}
    return sha256_json(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What made the samples of one evaluation, beside prompts and sampler.

    Example: Origin(eval_serial=2, weights="9f…", engine={"name": "pellucid", "dtype": "bfloat16"})
    """

    arm: str = ""
    """As ledger and dossier name it (`Suite.arm`)."""
    eval_serial: int = 0
    """Number of the attempt in the run's ledger, from 1; 0: it is in no ledger."""
    weights: str = ""
    """Root digest of the model's files."""
    grader_sha256: str = ""
    """Digest of the graders' sources."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Name, version, type of the weights, whether exact, device."""
    grading: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the graders: second opinion and time limits (`pipeline.grading.Grading`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """One evaluated completion: enough to grade it again, and to replay it by teacher forcing.

    Example: SampleRecord(suite="gsm8k", problem_id="gsm8k/test/0", k_index=2, verdict="correct", …)
    """

    arm: str
    """`before`, `after`, or the name of another model; with its prompt where that differs."""
    suite: str
    problem_id: str
    question: str
    gold: str
    """What was asked and expected: the record can be read and graded without the data set."""
    family: str
    """Cluster of the bootstrap."""
    k_index: int
    """0 … k - 1: which sample of the problem."""
    sample_id: int
    """`sample_id("eval", suite, problem_id, k_index)`: the same in every arm."""
    prompt_sha256: str
    """Digest of the prompt's token ids, written as a JSON array without spaces."""
    response: str
    """The text that was graded."""
    token_ids: tuple[int, ...]
    """As sampled, end of sequence included."""
    stop: StopReason
    verdict: Verdict
    extracted: str | None
    method: str
    detail: str
    """For `error` and `timeout`: what happened. Else empty."""
    retried: bool
    """True where the grader failed once and was asked again."""
    n_prompt: int
    n_completion: int
    logprob_sum: float
    """Sum of the sampled tokens' log-probabilities under the distribution drawn from."""

    # Records from before these were kept have none of them.
    grader: str = ""
    """Name in the table of graders."""
    item_sha256: str = ""
    """`item_sha256` of the problem."""
    template: str = ""
    template_sha256: str = ""
    """`Template.sha256`."""
    prompt: str = ""
    """The rendered prompt, as text."""
    seed: int | None = None
    """With `sample_id` and the position it determines every token."""
    sampler: Mapping[str, Any] = field(default_factory=dict)
    """As in `EvalResult.sampler`."""
    eval_serial: int = 0
    """See `Origin`; 0: kept in no ledger."""
    weights: str = ""
    grader_sha256: str = ""
    engine: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line: keys sorted, no spaces, no NaN. Equal records give equal bytes."""
        return canonical_json(self.to_dict()).decode()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a line of <arm>-<suite>.samples.jsonl.zst."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, line: str) -> SampleRecord:
        """Inverse of `to_json`. Raises RunError on anything else."""
        try:
            return cls.from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"damaged sample record ({error}): run the evaluation again") from error

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SampleRecord:
        """Inverse of `to_dict` as JSON gives it. KeyError, TypeError or ValueError on others."""
        fields["token_ids"] = tuple(fields["token_ids"])
        fields["stop"] = StopReason(fields["stop"])
        fields["verdict"] = Verdict(fields["verdict"])
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemResult:
    """The k samples of one problem, reduced to what the statistics need."""

    id: str
    family: str
    verdicts: tuple[Verdict, ...]
    """In the order of k_index."""
    answers: tuple[str | None, ...]
    """Extracted answers, in the same order."""
    truncated: int
    """Samples that the token limit cut off."""
    tokens: int
    """Completion tokens of all samples."""
    readable: tuple[bool, ...] = ()
    """Of each sample: thinking in its tags, and an answer behind it. Empty: not measured."""
    language: tuple[float, ...] = ()
    """Of each sample: share of the thinking's words in the problem's language. Empty: its script is
    not known.
    """

    @property
    def num_correct(self) -> int:
        return self.verdicts.count(Verdict.CORRECT)

    @property
    def num_graded(self) -> int:
        """Samples with a verdict on the model."""
        return sum(verdict.is_graded for verdict in self.verdicts)

    @property
    def num_parsable(self) -> int:
        """Graded samples in which an answer was found (a comparison that timed out had one)."""
        return self.num_graded - self.verdicts.count(Verdict.UNPARSABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One suite, measured on one arm."""

    arm: str
    suite: str
    template: str
    k: int
    seed: int
    sampler: Mapping[str, Any]
    """Temperature, top-p, top-k, token limit and stop strings that were used."""
    problems: tuple[ProblemResult, ...]
    pass_at_1: Estimate
    pass_at_1_bounds: tuple[float, float]
    """pass@1 if every instrument error were wrong, and if it were correct."""
    pass_at_1_parsable: Estimate | None
    """Correct among samples with an answer: skill apart from format. None: no sample had one."""
    pass_at: Mapping[int, Estimate | None]
    """Unbiased pass@k over problems with k graded samples; None: errors left no such problem."""
    cons: Estimate
    """cons@k: majority vote over all k samples."""
    verdicts: Mapping[str, int]
    """Samples by verdict; all verdicts are listed."""
    retried: int
    """Samples that were graded a second time because the instrument failed."""
    truncated_frac: float
    unparsable_frac: float
    """Of the graded samples."""
    length_mean: float
    """Completion tokens per sample."""
    readable: Estimate | None = None
    """Share of samples in the format: thinking in its tags, then an answer. None: not measured."""
    language: Estimate | None = None
    """Mean share of the thinking's words that are in the problem's language."""
    prompt_tokens: int
    """Each prompt counted once."""
    completion_tokens: int
    generate_s: float
    """Samples are graded meanwhile."""
    grade_s: float
    """Of waiting for grades once all was drawn."""
    origin: Origin = Origin()
    """Of results from before it was kept: empty."""
    samples_root: str = ""
    """Merkle root of the samples as a dossier has them; empty: they were not kept."""
    sealed_verdicts: Mapping[str, str] = field(default_factory=dict)
    """Digests of the verdicts, as the ledger keeps them (`evidence.recording`). Of results from
    before they were made: empty.
    """

    @property
    def n_samples(self) -> int:
        return sum(self.verdicts.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for evals/<arm>-<suite>.json."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        # `asdict` would copy the verdicts of a million samples.
        names = ProblemResult.__dataclass_fields__
        plain["problems"] = [{n: getattr(problem, n) for n in names} for problem in self.problems]
        for name in _ESTIMATES:
            plain[name] = plain[name]._asdict() if plain[name] else None
        plain["pass_at"] = {str(k): e._asdict() if e else None for k, e in self.pass_at.items()}
        plain["sampler"], plain["verdicts"] = dict(self.sampler), dict(self.verdicts)
        plain["origin"] = asdict(self.origin)
        plain["sealed_verdicts"] = dict(self.sealed_verdicts)
        return plain

    def to_json(self) -> str:
        """Canonical JSON of `to_dict`."""
        return canonical_json(self.to_dict()).decode()

    @classmethod
    def from_json(cls, text: str) -> EvalResult:
        """Inverse of `to_json`. Raises RunError on anything else."""
        try:
            fields = json.loads(text)
            fields["problems"] = tuple(_problem(p) for p in fields["problems"])
            for name in _ESTIMATES:
                fields[name] = Estimate(**fields[name]) if fields.get(name) else None
            fields["pass_at"] = {
                int(k): Estimate(**e) if e else None for k, e in fields["pass_at"].items()
            }
            fields["pass_at_1_bounds"] = tuple(fields["pass_at_1_bounds"])
            fields["origin"] = Origin(**fields.get("origin", {}))
            return cls(**fields)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"damaged evaluation result ({error}): run it again") from error


_ESTIMATES = ("pass_at_1", "pass_at_1_parsable", "cons", "readable", "language")


def _problem(fields: dict[str, Any]) -> ProblemResult:
    fields["verdicts"] = tuple(Verdict(v) for v in fields["verdicts"])
    for name in ("readable", "language"):
        fields[name] = tuple(fields.get(name, ()))
    same: dict[str | None, str | None] = {}  # equal answers are one object: a million may be kept
    fields["answers"] = tuple(same.setdefault(a, a) for a in fields.get("answers", ()))
    return ProblemResult(**fields)


def arm_summary(result: EvalResult) -> dict[str, Any]:
    """The arm's entry in result.json: {"pass_at_1", "ci95", "n", "k", …}."""
    summary: dict[str, Any] = {
        "pass_at_1": result.pass_at_1.value,
        "ci95": result.pass_at_1.ci95,
        "n": result.pass_at_1.n,
        "k": result.k,
        "template": result.template,
        "pass_at_1_bounds": list(result.pass_at_1_bounds),
        "pass_at_1_parsable": result.pass_at_1_parsable.value
        if result.pass_at_1_parsable
        else None,
        "cons_at_k": result.cons.value,
        "verdicts": dict(result.verdicts),
        "truncated_frac": result.truncated_frac,
        "unparsable_frac": result.unparsable_frac,
        "length_mean": result.length_mean,
        "readable": _value(result.readable),
        "language": _value(result.language),
        "seconds": result.generate_s + result.grade_s,
    }
    for k, estimate in result.pass_at.items():
        summary[f"pass_at_{k}"] = estimate.value if estimate else None
        summary[f"pass_at_{k}_ci95"] = estimate.ci95 if estimate else None
    return summary


def _value(estimate: Estimate | None) -> dict[str, Any] | None:
    return {"value": estimate.value, "ci95": list(estimate.ci95)} if estimate else None
