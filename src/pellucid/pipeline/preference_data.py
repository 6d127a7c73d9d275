"""What the reward models of a pipeline learn: gathered from files, templates and samples.

    helpful   files · embedded pairs · samples ── judge ── beyond the margin? ── lengths balanced
    safety    files · embedded labels · samples ── rules that label
    both      split by prompt ──► NAME.train.jsonl, NAME.held-out.jsonl

`NAME.data.json` says where every example went, and is written last: with it the files are whole.
Left out: training and measuring (`stages.reward_models`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pellucid.artifacts import atomic_write_json, atomic_write_text, sha256_file
from pellucid.config_rewards import (
    EMBEDDED,
    SAMPLED,
    HelpfulConfig,
    JudgeConfig,
    RewardDataConfig,
    SafetyConfig,
)
from pellucid.config_stages import RewardModelsConfig
from pellucid.curate.candidate import Candidate
from pellucid.curate.judging import Judge, ModelJudge, RuleJudge
from pellucid.curate.preferences import (
    Contest,
    JudgeCounts,
    balance_lengths,
    decided_pairs,
    forget_nonsense,
    judge_contests,
)
from pellucid.curate.reply import Reply, read_reply, write_reply
from pellucid.data.preferences import (
    LabelledResponse,
    PreferencePair,
    Split,
    prompt_key,
    read_labelled,
    read_pairs,
    split_by_prompt,
)
from pellucid.data.store import default_data_dir
from pellucid.endpoint import ChatEndpoint
from pellucid.errors import ConfigError, DataError
from pellucid.pipeline.grading import open_grader
from pellucid.pipeline.sampling import Sampler, stage_problems
from pellucid.pipeline.screening import screened_mixture
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.workbench import free_memory
from pellucid.rewards.smalltalk_judge import is_safe, prefers
from pellucid.tasks import smalltalk
from pellucid.tasks.lookup import lookup
from pellucid.tasks.templates import Template, get_template

JUDGMENTS_NAME = "judgments.jsonl"
JUDGE_NAME = "judge.jsonl"
JUDGES: dict[str, Callable[[str, str, str], float]] = {"smalltalk": prefers}
"""Programs that compare two answers."""


class Draw(NamedTuple):
    """What `Sampler` reads of a stage."""

    name: str
    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int


def find_file(source: str, data_dir: str | None) -> Path:
    """The file of a source, as named or in the data folder. Raises DataError without one."""
    folder = Path(data_dir) if data_dir else default_data_dir()
    for path in (Path(source).expanduser(), folder / source):
        if path.is_file():
            return path
    raise DataError(f"no file {source}, here or in {folder}: put it there, or correct the source")


def check_files(config: RewardModelsConfig, data_dir: str | None) -> None:
    """Raises DataError for the first file that a stage names and that is not there."""
    for part in (config.helpful, config.safety):
        for source in (*part.sources, *part.measure_on) if part is not None else ():
            if source not in (EMBEDDED, SAMPLED):
                find_file(source, data_dir)


class PreferenceData:
    """Gathers the examples of both reward models in the stage's folder."""

    def __init__(self, context: StageContext, config: RewardModelsConfig) -> None:
        """Raises DataError where a file is missing, ConfigError on an unknown judge: before
        anything is sampled.
        """
        self.context = context
        self.config = config
        self.root: Path = context.stage.root
        self.template: Template = get_template(context.recipe.template_of(config.start))
        check_files(config, context.recipe.data_dir)
        if config.judge is not None and config.judge.name is not None:
            lookup(JUDGES, config.judge.name, "judge", ConfigError)

    def path_of(self, source: str) -> Path:
        """The file of a source. Raises DataError where it is none."""
        return find_file(source, self.context.recipe.data_dir)

    def helpful(self, config: HelpfulConfig) -> Split[PreferencePair]:
        """Pairs to learn and to measure with. Raises DataError where none are left."""
        return self._split("helpful", config, self._pairs, PreferencePair, read_pairs)

    def safety(self, config: SafetyConfig) -> Split[LabelledResponse]:
        """Labelled responses to learn and to measure with."""
        return self._split("safety", config, self._labelled, LabelledResponse, read_labelled)

    def _split(self, name: str, config: Any, gather: Any, row: Any, read: Any) -> Split[Any]:
        """The split of what `gather` gives; what an earlier process wrote is read."""
        files = [self.root / f"{name}.{half}.jsonl" for half in ("train", "held-out")]
        facts = self.root / f"{name}.data.json"
        if facts.is_file() and _are_whole(files, json.loads(facts.read_text())["digests"]):
            return Split(*(read(path).rows for path in files))
        rows, counts = gather(config)
        split = split_by_prompt(rows, config.held_out, seed=self.context.seed)
        for path, half in zip(files, split, strict=True):
            atomic_write_text(path, "".join(json.dumps(r.to_dict()) + "\n" for r in half))
        sizes = {"train": len(split.train), "held_out": len(split.held_out)}
        digests = {path.name: sha256_file(path) for path in files}
        atomic_write_json(facts, counts | sizes | {"digests": digests})
        return split

    def _pairs(self, config: HelpfulConfig) -> tuple[list[PreferencePair], dict[str, Any]]:
        counts = JudgeCounts()
        dropped: dict[str, int] = {}
        pairs: list[PreferencePair] = []
        for source in config.sources:
            if source == EMBEDDED:
                pairs += self._embedded_pairs(config.limit)
            elif source == SAMPLED:
                pairs += self._judged(config, counts)[: config.limit]
            else:
                found = read_pairs(self.path_of(source))
                pairs += found.rows[: config.limit]
                dropped |= {f"{source}: {reason}": n for reason, n in found.dropped.items()}
        if not pairs:
            raise DataError(_nothing_left(counts))
        balanced = balance_lengths(_unique(pairs), _visible_length, max_gap=config.max_length_gap)
        counts.unbalanced, counts.kept = balanced.num_dropped, len(balanced.pairs)
        facts = {"judge": counts.to_dict(), "unusable": dropped, "length_gap": balanced.gap}
        return balanced.pairs, facts

    def _labelled(self, config: SafetyConfig) -> tuple[list[LabelledResponse], dict[str, Any]]:
        rows: list[LabelledResponse] = []
        dropped: dict[str, int] = {}
        for source in config.sources:
            if source == EMBEDDED:
                rows += self._embedded_labels(config.limit)
            elif source == SAMPLED:
                rows += [_label(c) for c in self._candidates("safety", config)][: config.limit]
            else:
                found = read_labelled(self.path_of(source))
                rows += found.rows[: config.limit]
                dropped |= {f"{source}: {reason}": n for reason, n in found.dropped.items()}
        rows = _unique([row for row in rows if row.response.strip()])
        safe = sum(row.safe for row in rows)
        if not 0 < safe < len(rows):
            raise DataError(
                f"{safe} of {len(rows)} labelled responses are safe: both labels are needed; add "
                "sources to safety.sources"
            )
        return rows, {"unusable": dropped, "safe": safe, "unsafe": len(rows) - safe}

    def _judged(self, config: HelpfulConfig, counts: JudgeCounts) -> list[PreferencePair]:
        judge_config = self.config.judge
        assert judge_config is not None, "the configuration asks for a judge"
        contests = list(_contests(self._candidates("helpful", config)))
        with self._judge(judge_config) as judge:
            judged = judge_contests(
                contests,
                judge,
                self.root / JUDGMENTS_NAME,
                judgments=judge_config.judgments,
                seed=self.context.seed,
                counts=counts,
            )
        self.context.progress.say(
            f"{counts.judged} of {len(contests)} pairs judged, {counts.nonsense} dropped for "
            f"nonsense, {counts.equal} of equal answers"
        )
        if counts.nonsense > counts.judged:
            # Other sources would hide it: a model would be trained, and not on what was paid for.
            self._have_nonsense_asked_anew()
            raise DataError(
                f"the judge talks nonsense: {counts.judged} judged, {counts.nonsense} without a "
                "clear verdict; mend the judge, then run the same command, which asks it anew for "
                "those"
            )
        return decided_pairs(judged, min_margin=judge_config.min_margin, counts=counts)

    def _have_nonsense_asked_anew(self) -> None:
        """What was clear stays; the judge's words are kept under another name."""
        forget_nonsense(self.root / JUDGMENTS_NAME)
        words = self.root / JUDGE_NAME
        if words.is_file():
            number = 1 + len(list(self.root.glob("judge.nonsense-*.jsonl")))
            words.rename(self.root / f"judge.nonsense-{number}.jsonl")

    @contextmanager
    def _judge(self, config: JudgeConfig) -> Iterator[Judge]:
        if config.endpoint is None:
            name = config.name or ""
            yield RuleJudge(name, lookup(JUDGES, name, "judge", ConfigError))
            return
        record = self.root / JUDGE_NAME
        with ChatEndpoint(config.endpoint, record, what="judge") as endpoint:
            yield ModelJudge(config.endpoint.model, endpoint, self.context.should_stop)

    def _candidates(self, name: str, config: HelpfulConfig | SafetyConfig) -> list[Candidate]:
        """Answers of the start model; it is loaded only where some are missing."""
        context = self.context
        mixture = screened_mixture(context, config.tasks)
        problems = stage_problems(mixture, config.prompts)
        sampler = Sampler(
            self.root / f"{name}.candidates.jsonl.zst",
            _draw(f"{context.config.name}/{name}", config),
            self.template,
            seed=context.seed,
            should_stop=context.should_stop,
        )
        if missing := sampler.missing(problems):
            bench = context.open(self.config.start)
            total = len(missing) * config.samples
            with (
                context.progress.task(f"sampling for {name}", total, "samples") as tick,
                open_grader(context.recipe, math_verify=False) as grader,
            ):
                sampler.draw(missing, bench, grader, tick)
            bench.engine.release()
            del bench
            free_memory()
        return sampler.read()

    def _embedded_pairs(self, count: int) -> list[PreferencePair]:
        found = smalltalk.preference_pairs("train", count, self.context.seed)
        return [
            PreferencePair(
                id=f"embedded/{number}",
                prompt=pair.prompt,
                chosen=self._written(pair.chosen),
                rejected=self._written(pair.rejected),
                subset=pair.rejected.quality,
            )
            for number, pair in enumerate(found)
        ]

    def _embedded_labels(self, count: int) -> list[LabelledResponse]:
        found = smalltalk.safety_labels("train", count, self.context.seed)
        return [
            LabelledResponse(
                id=f"embedded/{number}",
                prompt=prompt,
                response=self._written(reply),
                safe=safe,
                subset=reply.quality,
            )
            for number, (prompt, reply, safe) in enumerate(found)
        ]

    def _written(self, reply: smalltalk.Reply) -> str:
        return write_reply(Reply(reply.thinking, reply.answer), self.template)


