"""Replaying samples against drawing them: seconds of CPU on the embedded model.

python benchmarks/replay_speed.py [SAMPLES]
"""

import sys
import time

import torch

from pellucid.config import ModelConfig
from pellucid.model.load import load_model
from pellucid.records import Request, SamplingParams, sample_id
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.teacher_force import Recorded, replay
from pellucid.tasks.chain import problems
from pellucid.tasks.templates import get_template

SEED = 1


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 118
    torch.set_num_threads(1)
    loaded = load_model(ModelConfig(id="tiny-base"), dtype=torch.float32, device="cpu")
    params = SamplingParams(max_new_tokens=100)
    template = get_template("tiny")
    requests = [
        Request(
            prompt_ids=template.prompt_ids(p.question, loaded.tokenizer),
            sample_ids=(sample_id("replay", p.id),),
        )
        for p in problems("test", count)
    ]
    engine = InProcessEngine(loaded.model, loaded.tokenizer, slots=64)
    started = time.process_time()
    groups = engine.generate(requests, params, seed=SEED)
    drawn_s = time.process_time() - started
    samples = [
        Recorded(
            prompt_ids=request.prompt_ids,
            token_ids=completion.token_ids,
            sample_id=completion.sample_id,
            seed=SEED,
            params=params,
        )
        for request, (completion,) in zip(requests, groups, strict=True)
    ]
    started = time.process_time()
    replayed = replay(loaded.model, samples)
    replayed_s = time.process_time() - started
    tokens = sum(len(s.token_ids) for s in samples)
    same = sum(
        int((r.token_ids == s.token_ids).sum()) for s, r in zip(samples, replayed, strict=True)
    )
    worst = max(float(r.gap.max()) for r in replayed)
    print(f"{count} samples, {tokens} tokens: {same / tokens:.4%} again, largest gap {worst:.1e}")
    print(f"drawn in {drawn_s:.2f} s of CPU (64 at once), replayed in {replayed_s:.2f} s")


if __name__ == "__main__":
    main()
