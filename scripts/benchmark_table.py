"""The GPU tables from stored results: `python scripts/benchmark_table.py [--check]`

Reads benchmarks/results/gpu-*.json and rewrites what stands between the markers: README.md has the
headline jobs; docs/engine.md all of them, what was aimed at (`benchmark_aims.py`), how far the
planner's memory was from what was measured, and the clocks (`benchmark_power.py`). Of every job the
newest measurement counts, also where it failed; rehearsals never do. Of a peer's figures the
fastest counts, whenever it was measured.
--check changes nothing and exits with 1 if a table is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "gpu"))
import benchmark_aims as aims  # noqa: E402
import benchmark_power as power  # noqa: E402
from jobs import JOBS, Job, parse  # noqa: E402
from workload import PAGED_KV_GIB  # noqa: E402

HEAD = (
    "| job | peer | Pellucid | gain | share of the floor | memory | commit |",
    "|---|---|---|---|---|---|---|",
)
HEADLINES = (
    "rollout-0.5b-64x16-128+512",
    "rollout-1.5b-64x16-128+512",
    "rollout-7b-32x16-128+512",
    "mixed-0.5b",
    "step-0.5b",
    "step-1.5b",
    "train-1.5b",
    "gap-0.5b",
)
PLAN_HEAD = ("| job | planned | measured | difference |", "|---|---|---|---|")
GIB = 2**30
LOWER_IS_BETTER = ("step", "planned", "gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One record of a results file, and the file."""

    record: dict[str, Any]
    document: dict[str, Any]

    @property
    def job(self) -> Job:
        return parse(self.record["job"])

    @property
    def is_ok(self) -> bool:
        return self.record["status"] == "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the pages")
    arguments = parser.parse_args()
    measured = load(arguments.results)
    for name, tables in PAGES.items():
        page = arguments.root / name
        text = updated = page.read_text()
        for marker, render in tables.items():
            if any(line not in text for line in lines_of(marker)):
                sys.exit(f"error: {name} has no lines {' and '.join(lines_of(marker))}: add them")
            updated = replace_between_markers(updated, render(measured), marker)
        if arguments.check and updated != text:
            sys.exit(f"error: {name} is stale: run scripts/benchmark_table.py")
        if not arguments.check:
            page.write_text(updated)


def load(folder: Path) -> list[Measured]:
    """Every record of every file that is no rehearsal, oldest file first."""
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json"))]
    real = sorted((d for d in documents if not d["is_rehearsal"]), key=lambda d: d["date"])
    return [Measured(record=record, document=d) for d in real for record in d["jobs"]]


def lines_of(marker: str) -> tuple[str, str]:
    """What stands before a table, and behind it."""
    return f"<!-- {marker} -->", f"<!-- /{marker} -->"


def replace_between_markers(text: str, body: str, marker: str) -> str:
    start, end = lines_of(marker)
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{body}\n{end}{after}"


def aims_table(measured: list[Measured]) -> str:
    """A row for every number aimed at, whether it was measured or not."""
    ours = newest_of_project(measured)
    known = {name: m.record for name, m in ours.items() if m.is_ok}
    rows = []
    for aim in aims.AIMS:
        best = None
        if aim.job in known:
            best = _best_peer(ours[aim.job].job, peers_of(ours[aim.job], measured))
        peer = None if best is None else _value(parse(aim.job), best.record)
        near = known.get(f"{aim.job}-near")
        rows.append(aims.row(aim, title(parse(aim.job)), known.get(aim.job), near, peer))
    return "\n".join([*aims.HEAD, *rows])


def plan_table(measured: list[Measured]) -> str:
    """The planner's peak beside the measured one, for every job whose memory it plans."""
    rows = []
    for m in sorted(newest_of_project(measured).values(), key=lambda m: _order(m.record["job"])):
        if m.is_ok and m.record.get("peak_allocated_bytes"):
            from planning import measured_peak, planned_peak  # late: brings torch

            planned, found = planned_peak(m.record, m.job), measured_peak(m.record)
            if planned and found:
                sizes = f"{planned / GIB:.1f} GiB | {found / GIB:.1f} GiB"
                rows.append(f"| {title(m.job)} | {sizes} | {planned / found - 1:+.1%} |")
    return "\n".join([*PLAN_HEAD, *rows]) if rows else "Not measured yet."