def _nothing_left(counts: JudgeCounts) -> str:
    said = f"no preference pair is left: {counts.judged} judged, {counts.undecided} undecided, "
    said += f"{counts.nonsense} without a clear verdict, {counts.equal} of equal answers"
    return f"{said}; sample more prompts, lower judge.min_margin, or add sources"


def _draw(name: str, config: RewardDataConfig) -> Draw:
    return Draw(name, config.samples, config.temperature, config.top_p, config.max_new_tokens)


def _contests(candidates: Sequence[Candidate]) -> Iterator[Contest]:
    """Disjoint pairs of a problem's samples; a sample without a summary takes no part."""
    by_problem: dict[str, list[tuple[Candidate, str]]] = {}
    for candidate in candidates:
        reply = read_reply(candidate.response)
        if reply is not None:
            by_problem.setdefault(candidate.problem.id, []).append((candidate, reply.summary))
    for some in by_problem.values():
        for (a, first), (b, second) in zip(some[::2], some[1::2], strict=False):
            yield Contest(
                id=f"{a.id}-{b.index}",
                prompt=a.problem.question,
                first=first,
                second=second,
                first_response=a.response,
                second_response=b.response,
            )


def _label(candidate: Candidate) -> LabelledResponse:
    reply = read_reply(candidate.response) or Reply(candidate.response, "")
    question = candidate.problem.question
    return LabelledResponse(
        id=candidate.id,
        prompt=question,
        response=candidate.response,
        safe=is_safe(question, reply.thinking, reply.summary),
        subset="sampled",
    )


def _visible_length(response: str) -> int:
    """Characters of the summary: what the helpful model sees."""
    reply = read_reply(response)
    return len(reply.summary) if reply is not None else 0


def _unique(rows: Sequence[Any]) -> list[Any]:
    """The first of equal examples."""
    seen: dict[tuple[str, ...], Any] = {}
    for row in rows:
        texts = (row.chosen, row.rejected) if isinstance(row, PreferencePair) else (row.response,)
        seen.setdefault((prompt_key(row.prompt), *texts), row)
    return list(seen.values())


def _are_whole(files: Sequence[Path], digests: dict[str, str]) -> bool:
    return all(p.is_file() and sha256_file(p) == digests.get(p.name) for p in files)
