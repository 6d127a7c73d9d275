"""Fine-tuning: the loss covers the assistant's tokens alone, however they are packed, and a killed
run continues with the same bits."""

import itertools
import math
from pathlib import Path

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig, SftConfig
from pellucid.errors import ConfigError, DataError, Interrupted, ModelError, NumericsError, RunError
from pellucid.model.attention import PackedCausal
from pellucid.model.load import load_model
from pellucid.model.spec import ModelSpec
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Completion, Request, SamplingParams, StopReason
from pellucid.rollout.engine import InProcessEngine
from pellucid.runlog import MetricsLog, read_metrics
from pellucid.tasks import chain
from pellucid.tasks.templates import TEMPLATES, get_template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.epochs import epoch_batches, keep_fitting
from pellucid.train.packing import build_token_pack
from pellucid.train.sft import SftRun, SftUpdater
from pellucid.train.sft_data import ExampleMaker, SftExample

SPEC = ModelSpec(
    family="qwen2",
    vocab_size=23,
    width=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    ffn_width=24,
    has_qkv_bias=True,
    max_context=32,
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(
    chat_template: str | None = CHATML,
    eos: tuple[str, ...] = ("<|endoftext|>", "<|im_end|>"),
) -> TextTokenizer:
    """A byte-level BPE with merges, its own end token and that of turns."""
    backend = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    backend.train_from_iterator([t.text for t in TEMPLATES.values()], trainer)
    ids = [backend.token_to_id(token) for token in eos]
    return TextTokenizer(backend, eos_ids=ids, chat_template=chat_template)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return make_tokenizer()


def text_of(tokenizer: TextTokenizer, ids: tuple[int, ...]) -> str:
    return tokenizer.backend.decode(list(ids), skip_special_tokens=False)


QUESTION = "If f(x) = {x}, what is 2 + 2? — 答案"
ANSWER = "<think>\nTwo and two — 数 —\nare four.\n</think>\n<answer> 4 </answer>"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_the_loss_covers_the_assistants_tokens_and_its_end_token_alone(
    name: str, tokenizer: TextTokenizer
) -> None:
    template = get_template(name)
    example = ExampleMaker(template, tokenizer).from_text(QUESTION, ANSWER)
    # Token in = token out: the prompt is the one of rollouts, and text and tokens agree.
    assert example.prompt_ids == template.prompt_ids(QUESTION, tokenizer)
    end = "<|im_end|>" if template.is_chat else "<|endoftext|>"
    whole = template.render(QUESTION, tokenizer).removesuffix(template.prefill) + ANSWER + end
    assert text_of(tokenizer, example.prompt_ids + example.completion_ids) == whole
    assert template.prefill + text_of(tokenizer, example.completion_ids) == ANSWER + end
    other = SftExample(prompt_ids=(5,), completion_ids=(6, 7))
    pack = build_token_pack([[example], [other]], "cpu")
    assert pack.targets.tolist() == [*example.completion_ids, 6, 7]
    own = [example.prompt_ids[-1], *example.completion_ids[:-1], 5, 6]
    assert pack.token_ids.tolist() == [*example.prompt_ids[:-1], *own]


def completion(ids: tuple[int, ...], stop: StopReason) -> Completion:
    return Completion(sample_id=1, token_ids=ids, logprobs=(0.0,) * len(ids), stop=stop, text="")


def test_sampled_tokens_are_learnt_as_they_were_sampled(tokenizer: TextTokenizer) -> None:
    maker = ExampleMaker(get_template("r1-zero"), tokenizer)
    own_end, turn_end = tokenizer.eos_ids
    letters = tuple(tokenizer.encode(c)[0] for c in "the")  # as no encoder would split "the"
    assert tokenizer.encode("the") != list(letters)
    stopped = maker.from_completion("Q?", completion(letters, StopReason.STOP_STRING))
    assert stopped.completion_ids == (*letters, own_end)
    ended = maker.from_completion("Q?", completion((*letters, turn_end), StopReason.EOS))
    assert ended.completion_ids == (*letters, turn_end)
    with pytest.raises(DataError, match="line 3: the completion was cut off"):
        maker.from_completion("Q?", completion(letters, StopReason.LENGTH), where="line 3")


def test_messages_are_rendered_by_the_models_template(tokenizer: TextTokenizer) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "2 + 2?"},
    ]
    example = ExampleMaker(get_template("r1-chat"), tokenizer).from_text(messages, "<think>\nx")
    prompt = tokenizer.chat(messages) + "<think>\n"
    assert text_of(tokenizer, example.prompt_ids) == prompt
    assert text_of(tokenizer, example.completion_ids) == "x<|im_end|>"
    with pytest.raises(DataError, match="messages end with what the assistant is to answer"):
        ExampleMaker(get_template("chat"), tokenizer).from_text(messages[:2], "x")
    with pytest.raises(ConfigError, match="'r1-zero' takes a question, not messages"):
        ExampleMaker(get_template("r1-zero"), tokenizer).from_text(messages, "x")