def power_table(measured: list[Measured]) -> str:
    """Clock and power of every job that was sampled."""
    ours = sorted(newest_of_project(measured).values(), key=lambda m: _order(m.record["job"]))
    rows = [power.row(title(m.job), m.record) for m in ours if m.is_ok]
    return "\n".join([*power.HEAD, *filter(None, rows)]) if any(rows) else "Not measured yet."


def table(measured: list[Measured], jobs: tuple[str, ...] | None = None) -> str:
    """The rows of the `jobs`, and what the columns mean; None: of all jobs."""
    ours = newest_of_project(measured)
    if jobs is not None:
        ours = {name: m for name, m in ours.items() if name in jobs}
    if not ours:
        return "No GPU results are stored yet: `python benchmarks/gpu/run.py`."
    known = [name for name in JOBS if name in ours]
    names = sorted(known, key=_order) + sorted(set(ours) - set(known))
    rows = [row(ours[name], peers_of(ours[name], measured)) for name in names]
    return "\n".join([*HEAD, *rows, "", legend([ours[n] for n in names], measured)])


def newest_of_project(measured: list[Measured]) -> dict[str, Measured]:
    """The newest measurement of each job that was started."""
    return {
        m.record["job"]: m
        for m in measured
        if m.record["who"] == "pellucid" and m.record["status"] != "not started"
    }


def peers_of(ours: Measured, measured: list[Measured]) -> dict[str, Measured]:
    """The fastest measurement of each peer on the same work."""
    job = ours.job
    found: dict[str, list[Measured]] = {}
    for m in measured:
        if m.is_ok and m.record["who"] != "pellucid" and _is_same_work(job, m.job):
            found.setdefault(m.record["who"], []).append(m)
    return {
        who: max(candidates, key=lambda m: m.record["tokens_per_s"])
        for who, candidates in found.items()
    }


def row(ours: Measured, peers: dict[str, Measured]) -> str:
    job = ours.job
    commit = _commit(ours.document)
    if not ours.is_ok:
        return f"| {title(job)} | {_peer_cell(job, peers)} | failed | – | – | – | {commit} |"
    cells = [
        title(job),
        _peer_cell(job, peers),
        f"**{_value_cell(job, ours.record)}**{_detail(job, ours.record)}",
        _gain(job, ours.record, peers),
        _share(ours.record),
        _memory(ours.record, peers.get("trl") if job.kind in ("step", "planned") else None),
        commit,
    ]
    return f"| {' | '.join(cells)} |"


def title(job: Job) -> str:
    """A job in words: `rollout 0.5B, 64 × 16, 128 + 512`."""
    shape = job.shape.upper()
    sizes = f"{job.prompts} × {job.group}, {job.prompt} + {job.new:,}"
    words = {
        "rollout": f"rollout {shape}, {sizes}",
        "mixed": f"rollout {shape}, {job.prompts} × {job.group}, mixed lengths up to {job.new:,}",
        "pages": f"rollout {shape}, {job.prompts} × {job.group}, lengths up to {job.new:,}, "
        f"{PAGED_KV_GIB} GiB of keys and values",
        "step": f"whole GRPO step {shape}, {sizes}",
        "planned": f"the same as `pellucid run` has it {shape}, {sizes}",
        "train": f"training {shape}, packed, {sizes}",
        "compiled": f"training {shape}, blocks by torch.compile, {sizes}",
        "gap": f"mean log-prob gap rollout / trainer {shape}",
        "long-prompt": f"rollout {shape}, long prompt, {sizes}",
        "overlap": f"rollout {shape} beside training, {sizes}",
    }
    levers = "" if job.is_exact else ", `exact = false`"
    levers += "" if job.has_pdl else ", without early launch"
    levers += f", {job.drafts} drafts" if job.drafts else ""
    levers += ", every tiling tried" if job.has_autotune else ""
    return words[job.kind] + levers


