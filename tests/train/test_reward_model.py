"""Reward models: the gradient is that of plain torch however pairs are packed, a random decoder
learns a preference and its opposite, and what is saved is what is loaded."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pellucid.artifacts import StageFolder
from pellucid.config import ModelConfig
from pellucid.config_rewards import RewardTrainConfig
from pellucid.data.preferences import LabelledResponse, PreferencePair
from pellucid.errors import DataError, Interrupted, ModelError, NumericsError, RunError
from pellucid.model.attention import PackedCausal
from pellucid.model.load import load_model
from pellucid.model.scalar_head import (
    RewardCard,
    RewardModel,
    is_reward_model,
    load_reward_model,
    save_reward_model,
)
from pellucid.model.spec import ModelSpec
from pellucid.model.transformer import Decoder, init_weights
from pellucid.records import Problem
from pellucid.runlog import MetricsLog, read_metrics
from pellucid.tasks.templates import get_template
from pellucid.train.checkpoint import Checkpoints
from pellucid.train.reward_data import (
    LabelExample,
    PairExample,
    RewardReader,
    ScoredText,
    build_score_pack,
    score_texts,
)
from pellucid.train.reward_model import RewardRun, RewardUpdater
from pellucid.train.reward_scorer import RewardModelScorer

VOCABULARY = 23


def make_model(dtype: torch.dtype = torch.float32, *, is_head_tied: bool = True) -> RewardModel:
    spec = ModelSpec(
        family="qwen2",
        vocab_size=VOCABULARY,
        width=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=4,
        ffn_width=24,
        has_qkv_bias=True,
        is_head_tied=is_head_tied,
        max_context=40,
    )
    decoder = Decoder(spec)
    init_weights(decoder, 1)
    return RewardModel(decoder.to(dtype), seed=2)


def ids(generator: random.Random, n: int) -> tuple[int, ...]:
    return tuple(generator.randrange(VOCABULARY) for _ in range(n))


def make_pairs(count: int = 7) -> list[PairExample]:
    """Prompts of one to four tokens, two of them shared; lengths of all kinds."""
    generator = random.Random(3)
    prompts = [ids(generator, 1 + i % 4) for i in range(count)]
    prompts[-1] = prompts[1]
    return [
        PairExample(
            chosen=ScoredText(p, ids(generator, 1 + 5 * i % 6)),
            rejected=ScoredText(p, ids(generator, 1 + i % 3)),
        )
        for i, p in enumerate(prompts)
    ]


def make_labelled(count: int = 7) -> list[LabelExample]:
    return [
        LabelExample(text=pair.chosen, label=i % 3 == 0) for i, pair in enumerate(make_pairs(count))
    ]


def plain_reward(model: RewardModel, text: ScoredText) -> torch.Tensor:
    """The text in a row of its own."""
    row = torch.tensor(text.prompt_ids + text.completion_ids)
    model.decoder.reserve_context(len(row))
    hidden = model.decoder(row, PackedCausal(torch.tensor([len(row)])))[-1]
    return hidden @ model.reward.weight[0] + model.reward.bias[0]


def plain_loss(model: RewardModel, examples: list) -> torch.Tensor:
    total = torch.zeros(())
    for e in examples:
        if isinstance(e, PairExample):
            gap = plain_reward(model, e.chosen) - plain_reward(model, e.rejected)
            total = total - torch.log(torch.sigmoid(gap))
        else:
            label = torch.tensor(float(e.label))
            total = total + F.binary_cross_entropy_with_logits(plain_reward(model, e.text), label)
    return total / len(examples)


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
@pytest.mark.parametrize("tokens_per_pack", [1, 13, 25, 8192])
def test_loss_and_step_do_not_depend_on_packing_and_are_those_of_plain_torch(
    tokens_per_pack: int, loss: str
) -> None:
    # A large eps makes Adam's first step proportional to the gradient, small components included.
    config = RewardTrainConfig(tokens_per_pack=tokens_per_pack, adam_eps=10.0, grad_clip=0.1)
    examples = make_pairs() if loss == "pairwise" else make_labelled()
    model, plain = make_model(), make_model()
    metrics = RewardUpdater(model, config, loss).update(examples, 10.0, step=1)
    expected = plain_loss(plain, examples)
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    torch.optim.AdamW(
        plain.parameters(), lr=10.0, betas=(0.9, 0.95), eps=10.0, weight_decay=0.0
    ).step()
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert metrics["grad_norm"] > 0.1
    for (name, got), want in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5, msg=name)
    moved = (model.decoder.embedding.weight - make_model().decoder.embedding.weight).abs().max()
    assert moved > 1e-4


def test_a_prompt_stands_once_in_a_pack_and_rewards_come_in_the_order_given() -> None:
    texts = [
        ScoredText((1, 7), (4, 2)),
        ScoredText((3,), (5,)),
        ScoredText((1, 7), (6,)),
    ]
    pack = build_score_pack(texts, "cpu")
    # Bodies, then each text's own row: the prompt's last token and the whole completion.
    assert pack.token_ids.tolist() == [1, 7, 4, 2, 7, 6, 3, 5]
    assert pack.last.tolist() == [3, 7, 5]
    model = make_model()
    got = score_texts(model, texts, tokens_per_pack=4)
    assert got == pytest.approx([plain_reward(model, t).item() for t in texts], rel=1e-5)
    assert len({round(value, 6) for value in got}) == 3


def test_a_head_of_its_own_is_frozen_and_takes_no_memory_of_the_optimiser() -> None:
    model = make_model(is_head_tied=False)
    updater = RewardUpdater(model, RewardTrainConfig(), "pairwise")
    before = model.decoder.head.weight.detach().clone()
    updater.update(make_pairs(), 1e-2, step=1)
    assert torch.equal(before, model.decoder.head.weight)
    assert not any("decoder.head" in name for name in updater.state())


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    model = make_model()
    with torch.no_grad():
        model.decoder.blocks[0].mlp.down.weight[0, 0] = math.nan
    before = model.decoder.embedding.weight.detach().clone()
    updater = RewardUpdater(model, RewardTrainConfig(tokens_per_pack=1), "pairwise")
    with pytest.raises(NumericsError, match=r"step 4: the loss of pack 1 of 7 is nan"):
        updater.update(make_pairs(), 1.0, step=4)
    assert torch.equal(before, model.decoder.embedding.weight)


class Stage:
    """A run on files; leaving closes them, as a kill would."""

    def __init__(
        self,
        folder: Path,
        examples: list,
        *,
        loss: str = "pairwise",
        stop_after: int | None = None,
        dtype: torch.dtype = torch.float32,
        **settings: object,
    ) -> None:
        folder.mkdir(exist_ok=True)
        config = RewardTrainConfig(
            **{"batch_sequences": 3, "learning_rate": 1e-2, "checkpoint_every": 2} | settings
        )
        self.files = StageFolder(folder)
        self.model = make_model(dtype)
        self.stop_after = stop_after
        self.metrics = MetricsLog(self.files.metrics)
        self.run = RewardRun(
            config=config,
            seed=5,
            examples=examples,
            updater=RewardUpdater(self.model, config, loss),
            checkpoints=Checkpoints(
                self.files, keep=2, on_save=lambda step: None, on_damage=self._refuse
            ),
            metrics=self.metrics,
            should_stop=lambda: self.run.updater.optimizer_steps == self.stop_after,
        )

    @staticmethod
    def _refuse(line: str) -> None:
        raise AssertionError(line)

    def train(self) -> int:
        try:
            return self.run.train()
        finally:
            self.metrics.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stopped_run_continues_with_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = Stage(tmp_path / "whole", make_pairs(), dtype=dtype, epochs=2)
    assert whole.train() == 6
    with pytest.raises(Interrupted, match="after step 3"):
        Stage(tmp_path / "cut", make_pairs(), dtype=dtype, epochs=2, stop_after=3).train()
    last = Stage(tmp_path / "cut", make_pairs(), dtype=dtype, epochs=2)
    assert last.train() == 3
    for (name, got), want in zip(
        last.model.named_parameters(), whole.model.parameters(), strict=True
    ):
        assert torch.equal(got, want), name
    assert not torch.equal(last.model.reward.weight, make_model(dtype).reward.weight)
    with pytest.raises(RunError, match="of other examples or \\[train\\] settings"):
        Stage(tmp_path / "cut", make_pairs()[::-1], dtype=dtype, epochs=2).train()


def test_the_paper_s_values_are_the_defaults_and_overlong_pairs_are_counted(tmp_path: Path) -> None:
    config = RewardTrainConfig()
    assert (config.epochs, config.batch_sequences, config.learning_rate) == (1, 256, 6e-6)
    assert config.max_tokens == 8192
    long = PairExample(chosen=ScoredText((1,), (2,)), rejected=ScoredText((1,), tuple(range(1, 9))))
    stage = Stage(tmp_path / "run", [*make_pairs(), long], max_tokens=8)
    assert stage.run.num_overlong == 1 + sum(p.num_tokens > 8 for p in make_pairs())
    stage.train()
    first = next(iter(read_metrics(stage.files.metrics)))
    assert first.name == "train/data"
    assert first.values["overlong"] == stage.run.num_overlong
    with pytest.raises(DataError, match=r"raise train\.max_tokens"):
        Stage(tmp_path / "none", [long], max_tokens=4)


def patterned(count: int, seed: int, *, swapped: bool = False) -> list[PairExample]:
    """Chosen answers hold a 5 directly before a 9, rejected ones the two apart; lengths tell
    nothing, no more than the tokens that occur.
    """
    generator = random.Random(seed)
    others = [t for t in range(VOCABULARY) if t not in (5, 9)]
    pairs = []
    for _ in range(count):
        prompt = tuple(generator.choices(others, k=3))
        fill = generator.choices(others, k=generator.randrange(2, 7))
        at = generator.randrange(len(fill))
        good = (*fill[:at], 5, 9, *fill[at:], 0)
        bad = (*fill[:at], 9, 5, *fill[at:], 0)
        texts = ScoredText(prompt, good), ScoredText(prompt, bad)
        chosen, rejected = texts[::-1] if swapped else texts
        pairs.append(PairExample(chosen=chosen, rejected=rejected))
    return pairs


@pytest.mark.parametrize("swapped", [False, True])
def test_a_random_decoder_learns_a_preference_and_its_opposite(
    tmp_path: Path, swapped: bool
) -> None:
    stage = Stage(
        tmp_path / "run",
        patterned(256, 1, swapped=swapped),
        batch_sequences=16,
        epochs=4,
        checkpoint_every=1000,
    )
    stage.train()
    held_out = patterned(200, 2)
    rewards = score_texts(stage.model, [t for p in held_out for t in p.texts])
    right = sum(good > bad for good, bad in zip(rewards[::2], rewards[1::2], strict=True))
    share = right / len(held_out)
    assert share < 0.1 if swapped else share > 0.9


def test_a_random_decoder_learns_labels(tmp_path: Path) -> None:
    def labelled(count: int, seed: int) -> list[LabelExample]:
        texts = [t for p in patterned(count, seed) for t in p.texts]
        return [LabelExample(text=t, label=i % 2 == 0) for i, t in enumerate(texts)]

    stage = Stage(
        tmp_path / "run",
        labelled(256, 1),
        loss="pointwise",
        batch_sequences=16,
        epochs=4,
        checkpoint_every=1000,
    )
    stage.train()
    held_out = labelled(100, 2)
    rewards = score_texts(stage.model, [e.text for e in held_out])
    right = sum((r > 0) == e.label for r, e in zip(rewards, held_out, strict=True))
    assert right / len(held_out) > 0.9


def embedded() -> tuple[RewardModel, object]:
    loaded = load_model(ModelConfig(), dtype=torch.float32, device="cpu")
    return RewardModel(loaded.model, seed=1), loaded.tokenizer


CARD = RewardCard(name="helpful", loss="pairwise", sees="summary", template="tiny", centre=0.25)
THOUGHT = "<think> because </think> <answer> 4 </answer>"


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    model, tokenizer = embedded()
    folder = save_reward_model(model, tokenizer, CARD, tmp_path / "helpful")
    loaded = load_reward_model(folder, dtype=torch.float32, device="cpu")
    text = RewardReader(get_template("tiny"), tokenizer, "response").text("2 + 2 = ?", THOUGHT)
    assert loaded.card == CARD
    assert score_texts(loaded.model, [text]) == score_texts(model, [text])
    assert (
        load_model(ModelConfig(path=str(folder)), dtype=torch.float32, device="cpu").digest
        == json.loads((folder / "reward_model.json").read_text())["decoder_sha256"]
    )
    head = folder / "reward_head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match="the head's weights are not those"):
        load_reward_model(folder, dtype=torch.float32, device="cpu")
    (folder / "reward_model.json").unlink()
    assert not is_reward_model(folder)
    with pytest.raises(ModelError, match="not a reward model, or its export was cut short"):
        load_reward_model(folder, dtype=torch.float32, device="cpu")


def test_helpful_sees_the_summary_only_and_safety_everything() -> None:
    _, tokenizer = embedded()
    template = get_template("tiny")
    helpful = RewardReader(template, tokenizer, "summary")
    safety = RewardReader(template, tokenizer, "response")
    question = "2 + 2 = ?"
    seen = helpful.text(question, THOUGHT)
    assert tokenizer.decode(seen.completion_ids) == "<answer> 4 </answer>"
    assert seen.completion_ids[-1] in tokenizer.eos_ids
    assert seen == helpful.text(question, THOUGHT.replace("because", "hm"))
    assert tokenizer.decode(safety.text(question, THOUGHT).completion_ids) == THOUGHT
    assert seen.prompt_ids == template.prompt_ids(question, tokenizer)
    assert helpful.text(question, "<think> it never ends") is None
    assert helpful.text(question, "<think> silence </think>") is None
    assert safety.text(question, "<think> it never ends") is not None
    pair = PreferencePair(id="a", prompt=question, chosen=THOUGHT, rejected="<think> …")
    assert helpful.pair(pair) is None
    labelled = LabelledResponse(id="b", prompt=question, response=THOUGHT, safe=True)
    assert safety.labelled(labelled).label is True


def test_general_prompts_are_scored_without_the_request_for_a_box() -> None:
    _, tokenizer = embedded()
    reader = RewardReader(get_template("r1-zero-boxed"), tokenizer, "summary")
    bare = get_template("r1-zero").prompt_ids("Who are you?", tokenizer)
    assert reader.text("Who are you?", THOUGHT).prompt_ids == bare


def test_the_prompt_of_a_thinking_template_leaves_the_tag_to_the_response() -> None:
    _, tokenizer = embedded()
    reader = RewardReader(get_template("r1-zero-think"), tokenizer, "response")
    assert not tokenizer.decode(reader.text("2 + 2 = ?", THOUGHT).prompt_ids).endswith("<think>")


@pytest.mark.parametrize("loss", ["pairwise", "pointwise"])
def test_a_scorer_gives_probabilities_and_the_floor_to_what_has_nothing_to_show(loss: str) -> None:
    model, tokenizer = embedded()
    card = RewardCard(name="x", loss=loss, sees="summary", template="tiny", centre=0.25)
    scorer = RewardModelScorer(model, tokenizer, card, tokens_per_pack=64)
    problems = [
        Problem(id=f"p/{i}", question=q, gold="", grader="open", kind="helpful")
        for i, q in enumerate(["2 + 2 = ?", "Hi", "2 + 2 = ?"])
    ]
    responses = [THOUGHT, "<think> it never ends", THOUGHT.replace("4", "5")]
    got = scorer.score(problems, responses)
    reader = RewardReader(get_template("tiny"), tokenizer, "summary")
    centre = 0.25 if loss == "pairwise" else 0.0
    want = [
        torch.sigmoid(plain_reward(model, reader.text(p.question, r)) - centre).item()
        for p, r in list(zip(problems, responses, strict=True))[::2]
    ]
    assert got == pytest.approx([want[0], 0.0, want[1]], rel=1e-5)
    assert scorer.num_invisible == 1
    assert got[0] != got[2]
    assert model.reward.weight.grad is None