def test_a_program_is_learnt_behind_the_prompt_that_asks_for_one(tokenizer: TextTokenizer) -> None:
    template = get_template("r1-chat")
    maker = ExampleMaker(template, tokenizer)
    asked = template.prompt_ids("Add.", tokenizer, grader="code")
    assert "boxed" not in text_of(tokenizer, asked)
    assert maker.from_text("Add.", "<think>\nx", grader="code").prompt_ids == asked
    assert maker.from_text("Add.", "<think>\nx").prompt_ids != asked


def test_an_answer_ends_with_a_token_at_which_sampling_stops() -> None:
    base = make_tokenizer(eos=("<|endoftext|>",))  # as Qwen's base models, which know ChatML too
    example = ExampleMaker(get_template("chat"), base).from_text("Q?", "4")
    assert example.completion_ids[-1] == base.eos_ids[0]
    with pytest.raises(ModelError, match="names no end token"):
        ExampleMaker(get_template("chat"), make_tokenizer(eos=()))


@pytest.mark.parametrize(
    ("template", "response", "message"),
    [
        ("r1-chat", "4", r"item 7: under template 'r1-chat' a response starts with '<think>\\n'"),
        ("r1-chat", "<think>\n<think>4", "both open the thinking"),
        ("chat", "", "item 7: the response is empty"),
        ("chat", "4<|im_end|>5", "item 7: the response holds an end token"),
    ],
)
def test_a_response_that_cannot_be_learnt_is_named(
    template: str, response: str, message: str, tokenizer: TextTokenizer
) -> None:
    with pytest.raises(DataError, match=message):
        ExampleMaker(get_template(template), tokenizer).from_text("Q?", response, where="item 7")


def make_model(dtype: torch.dtype = torch.float32) -> Decoder:
    model = Decoder(SPEC)
    init_weights(model, seed=1)
    return model.to(dtype)


def make_examples(count: int = 7) -> list[SftExample]:
    """Prompts of one to four tokens, two of them shared."""
    generator = torch.Generator().manual_seed(3)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 23, (n,), generator=generator).tolist())

    prompts = [ids(1 + i % 4) for i in range(count)]
    prompts[-1] = prompts[1]
    return [
        SftExample(prompt_ids=p, completion_ids=ids(1 + (5 * i) % 6)) for i, p in enumerate(prompts)
    ]


def plain_loss(model: Decoder, examples: list[SftExample]) -> torch.Tensor:
    """Each example in a row of its own, prompt and all, under labels that blank the prompt."""
    total = torch.zeros(())
    for e in examples:
        ids = torch.tensor(e.prompt_ids + e.completion_ids)
        labels = torch.tensor((-100,) * len(e.prompt_ids) + e.completion_ids)
        model.reserve_context(len(ids))
        logits = model.head(model(ids, PackedCausal(torch.tensor([len(ids)]))))
        total = total + F.cross_entropy(logits[:-1], labels[1:], reduction="sum")
    return total / sum(len(e.completion_ids) for e in examples)