def legend(shown: list[Measured], measured: list[Measured]) -> str:
    """Where the figures come from, and what they mean."""
    devices = sorted({m.document["machine"]["device"] for m in shown})
    dates = sorted({m.document["date"][:10] for m in shown})
    runs = sorted({len(m.record["repeats"]) for m in shown if m.is_ok})
    repeats = f"{runs[0]} to {runs[-1]}" if len(set(runs)) > 1 else f"{runs[0]}" if runs else "no"
    peers = [p for m in shown for p in peers_of(m, measured).values()]
    used = {id(p.document): p.document for p in peers}
    lines = [
        f"{', '.join(devices)}, {' and '.join(dates)}; random weights, median of {repeats} "
        "repeats, prefill and host work included. Sizes: prompts × samples, prompt + new tokens. "
        "The floor is bytes over 4.3 TB/s or flops over 790 TFLOP/s, step by step the larger; in "
        "training rows it is the model FLOP utilisation.",
    ]
    if used:
        sources = [d.get("source") or _peer_versions(d) for d in used.values()]
        lines.append(
            f"Peers: {'; '.join(sources)}; {_peer_repeats(peers)}; in brackets, vLLM as RL calls "
            "it; a peer's figure is of the same number of sequences, however grouped."
        )
    return " ".join(lines)


def _peer_repeats(peers: list[Measured]) -> str:
    kept = sorted({len(p.record["repeats"]) for p in peers} - {0})
    words = f"median of {' or '.join(map(str, kept))} repeats" if kept else ""
    lost = sorted({p.document["date"][:10] for p in peers if not p.record["repeats"]})
    if lost:
        words += ("; " if words else "") + f"of {', '.join(lost)} single repeats were not kept"
    return words


def _order(name: str) -> tuple[int, str, int, int]:
    job = parse(name)
    kinds = ("rollout", "mixed", "pages", "long-prompt", "overlap", "step", "planned", "train",
             "compiled", "gap")  # fmt: skip
    return kinds.index(job.kind), job.shape, -job.rows, -job.group


def _is_same_work(job: Job, other: Job) -> bool:
    """The same sequences, whatever their prompts; a step also tells of the gap."""
    kind = "step" if job.kind in ("gap", "planned") else job.kind
    sizes = (job.shape, job.rows, job.prompt, job.new)
    other_sizes = (other.shape, other.rows, other.prompt, other.new)
    if kind != other.kind:
        return False
    return job.shape == other.shape if job.kind == "gap" else sizes == other_sizes


def _value(job: Job, record: dict[str, Any]) -> float | None:
    if job.kind == "gap":
        # Exact is the default; a peer has one number.
        details = record.get("details", {})
        return details.get("exact", details).get("mean_gap")
    if job.kind in ("step", "planned"):
        return record["median_s"]
    if job.kind in ("train", "compiled"):
        return record["details"]["fed_tokens_per_s"]
    return record["tokens_per_s"]


def _value_cell(job: Job, record: dict[str, Any]) -> str:
    value = _value(job, record)
    if value is None:
        return "–"
    if job.kind == "gap":
        return f"{value:.3g}"
    return f"{value:.1f} s" if job.kind in ("step", "planned") else f"{value:,.0f} tok/s"


