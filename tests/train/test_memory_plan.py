"""Predicted bytes against the tensors themselves, and the choices made from them."""

from dataclasses import fields, replace
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from pellucid.algo.divergence import Head, linear_reverse_kl
from pellucid.algo.head import linear_logprobs
from pellucid.config import TrainConfig
from pellucid.errors import ConfigError
from pellucid.kernels.available import triton_ready
from pellucid.model.ops import Ops
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.rollout.loop_buffers import Capacity, buffers
from pellucid.rollout.pages import NO_PAGES, PageSize
from pellucid.rollout.waves import MOST_ROWS, PAGE
from pellucid.train import memory_sizes as sizes
from pellucid.train.job import Beside, Job
from pellucid.train.memory_plan import COMFORTABLE_PACK, GIB, LARGEST_PACK, choose_plan, layout_of
from pellucid.train.optimizer import Optimizer
from pellucid.train.phase_plans import sampling_plan, tuning_plan
from pellucid.train.step_time import PEAKS, _mean_age, peaks_of, predict

CPU = torch.device("cpu")


def vars_of(record):
    return [getattr(record, field.name) for field in fields(record)]


TOKENS = 64


def make_spec(**changes):
    shape = {
        "vocab_size": 96,
        "width": 32,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "ffn_width": 48,
        "max_context": 64,
    }
    return ModelSpec(family="qwen2", **(shape | changes))


QWEN_05B = ModelSpec(
    family="qwen2",
    vocab_size=151936,
    width=896,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    ffn_width=4864,
    has_qkv_bias=True,
    max_context=32768,
)


def make_job(**changes):
    job = {
        "spec": QWEN_05B,
        "element": 2,
        "prompts": 64,
        "group_size": 16,
        "prompt_tokens": 128,
        "max_new_tokens": 512,
    }
    return Job(**(job | changes))