@pytest.mark.parametrize("tokens_per_pack", [1, 9, 13, 8192])
def test_loss_and_step_do_not_depend_on_packing_and_are_those_of_plain_torch(
    tokens_per_pack: int,
) -> None:
    # A large eps makes Adam's first step proportional to the gradient, small components included.
    config = SftConfig(tokens_per_pack=tokens_per_pack, adam_eps=10.0, grad_clip=0.5)
    model, plain = make_model(), make_model()
    metrics = SftUpdater(model, config).update(make_examples(), 10.0, step=1)
    loss = plain_loss(plain, make_examples())
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    torch.optim.AdamW(
        plain.parameters(), lr=10.0, betas=(0.9, 0.95), eps=10.0, weight_decay=0.0
    ).step()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert metrics["grad_norm"] > 0.5
    assert metrics["tokens"] == sum(len(e.completion_ids) for e in make_examples())
    moved = (model.embedding.weight - make_model().embedding.weight).abs().max()
    assert moved > 1e-3
    for (name, got), want in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5, msg=name)


def test_a_loss_that_is_not_finite_names_step_and_pack_and_changes_nothing() -> None:
    model = make_model()
    with torch.no_grad():
        model.blocks[0].mlp.down.weight[0, 0] = math.nan
    before = model.embedding.weight.detach().clone()
    updater = SftUpdater(model, SftConfig(tokens_per_pack=1))
    with pytest.raises(NumericsError, match=r"step 4: the loss of pack 1 of 7 is nan"):
        updater.update(make_examples(), 1.0, step=4)
    assert torch.equal(before, model.embedding.weight)
    assert updater.optimizer_steps == 0


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    batches = [epoch_batches(11, 4, seed=3, epoch=e) for e in range(3)]
    for epoch in batches:
        assert sorted(itertools.chain(*epoch)) == list(range(11))
        assert sorted(len(b) for b in epoch) == [3, 4, 4]
    assert len(set(batches)) == 3
    assert epoch_batches(11, 4, seed=4, epoch=0) != batches[0]
    epoch_batches.cache_clear()
    assert epoch_batches(11, 4, seed=3, epoch=2) == batches[2]


def test_overlong_examples_are_left_out_whole_and_counted() -> None:
    examples = make_examples()
    sizes = [e.num_tokens for e in examples]
    fitting, overlong = keep_fitting(examples, 6)
    assert fitting == [e for e in examples if e.num_tokens <= 6]
    assert 0 < overlong == sum(size > 6 for size in sizes)
    with pytest.raises(DataError, match=rf"at most 1 tokens .*the shortest has {min(sizes)}"):
        keep_fitting(examples, 1)
    with pytest.raises(DataError, match="there is none at all"):
        keep_fitting([], 9)


CONFIG = SftConfig(batch_sequences=3, learning_rate=1e-2, checkpoint_every=2, tokens_per_pack=12)