def _detail(job: Job, record: dict[str, Any]) -> str:
    details = record.get("details", {})
    if job.kind == "long-prompt":
        decoding = f"decoding alone {details['gain_decode']:.1f} ×"
        return f" ({details['gain']:.1f} × unshared, {decoding})"
    if job.kind == "pages":
        return f" ({details['gain']:.1f} × with slots for the limit)"
    if job.kind == "overlap":
        bits = "" if details["is_same"] else ", other bits than alone"
        return f" ({details['gain']:.2f} × one after the other, {details['way']}{bits})"
    if job.kind == "train" and not record["settings"]["has_optimizer"]:
        return " (without optimiser)"
    if job.kind == "compiled":
        by_hand = details["ways"]["fused"]["fed_tokens_per_s"]
        return f" ({details['gain']:.2f} × the kernels fused by hand: {by_hand:,.0f})"
    if job.kind == "planned":
        plan = details["planned"]
        time = "" if plan["step_s"] is None else f", {plan['step_s']:.1f} s"
        return f" (planned: {plan['peak'] / GIB:.0f} GiB{time})"
    if job.kind != "gap":
        return ""
    normal = f"`exact = false`: {details['normal']['mean_gap']:.3g}"
    if "error" in details["exact"]:
        return f" (no exact mode; {normal})"
    return f" ({normal}, {details['exact_time_ratio']['seconds']:.2f} times as fast)"


def _peer_cell(job: Job, peers: dict[str, Measured]) -> str:
    best, as_rl = _best_peer(job, peers), peers.get("vllm-rl")
    if best is None:
        return "–"
    name = "TRL + vLLM" if best.record["who"] == "trl" else "vLLM"
    cell = f"{name} {_value_cell(job, best.record)}"
    if as_rl is not None and as_rl is not best:
        cell += f" ({as_rl.record['tokens_per_s']:,.0f})"
    return cell


def _best_peer(job: Job, peers: dict[str, Measured]) -> Measured | None:
    known = [m for m in peers.values() if _value(job, m.record) is not None]
    pick = min if job.kind in LOWER_IS_BETTER else max
    return pick(known, key=lambda m: _value(job, m.record) or 0.0, default=None)


def _gain(job: Job, record: dict[str, Any], peers: dict[str, Measured]) -> str:
    best = _best_peer(job, peers)
    if best is None:
        return "–"
    theirs, mine = _value(job, best.record), _value(job, record)
    if not theirs or not mine:
        return "–"
    gain = theirs / mine if job.kind in LOWER_IS_BETTER else mine / theirs
    return f"{gain:.1f} ×"


def _share(record: dict[str, Any]) -> str:
    share = record.get("details", {}).get("mfu", record.get("share_of_floor"))
    return "–" if share is None else f"{share:.0%}"


def _memory(record: dict[str, Any], peer: Measured | None) -> str:
    exact = record.get("details", {}).get("exact", {})
    size = exact.get("peak_reserved_bytes", record.get("peak_reserved_bytes"))
    driver = record.get("used_memory_bytes")
    size = driver or size
    if size is None:
        return "–"
    found = {} if peer is None else peer.record
    theirs = (driver and found.get("used_memory_bytes")) or found.get("peak_allocated_bytes")
    return f"{size / GIB:.0f} GiB" + (f" (peer {theirs / GIB:.0f})" if theirs else "")


def _commit(document: dict[str, Any]) -> str:
    code = document["code"]
    if not code["commit"]:
        return "–"
    return f"`{code['commit'][:7]}`" + (" +" if code.get("is_changed") else "")


def _peer_versions(document: dict[str, Any]) -> str:
    found: dict[str, str] = {}
    for record in document["jobs"]:
        found |= {k: v for k, v in record.get("versions", {}).items() if k in ("vllm", "trl")}
    names = {"vllm": "vLLM", "trl": "TRL"}
    return (
        ", ".join(f"{names[k]} {v}" for k, v in sorted(found.items()))
        + f" ({document['date'][:10]})"
    )


PAGES: dict[str, dict[str, Callable[[list[Measured]], str]]] = {
    "README.md": {"gpu-table": lambda measured: table(measured, HEADLINES)},
    "docs/engine.md": {
        "gpu-table": table,
        "gpu-aims": aims_table,
        "gpu-plan": plan_table,
        "gpu-power": power_table,
    },
}
"""Page -> marker -> what makes the table there."""


if __name__ == "__main__":
    main()
