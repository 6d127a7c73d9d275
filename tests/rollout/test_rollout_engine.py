from itertools import chain

import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.errors import Interrupted, NumericsError, UserError
from pellucid.model.attention import PackedCausal
from pellucid.model.transformer import Decoder
from pellucid.records import Completion, Request, SamplingParams, StopReason
from pellucid.rollout.engine import InProcessEngine
from pellucid.rollout.generation import decoded_context, round_positions

PROMPTS = ((5, 9, 3), (1,), (7, 7, 2, 30, 4, 11, 6), (12, 13))


def requests(samples: int = 3) -> list[Request]:
    return [
        Request(prompt_ids=p, sample_ids=tuple(1000 * i + k for k in range(samples)))
        for i, p in enumerate(PROMPTS)
    ]


def teacher_forced(model: Decoder, prompt: tuple[int, ...], completion: Completion) -> torch.Tensor:
    """Log-softmax [tokens, V] at each generated token, by one packed pass."""
    ids = torch.tensor(prompt + completion.token_ids)
    packed = PackedCausal(torch.tensor([len(ids)]))
    model.reserve_context(len(ids))
    with torch.no_grad():
        logits = model.head(model(ids, packed))
    return logits[len(prompt) - 1 : -1].float().log_softmax(-1)


@pytest.mark.parametrize("spec", [
    tiny_spec(), tiny_spec(num_kv_heads=4, is_head_tied=False),
    tiny_spec(num_kv_heads=1, has_qkv_bias=True),
    tiny_spec(family="qwen3", has_qk_norm=True),
])  # fmt: skip
def test_logprobs_equal_a_teacher_forced_pass(spec) -> None:
    model = loud_model(spec)
    params = SamplingParams(max_new_tokens=70)
    out = InProcessEngine(model, LetterTokenizer(), slots=5).generate(requests(), params, seed=1)
    for prompt, completions in zip(PROMPTS, out, strict=True):
        for completion in completions:
            expected = teacher_forced(model, prompt, completion)
            chosen = expected[range(len(completion.token_ids)), completion.token_ids]
            assert torch.allclose(chosen, torch.tensor(completion.logprobs), atol=1e-5)


def test_tokens_do_not_depend_on_slots_order_or_company(model, tokenizer) -> None:
    params = SamplingParams(max_new_tokens=60)
    runs = [
        InProcessEngine(model, tokenizer, slots=s).generate(requests(), params, seed=5)
        for s in (1, 3, 64)
    ]
    tokens = [[[c.token_ids for c in row] for row in run] for run in runs]
    assert tokens[0] == tokens[1] == tokens[2]
    assert len({t for row in tokens[0] for t in row}) > 8
    backwards = InProcessEngine(model, tokenizer, slots=3).generate(
        requests()[::-1], params, seed=5
    )
    assert [[c.token_ids for c in row] for row in backwards[::-1]] == tokens[0]
    alone = InProcessEngine(model, tokenizer).generate(
        [Request(prompt_ids=PROMPTS[2], sample_ids=(2001,))], params, seed=5
    )
    assert alone[0][0].token_ids == tokens[0][2][1]
    other = InProcessEngine(model, tokenizer, slots=64).generate(requests(), params, seed=6)
    assert [[c.token_ids for c in row] for row in other] != tokens[0]


def test_rows_left_empty_do_not_disturb_the_living(model, tokenizer) -> None:
    """Many prompts with few samples each: their places are given up and away all the time."""
    asked = [
        Request(prompt_ids=(p % 25 + 1, p % 7 + 2), sample_ids=(2 * p, 2 * p + 1))
        for p in range(150)
    ]
    params = SamplingParams(max_new_tokens=30)
    runs = [
        InProcessEngine(model, tokenizer, slots=s).generate(asked, params, seed=3) for s in (7, 200)
    ]
    tokens = [[[c.token_ids for c in row] for row in run] for run in runs]
    assert tokens[0] == tokens[1]


