import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.model.attention import PackedCausal
from pellucid.records import Completion, Request, SamplingParams
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.harvest import Harvest
from pellucid.rollout.step import DecodeStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PROMPTS = ((5, 9, 3), (1,), (7, 7, 2, 30, 4, 11, 6))
REQUESTS = [
    Request(prompt_ids=p, sample_ids=tuple(range(20 * i, 20 * i + 20)))
    for i, p in enumerate(PROMPTS)
]
PARAMS = SamplingParams(max_new_tokens=60, stop=("xyz",))


@pytest.mark.parametrize("has_graphs", [True, False])
@pytest.mark.parametrize("slots", [4, 64])
def test_float32_on_cuda_gives_the_tokens_of_the_cpu(has_graphs, slots, monkeypatch) -> None:
    graphs = []
    capture = DecodeStep._graph

    def counted(self, extent):
        graphs.append(capture(self, extent) if has_graphs else None)
        return graphs[-1]

    monkeypatch.setattr(DecodeStep, "_graph", counted)
    model = loud_model(tiny_spec())
    expected = InProcessEngine(model, LetterTokenizer()).generate(REQUESTS, PARAMS, seed=1)
    engine = InProcessEngine(model.cuda(), LetterTokenizer(), slots=slots)
    for _ in range(2):  # the second call reuses what the first captured
        got = engine.generate(REQUESTS, PARAMS, seed=1)
        tokens = [[[c.token_ids for c in row] for row in run] for run in (got, expected)]
        assert tokens[0] == tokens[1]
    assert all((graph is not None) == has_graphs for graph in graphs)


def test_truncated_sampling_runs_without_graphs() -> None:
    params = SamplingParams(max_new_tokens=40, temperature=0.6, top_p=0.9)
    model = loud_model(tiny_spec())
    expected = InProcessEngine(model, LetterTokenizer()).generate(REQUESTS, params, seed=1)
    got = InProcessEngine(model.cuda(), LetterTokenizer()).generate(REQUESTS, params, seed=1)
    assert [[c.text for c in row] for row in got] == [[c.text for c in row] for row in expected]


def test_bfloat16_logprobs_stay_near_a_packed_pass() -> None:
    model = loud_model(tiny_spec(head_dim=16)).cuda().bfloat16()
    out = InProcessEngine(model, LetterTokenizer()).generate(REQUESTS, PARAMS, seed=1)
    differences = []
    for request, row in zip(REQUESTS, out, strict=True):
        for c in row:
            ids = torch.tensor(request.prompt_ids + c.token_ids, device="cuda")
            packed = PackedCausal(torch.tensor([len(ids)], device="cuda"))
            with torch.no_grad():
                hidden = model(ids, packed)[len(request.prompt_ids) - 1 : -1]
            logits = torch.mm(hidden, model.head.weight.T, out_dtype=torch.float32)
            chosen = logits.log_softmax(-1)[range(len(c.token_ids)), c.token_ids]
            differences.append((chosen.cpu() - torch.tensor(c.logprobs)).abs())
    assert torch.cat(differences).mean() < 0.02


@pytest.mark.parametrize("is_told", [False, True])
def test_tokens_read_while_others_are_decoded_are_those_read_at_the_end(
    is_told, monkeypatch
) -> None:
    model = loud_model(tiny_spec(head_dim=16, max_context=512)).cuda().bfloat16()
    engine = InProcessEngine(model, LetterTokenizer(), slots=128)
    wanted = [
        Request(prompt_ids=p, sample_ids=tuple(range(40 * i, 40 * i + 40)))
        for i, p in enumerate(PROMPTS)
    ]
    params = SamplingParams(max_new_tokens=400)
    results, seen = [], []
    follow = Harvest.follow
    monkeypatch.setattr(Harvest, "follow", lambda h, n: seen.append(n) or follow(h, n))
    for tail_rows in (1000, 0, 0):
        monkeypatch.setattr("pellucid.rollout.resident.TAIL_ROWS", tail_rows)
        told: dict[int, list[Completion]] = {}
        on_group = told.__setitem__ if is_told else None
        results.append(engine.generate(wanted, params, seed=2, on_group=on_group))
        assert not is_told or [told[i] for i in range(3)] == results[-1]
        assert bool(seen) == (tail_rows == 0 and engine._resident is not None)
    assert results[0] == results[1] == results[2]