class Stage:
    """A run on files; leaving closes them, as a kill would."""

    def __init__(
        self,
        folder: Path,
        config: SftConfig = CONFIG,
        *,
        examples: list[SftExample] | None = None,
        stop_after: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.files = StageFolder(folder)
        self.model = make_model(dtype)
        self.stop_after = stop_after
        self.metrics = MetricsLog(self.files.metrics)
        self.run = SftRun(
            config=config,
            seed=5,
            examples=make_examples() if examples is None else examples,
            updater=SftUpdater(self.model, config),
            checkpoints=Checkpoints(
                self.files, keep=2, on_save=lambda step: None, on_damage=self._refuse
            ),
            metrics=self.metrics,
            should_stop=self._should_stop,
        )

    def _should_stop(self) -> bool:
        return self.run.updater.optimizer_steps == self.stop_after

    @staticmethod
    def _refuse(line: str) -> None:
        raise AssertionError(line)

    def train(self, progress: object = None) -> int:
        try:
            return self.run.train(progress)
        finally:
            self.metrics.close()

    def lasting(self) -> list[tuple]:
        """The metrics that equal runs have in common."""
        records = read_metrics(self.files.metrics)
        return [(r.step, r.name, dict(r.values)) for r in records if r.name != "timing"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_killed_run_continues_with_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = Stage(tmp_path / "whole", dtype=dtype)
    assert whole.train() == 6

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    killed = Stage(tmp_path / "killed", dtype=dtype)
    with pytest.raises(Killed):
        killed.train(kill)
    stopped = Stage(tmp_path / "killed", stop_after=5, dtype=dtype)
    with pytest.raises(Interrupted, match="after step 5"):
        stopped.train()
    last = Stage(tmp_path / "killed", dtype=dtype)
    assert last.train() == 1
    assert last.lasting() == whole.lasting()
    assert [step for step, name, _ in whole.lasting() if name == "sft"] == [1, 2, 3, 4, 5, 6]
    for (name, got), want in zip(
        last.model.named_parameters(), whole.model.parameters(), strict=True
    ):
        assert torch.equal(got, want), name
    assert not torch.equal(whole.model.embedding.weight, make_model(dtype).embedding.weight)
    assert Stage(tmp_path / "killed", dtype=dtype).train() == 0


def test_other_examples_do_not_continue_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        Stage(tmp_path / "run", stop_after=2).train()
    with pytest.raises(RunError, match="step 2 is of other examples or \\[sft\\] settings"):
        Stage(tmp_path / "run", examples=make_examples()[::-1]).train()
    often = CONFIG.model_copy(update={"checkpoint_every": 1})
    assert Stage(tmp_path / "run", often).train() == 4


def test_the_rate_rises_then_falls_along_a_cosine_to_a_tenth(tmp_path: Path) -> None:
    config = SftConfig(
        batch_sequences=1, learning_rate=1e-3, warmup_fraction=0.25, max_tokens=6, epochs=3
    )
    stage = Stage(tmp_path / "run", config)
    stage.train()
    lines = stage.lasting()
    fitting = [e for e in make_examples() if e.num_tokens <= 6]
    assert lines[0] == (
        0,
        "sft/data",
        {
            "examples": float(len(fitting)),
            "overlong": float(7 - len(fitting)),
            "tokens": float(sum(len(e.completion_ids) for e in fitting)),
            "steps": 3.0 * len(fitting),
        },
    )
    rates = [values["learning_rate"] for _, name, values in lines if name == "sft"]
    total, warm = len(rates), round(0.25 * len(rates))
    expected = [1e-3 * (i + 1) / warm for i in range(warm)] + [
        1e-4 + 9e-4 * (1 + math.cos(math.pi * i / (total - warm))) / 2
        for i in range(1, total - warm + 1)
    ]
    assert rates == pytest.approx(expected)
    assert rates[-1] == pytest.approx(1e-4)
    assert lines[-1][2]["epoch"] == 3.0


def test_examples_beyond_the_models_context_are_left_out(tmp_path: Path) -> None:
    long = SftExample(prompt_ids=(1,) * 30, completion_ids=(2, 3, 4))
    stage = Stage(tmp_path / "run", examples=[*make_examples(), long])
    assert stage.run.num_overlong == 1
    stage.train()
    with pytest.raises(DataError, match="at most 32 tokens"):
        Stage(tmp_path / "other", examples=[long])


def test_the_embedded_model_learns_32_examples_and_answers_them(tmp_path: Path) -> None:
    loaded = load_model(ModelConfig(), dtype=torch.float32, device="cpu")
    template = get_template("tiny")
    maker = ExampleMaker(template, loaded.tokenizer)
    problems = chain.problems("train", 32)
    examples = [
        maker.from_text(p.question, f" <think> short </think> <answer> {p.gold} </answer>")
        for p in problems
    ]
    config = SftConfig(epochs=16, batch_sequences=8, learning_rate=3e-3, checkpoint_every=1000)
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    run = SftRun(
        config=config,
        seed=0,
        examples=examples,
        updater=SftUpdater(loaded.model, config),
        checkpoints=Checkpoints(
            StageFolder(tmp_path), keep=1, on_save=lambda step: None, on_damage=Stage._refuse
        ),
        metrics=metrics,
    )
    run.train()
    metrics.close()
    losses = [r.values["loss"] for r in read_metrics(tmp_path / "metrics.jsonl") if r.name == "sft"]
    assert losses[-1] < 0.3 * losses[0]
    requests = [Request(prompt_ids=e.prompt_ids, sample_ids=(i,)) for i, e in enumerate(examples)]
    engine = InProcessEngine(loaded.model, loaded.tokenizer)
    params = SamplingParams(temperature=0.0, max_new_tokens=48)
    answers = [samples[0] for samples in engine.generate(requests, params, seed=0)]
    right = sum(a.token_ids == e.completion_ids for a, e in zip(answers, examples, strict=True))
    assert right >= 8
    assert all(a.stop is StopReason.EOS for a in answers)