def test_greedy_follows_a_loop_without_cache(model, tokenizer) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=40)
    out = InProcessEngine(model, tokenizer, slots=2).generate(requests(1), params, seed=0)
    model.reserve_context(64)
    for prompt, (completion,) in zip(PROMPTS, out, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 40 and (len(ids) == len(prompt) or ids[-1] != 0):
            packed = PackedCausal(torch.tensor([len(ids)]))
            with torch.no_grad():
                hidden = model(torch.tensor(ids), packed)
                ids.append(int(model.head(hidden[-1:]).argmax()))
        assert completion.token_ids == tuple(ids[len(prompt) :])


def test_results_keep_order_ids_and_reasons(model, tokenizer) -> None:
    out = InProcessEngine(model, tokenizer, slots=4).generate(
        requests(6), SamplingParams(max_new_tokens=30), seed=2
    )
    assert [[c.sample_id for c in row] for row in out] == [list(r.sample_ids) for r in requests(6)]
    flat = [c for row in out for c in row]
    assert {c.stop for c in flat} == {StopReason.EOS, StopReason.LENGTH}
    for c in flat:
        assert 0 not in c.token_ids[:-1]
        assert (c.token_ids[-1] == 0) == (c.stop is StopReason.EOS)
        assert len(c.token_ids) == 30 or c.stop is StopReason.EOS
        assert len(c.logprobs) == len(c.token_ids)
        assert c.text == tokenizer.decode(c.token_ids)


def test_a_stop_string_ends_tokens_and_text_where_it_is_completed(model, tokenizer) -> None:
    free = InProcessEngine(model, tokenizer).generate(
        requests(8), SamplingParams(max_new_tokens=50), seed=3
    )
    stop = ("a>", "c", "xyz")
    params = SamplingParams(max_new_tokens=50, stop=stop)
    cut = InProcessEngine(model, tokenizer, slots=7).generate(requests(8), params, seed=3)
    num_stopped = 0
    for whole, short in zip(chain(*free), chain(*cut), strict=True):
        ends = [whole.text.find(s) + len(s) for s in stop if s in whole.text]
        if not ends:
            assert short.token_ids == whole.token_ids
            continue
        num_stopped += 1
        assert short.stop is StopReason.STOP_STRING
        assert short.text == whole.text[: min(ends)]
        num = len(short.token_ids)
        assert short.token_ids == whole.token_ids[:num]
        assert (
            len(tokenizer.decode(short.token_ids))
            >= min(ends)
            > len(tokenizer.decode(short.token_ids[:-1]))
        )
    assert num_stopped > 10


def test_a_prompt_that_does_not_fit_is_refused_with_its_length(model, tokenizer) -> None:
    engine = InProcessEngine(model, tokenizer)
    with pytest.raises(UserError, match="prompt 1 has 100 tokens and asks for 29 more"):
        engine.generate(
            [Request(prompt_ids=(1,) * n, sample_ids=(n,)) for n in (1, 100)],
            SamplingParams(max_new_tokens=29), seed=0,
        )  # fmt: skip
    with pytest.raises(UserError, match="prompt 0 is empty"):
        engine.generate([Request(prompt_ids=(), sample_ids=(1,))], SamplingParams(), seed=0)


def test_a_prompt_may_fill_the_context_to_the_brim(model, tokenizer) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=28)
    out = InProcessEngine(model, tokenizer).generate(
        [Request(prompt_ids=(3,) * 100, sample_ids=(1,))], params, seed=0
    )
    assert len(out[0][0].token_ids) == 28 or out[0][0].stop is StopReason.EOS


def test_nan_logits_name_the_sample(model, tokenizer) -> None:
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(NumericsError, match="request 0, sample 0, token 0"):
        InProcessEngine(model, tokenizer).generate(
            requests(), SamplingParams(max_new_tokens=4), seed=0
        )