class FlashLike(torch.autograd.Function):
    """Keeps what the flash kernels keep: q, k, v, output and the logarithm of the sum."""

    @staticmethod
    def forward(ctx, q, k, v):
        group = q.shape[1] // k.shape[1]
        keys, values = (x.float().repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
        scores = q.float().transpose(0, 1) @ keys.transpose(1, 2)
        out = (scores.softmax(2) @ values).transpose(0, 1).to(q.dtype).contiguous()
        ctx.save_for_backward(q, k, v, out, scores.logsumexp(2))
        return out.flatten(1)


def attend(layer, heads, rotation):
    return FlashLike.apply(*rotation.split(heads, torch.arange(len(heads))))


def kept_bytes(model, run):
    """Bytes of the tensors that `run` keeps for a backward pass, weights and tables left out."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    known.add(model.rotation().table.untyped_storage().data_ptr())
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tensor.dtype != torch.int64:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()  # alive until counted: freed memory would be counted once for two tensors
    assert result.requires_grad
    return sum(found.values())


def fused_ops():
    if not triton_ready(CPU, can_interpret=True):
        pytest.skip("Triton's interpreter is not here")
    from pellucid.kernels.norm import add_norm
    from pellucid.kernels.rope import rotate
    from pellucid.kernels.swiglu import swiglu

    return Ops(linear=F.linear, add_norm=add_norm, swiglu=swiglu, rotate=rotate, is_fused=True)


def make_model(spec, dtype=torch.bfloat16):
    model = Decoder(spec)
    init_weights(model, seed=0)
    model.reserve_context(64)
    return model.to(dtype)


@pytest.mark.parametrize("changes", [{}, {"has_qkv_bias": True, "num_layers": 1}])
def test_activations_are_counted_as_autograd_keeps_them(changes):
    spec = make_spec(**changes)
    model = make_model(spec)
    model.ops = fused_ops()
    kept = kept_bytes(model, lambda: model(torch.arange(TOKENS), attend).float())
    # The last hidden states are what the head keeps; here nothing takes them.
    hidden = 2 * TOKENS * spec.width
    assert kept == sizes.activation_bytes(spec, 2, TOKENS, 0) - hidden


def test_a_checkpointed_block_keeps_its_inputs_alone():
    spec = make_spec()
    model = make_model(spec)
    model.ops = fused_ops()
    everything = kept_bytes(model, lambda: model(torch.arange(TOKENS), attend).float())
    model.checkpointed_blocks = 2
    fewer = kept_bytes(model, lambda: model(torch.arange(TOKENS), attend).float())
    predicted = [sizes.activation_bytes(spec, 2, TOKENS, n) for n in (0, 2)]
    assert everything - fewer == pytest.approx(predicted[0] - predicted[1], rel=0.05)


@pytest.mark.parametrize("is_tied", [True, False])
def test_weights_states_and_gradients_are_those_of_the_optimizer(is_tied):
    spec = make_spec(is_head_tied=is_tied)
    model = make_model(spec)
    weights = sum(p.nbytes for p in model.parameters())
    assert weights == sizes.weight_bytes(spec, 2)
    optimizer = Optimizer(model, TrainConfig())
    sum(p.float().sum() for p in model.parameters()).backward()
    gradients = sum(m.grad.nbytes for m in optimizer.masters.values())
    assert gradients == sizes.gradient_bytes(spec)
    optimizer.step(1e-3, where="test")
    states = sum(t.nbytes for n, t in optimizer.state().items() if not n.startswith("adam.step"))
    assert states == sizes.state_bytes(spec, 2)


def test_float32_weights_are_their_own_masters():
    assert sizes.state_bytes(make_spec(), 4) == 8 * make_spec().num_parameters


@pytest.mark.parametrize(
    ("stop_states", "pages"), [(0, NO_PAGES), (5, NO_PAGES), (0, PageSize(30, 3, 16))]
)
def test_the_loop_state_is_counted_buffer_by_buffer(stop_states, pages):
    capacity = Capacity(12, 40, 7, 33, 96, stop_states, pages)
    made = buffers(capacity, CPU)
    total = sum(t.nbytes for t in made.values() if isinstance(t, torch.Tensor))
    if pages.total:
        of_pages = vars_of(made["pages"])
        total += sum(t.nbytes for t in of_pages if isinstance(t, torch.Tensor))
    fixed = 2 * 4 + 8 * 4 + 8  # seed, scalars, generated
    assert sizes.loop_bytes(capacity) == total - fixed


def test_logits_kept_by_the_head_are_predicted():
    weight = nn.Parameter(torch.randn(50, 8))
    hidden = torch.randn(20, 8, requires_grad=True)
    found = {}

    def pack(tensor):
        if tensor.dim() == 2 and tensor.shape[1] == 50:
            found[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        linear_logprobs(hidden, weight, torch.zeros(20, dtype=torch.int64))
    assert sum(found.values()) == sizes.all_logits_bytes(50, 20)


def test_with_room_everything_stays_and_nothing_is_computed_again():
    plan = choose_plan(make_job(), 139 * GIB)
    job = make_job()
    group = job.prompt_tokens - 1 + job.group_size * job.max_new_tokens
    assert plan.tokens_per_pack == 2 * group, "whole groups, about the largest pack"
    assert abs(plan.tokens_per_pack - LARGEST_PACK) < group
    assert (plan.slots, plan.checkpointed_blocks) == (1024, 0)
    assert not plan.is_time_shared
    assert plan.peak <= 60 * GIB


def test_less_memory_means_smaller_packs_then_turns_then_blocks_computed_again():
    plans = [choose_plan(make_job(), gib * GIB) for gib in (139, 36, 24, 14, 12)]
    assert [p.peak <= p.available for p in plans] == [True] * 5
    assert [p.peak for p in plans] == sorted((p.peak for p in plans), reverse=True)
    assert [p.is_time_shared for p in plans] == [False, False, True, True, True]
    assert plans[1].tokens_per_pack == plans[2].tokens_per_pack == COMFORTABLE_PACK
    assert [p.checkpointed_blocks > 0 for p in plans] == [False, False, False, True, True]
    assert [p.slots for p in plans] == [1024] * 5
    assert [p.kv_pages > 0 for p in plans] == [False, False, False, True, True]
    assert "1024 rows over" in plans[-1].summary()


def test_a_reference_takes_as_much_as_the_weights():
    without, beside = (choose_plan(make_job(has_reference=r), 139 * GIB) for r in (False, True))
    assert beside.reference == beside.weights == without.weights
    assert beside.resident - without.resident == without.weights


@pytest.mark.parametrize(
    ("changes", "gib", "words"),
    [
        ({}, 1.5, "weights need 0.9 GiB"),
        ({}, 5, "optimizer states need 5.5 GiB"),
        ({}, 8, "float32 gradients need 1.8 GiB"),
        ({"has_reference": True}, 10, "reference (algo.beta > 0) need 0.9 GiB"),
        ({}, 10, "activations of"),
        (
            {"slots": 4096, "prompts": 256},
            14,
            "keys and values of 4096 slots, 256 tokens each at first, need 12.4 GiB",
        ),
        ({"tokens_per_pack": 400_000}, 20, "lower train.tokens_per_pack"),
    ],
)
def test_what_does_not_fit_is_named_with_its_bytes(changes, gib, words):
    with pytest.raises(ConfigError) as caught:
        choose_plan(make_job(**changes), int(gib * GIB))
    line = str(caught.value)
    assert words in line
    assert "are free: " in line
    assert "\n" not in line


def test_slots_that_do_not_fit_whole_share_pages_for_what_turns_leave():
    job = make_job(slots=1024, max_new_tokens=8192)
    plan, room = choose_plan(job, 60 * GIB), layout_of(job, 60 * GIB)
    assert plan.is_time_shared
    assert (plan.slots, plan.kv_pages) == (1024, 16384)
    assert layout_of(job, plan.kv_limit).pages == (16384, 32, PAGE)
    assert plan.kv <= plan.kv_limit
    assert plan.peak <= plan.available
    short, long = (predict(job, plan, PEAKS[0], length).decode_s for length in (500, 4000))
    assert long > 8 * short, "longer samples leave fewer rows as well"
    assert room.rows == 1024


def test_numbers_set_by_hand_stay():
    plan = choose_plan(make_job(slots=96, tokens_per_pack=5000), 139 * GIB)
    assert (plan.slots, plan.tokens_per_pack) == (96, 5000)


@pytest.mark.parametrize("slots", [None, 8192])
def test_no_more_slots_are_planned_than_a_step_can_hold(slots):
    job = make_job(prompts=512, max_new_tokens=256, slots=slots)
    plan = choose_plan(job, 139 * GIB)
    assert layout_of(job, plan.kv_limit).rows == MOST_ROWS
    assert not plan.is_time_shared


def test_a_small_step_takes_no_larger_pack_than_it_fills():
    plan = choose_plan(make_job(prompts=2, group_size=2, max_new_tokens=256), 139 * GIB)
    assert plan.tokens_per_pack == 2048  # 4 · 256 + 2 · 127, in steps of 1024
    assert plan.slots == 8  # the least number of rows of a captured step


def test_step_time_grows_with_length_and_with_passes():
    job, peaks = make_job(), PEAKS[0]
    plan = choose_plan(job, 139 * GIB)
    whole, half = (predict(job, plan, peaks, mean) for mean in (512, 256))
    assert half.decode_s < whole.decode_s
    assert half.training_s < whole.training_s
    # 1024 x 512 tokens at 2 operations a parameter and token, at the efficiency of small models.
    assert 1.2 < whole.decode_s / (2 * 494e6 * 524288 / 790e12) < 6
    twice = predict(make_job(minibatches=4), plan, peaks, 512)
    assert twice.training_s == pytest.approx(whole.training_s * 4 / 3)
    sampled = predict(make_job(minibatches=4, recomputes_old=False), plan, peaks, 512)
    assert sampled.training_s == pytest.approx(whole.training_s)


def test_devices_are_known_by_part_of_their_name():
    assert peaks_of("NVIDIA H200") is PEAKS[0]
    assert peaks_of("Voodoo 2") is None


# Models beside the policy


def beside_job(**changes):
    job = Job(
        spec=QWEN_05B, element=2, prompts=32, group_size=16, prompt_tokens=300, max_new_tokens=1024
    )
    return replace(job, **changes)


def test_reward_models_take_their_weights_always_and_their_work_beside_keys_and_values():
    alone = choose_plan(beside_job(), 140 * GIB)
    models = Beside(specs=(QWEN_05B, QWEN_05B), element=2)
    plan = choose_plan(beside_job(beside=models), 140 * GIB)
    assert plan.beside == 2 * plan.weights
    assert plan.scoring_tokens == 8192
    assert plan.scoring == sizes.forward_bytes(QWEN_05B, 2, 8192)
    assert plan.resident == alone.resident + plan.beside
    assert plan.rollout_peak - plan.resident == max(plan.prefill, plan.scoring)
    assert plan.training_peak == alone.training_peak + plan.beside


def test_scoring_packs_shrink_before_a_job_is_refused_and_hold_the_longest_text():
    wide = replace(QWEN_05B, num_layers=1, ffn_width=400_000)  # 18 GiB of work in 8,192 tokens
    models = Beside(specs=(wide,), element=2)
    job = beside_job(beside=models, prompts=1, group_size=2, max_new_tokens=2600)
    roomy, tight = choose_plan(job, 140 * GIB), choose_plan(job, 26 * GIB)
    assert roomy.scoring_tokens == 8192
    assert job.longest < tight.scoring_tokens == 4096
    assert tight.scoring == sizes.forward_bytes(wide, 2, 4096)
    assert tight.peak <= tight.available


def test_a_pack_chosen_before_is_kept():
    models = Beside(specs=(QWEN_05B,), element=2)
    plan = choose_plan(beside_job(beside=models, scoring_tokens=2048), 140 * GIB)
    assert plan.scoring_tokens == 2048


def test_a_teacher_reads_while_keys_and_values_rest():
    teacher = Beside(specs=(QWEN_05B,), element=2, is_teacher=True)
    plan = choose_plan(beside_job(beside=teacher), 140 * GIB)
    assert plan.beside == plan.weights
    assert plan.scoring >= sizes.forward_bytes(QWEN_05B, 2, plan.tokens_per_pack)
    assert plan.rollout_peak - plan.resident == plan.prefill
    larger = replace(plan, scoring=10 * plan.activations + plan.logits + plan.head_work)
    assert larger.training_peak - larger.resident == larger.scoring


def test_a_teacher_compared_whole_needs_no_kept_logits_and_what_the_comparison_holds():
    large = replace(QWEN_05B, width=1536, num_layers=28, ffn_width=8960)
    drawn = Beside(specs=(large,), element=2, is_teacher=True)
    whole = replace(drawn, is_compared_whole=True)
    job = beside_job(beside=whole, tokens_per_pack=8192)
    plan = choose_plan(job, 140 * GIB)
    completion = job.completion_tokens(8192)
    assert plan.logits == 0
    assert plan.head_work == sizes.divergence_bytes(QWEN_05B, large, 2, completion)
    # Two float32 copies of the head's gradient, seven chunks of 128 MiB.
    assert 1.9 * GIB < plan.head_work < 2.1 * GIB
    assert plan.scoring == sizes.forward_bytes(large, 2, 8192)
    of_the_drawn = choose_plan(replace(job, beside=drawn), 140 * GIB)
    assert of_the_drawn.logits > 0
    # The teacher's last hidden states stay until the student has learnt from them.
    assert plan.activations == of_the_drawn.activations + 2 * large.width * 8192
    assert plan.training_peak - plan.resident >= plan.activations + plan.head_work


@pytest.mark.parametrize("rows", [64, 128, 512])
def test_what_the_comparison_holds_is_what_torch_allocates(rows, monkeypatch):
    student = replace(QWEN_05B, vocab_size=4000, width=32)
    teacher = replace(QWEN_05B, vocab_size=4100, width=48)
    monkeypatch.setattr("pellucid.algo.divergence.CHUNK_BYTES", 4 * 4100 * rows)
    torch.manual_seed(0)
    tokens, weight_grad = 512, torch.zeros(4000, 32)
    own = Head(torch.randn(tokens, 32, requires_grad=True), torch.randn(4000, 32))
    other = Head(torch.randn(tokens, 48), torch.randn(4100, 48))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        linear_reverse_kl(own, other, scale=1.0, weight_grad=weight_grad).loss.backward()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    peak = max(accumulate(changes))
    assert 0.8 < peak / sizes.divergence_bytes(student, teacher, 4, tokens) <= 1.0


def test_models_beside_that_do_not_fit_are_named():
    models = Beside(specs=(QWEN_05B,) * 40, element=2)
    with pytest.raises(ConfigError, match="weights of the reward models or the teacher need"):
        choose_plan(beside_job(beside=models), 40 * GIB)


def test_sampling_alone_needs_no_states_and_fine_tuning_no_keys_and_values():
    job = beside_job()
    sampling = sampling_plan(job, 140 * GIB)
    assert sampling.states == sampling.gradients == sampling.activations == 0
    assert sampling.kv > 0
    tuning = tuning_plan(job, 140 * GIB, 8192, has_logits=True)
    whole = choose_plan(replace(job, tokens_per_pack=8192), 140 * GIB)
    assert (tuning.states, tuning.gradients) == (whole.states, whole.gradients)
    assert tuning.activations == whole.activations
    assert tuning.kv == 0 < tuning.logits
    scored = tuning_plan(job, 140 * GIB, 8192, has_logits=False)
    assert scored.training_peak < tuning.training_peak
    assert scored.logits == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda job: sampling_plan(job, 2 * GIB), "keys and values of one sequence"),
        (lambda job: tuning_plan(job, 9 * GIB, 8192, has_logits=True), "lower tokens_per_pack"),
    ],
)
def test_what_sampling_or_fine_tuning_cannot_hold_is_one_line(make, words):
    with pytest.raises(ConfigError, match=words) as error:
        make(beside_job(prompt_tokens=30_000))
    assert "\n" not in str(error.value)


def test_while_samples_wait_rows_are_as_old_as_their_lengths_say():
    assert _mean_age(1000, 0.0) == pytest.approx(500)  # all of one length
    assert _mean_age(1000, 1 / 100) == pytest.approx(100, rel=0.05)  # memoryless: the mean itself