def test_progress_rises_to_the_total_and_nothing_asked_is_nothing_done(model, tokenizer) -> None:
    engine = InProcessEngine(model, tokenizer, slots=2)
    seen: list[tuple[int, int]] = []
    params = SamplingParams(max_new_tokens=5)
    engine.generate(
        requests(), params, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (12, 12)
    assert engine.generate([], params, seed=0) == []
    assert engine.generate([Request(prompt_ids=(1,), sample_ids=())], params, seed=0) == [[]]


def test_every_group_is_handed_over_once_whole_and_before_the_slowest_ends(
    model, tokenizer
) -> None:
    asked = [*requests(), Request(prompt_ids=(1, 2), sample_ids=())]
    params = SamplingParams(max_new_tokens=30)
    seen: dict[int, list[Completion]] = {}
    progress: list[int] = []
    unfinished: list[int] = []

    def on_group(index: int, group: list[Completion]) -> None:
        assert index not in seen
        seen[index] = list(group)
        unfinished.append(12 - (progress[-1] if progress else 0))

    got = InProcessEngine(model, tokenizer, slots=3).generate(
        asked, params, seed=3, progress=lambda done, _: progress.append(done), on_group=on_group
    )
    assert got == InProcessEngine(model, tokenizer, slots=3).generate(asked, params, seed=3)
    assert seen == {i: group for i, group in enumerate(got) if group}
    assert unfinished[0] > 3


def test_what_on_group_raises_ends_the_call_and_the_engine_goes_on(model, tokenizer) -> None:
    engine = InProcessEngine(model, tokenizer, slots=3)
    params = SamplingParams(max_new_tokens=30)

    def refuse(index: int, group: list[Completion]) -> None:
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        engine.generate(requests(), params, seed=3, on_group=refuse)
    fresh = InProcessEngine(model, tokenizer, slots=3).generate(requests(), params, seed=3)
    assert engine.generate(requests(), params, seed=3) == fresh


def test_training_still_works_after_a_rollout(model, tokenizer) -> None:
    InProcessEngine(model, tokenizer).generate(requests(), SamplingParams(max_new_tokens=4), seed=0)
    packed = PackedCausal(torch.tensor([3]))
    model.head(model(torch.tensor([1, 2, 3]), packed)).logsumexp(-1).sum().backward()
    assert model.blocks[0].attention.qkv.weight.grad is not None


def test_a_second_call_is_not_touched_by_the_first(model, tokenizer) -> None:
    params = SamplingParams(max_new_tokens=40)
    fresh = InProcessEngine(model, tokenizer, slots=5).generate(requests(), params, seed=8)
    engine = InProcessEngine(model, tokenizer, slots=5)
    engine.generate(requests(), SamplingParams(max_new_tokens=70), seed=1)
    assert engine.generate(requests(), params, seed=8) == fresh
    cold = SamplingParams(max_new_tokens=40, temperature=0)
    greedy = engine.generate(requests(), cold, seed=8)
    assert greedy == InProcessEngine(model, tokenizer, slots=5).generate(requests(), cold, seed=8)
    fewer = engine.generate(requests()[:2], params, seed=8)
    tokens = [[[c.token_ids for c in row] for row in run] for run in (fewer, fresh[:2])]
    assert tokens[0] == tokens[1]


def test_weights_that_change_in_place_are_sampled_from_after_a_refresh(model, tokenizer) -> None:
    params = SamplingParams(max_new_tokens=20)
    engine = InProcessEngine(model, tokenizer, slots=5)
    engine.generate(requests(), params, seed=8)
    other = loud_model(tiny_spec(), seed=1)
    with torch.no_grad():
        for mine, new in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(new)
    engine.refresh()
    expected = InProcessEngine(other, tokenizer, slots=5).generate(requests(), params, seed=8)
    assert engine.generate(requests(), params, seed=8) == expected


def test_finished_rows_that_run_on_stay_inside_the_context(model, tokenizer, monkeypatch) -> None:
    """Five samples go on beside a row that ended, 128 positions being all there are."""
    monkeypatch.setattr(tokenizer, "eos_ids", ())
    prompt = tuple(1 + i % 30 for i in range(110))
    asked = [Request(prompt_ids=prompt, sample_ids=tuple(range(11)))]
    params = SamplingParams(max_new_tokens=model.spec.max_context - len(prompt))
    [few], [all_at_once] = (
        InProcessEngine(model, tokenizer, slots=s).generate(asked, params, seed=0) for s in (6, 11)
    )
    assert [c.token_ids for c in few] == [c.token_ids for c in all_at_once]
    assert {c.stop for c in few} == {StopReason.LENGTH}


def test_calls_that_share_a_captured_step_share_the_table_of_rotations() -> None:
    """A graph reads the table by its address: one that grew would leave it with freed memory."""
    for is_cuda in (False, True):
        by_shape = {}
        for longest in range(1, 3000, 7):
            for new in (100, 1000, 1001):
                shape = tuple(round_positions(n, is_cuda=is_cuda) for n in (longest - 1, new))
                context = decoded_context(longest, new, is_cuda=is_cuda)
                assert context >= longest + new - 1
                assert by_shape.setdefault(shape, context) == context


def test_what_must_be_exact_is_not_served_by_the_host(model, tokenizer) -> None:
    params = SamplingParams(max_new_tokens=4, stop=("xyz",))
    engine = InProcessEngine(model, tokenizer, must_be_exact=True)
    with pytest.raises(UserError, match=r"cannot follow the stop strings \('xyz',\)"):
        engine.generate(requests(), params, seed=0)
