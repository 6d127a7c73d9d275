"""A stage's surroundings for tests of seconds: a random byte model, and a sampler that says what it
is told to."""

from collections.abc import Callable
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from pellucid.artifacts import RunFolder
from pellucid.config_stages import PipelineConfig
from pellucid.errors import Interrupted
from pellucid.ledger import Ledger
from pellucid.model.load import LoadedModel
from pellucid.model.spec import ModelSpec
from pellucid.model.tokenizer import TextTokenizer
from pellucid.model.transformer import Decoder, init_weights
from pellucid.pipeline.stage import StageContext
from pellucid.pipeline.workbench import Workbench
from pellucid.records import Completion, StopReason
from pellucid.runlog import Progress

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def byte_tokenizer() -> TextTokenizer:
    alphabet = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {text: index for index, text in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return TextTokenizer(backend, eos_ids=(0,), chat_template=CHAT, settings={"eos_token": "<eos>"})


class ScriptedEngine:
    """Answers a prompt by `say(question, k)`, where None is an answer cut off by its limit."""

    def __init__(self, tokenizer: TextTokenizer, say: Callable[[str, int], str | None]) -> None:
        self.tokenizer = tokenizer
        self.say = say
        self.num_samples = 0

    def generate(self, requests, params, *, seed, progress=None, on_group=None):
        groups = []
        for request in requests:
            prompt = self.tokenizer.decode(request.prompt_ids)
            question = prompt.rpartition("User: ")[2].removesuffix(" Assistant:")
            group = []
            for k, sample_id in enumerate(request.sample_ids):
                text = self.say(question, k)
                stop = StopReason.LENGTH if text is None else StopReason.STOP_STRING
                ids = tuple(self.tokenizer.encode(text or " <think> I go on"))
                group.append(
                    Completion(
                        sample_id=sample_id,
                        token_ids=ids,
                        logprobs=(0.0,) * len(ids),
                        stop=stop,
                        text=text or " <think> I go on",
                    )
                )
            groups.append(group)
            if on_group is not None:
                on_group(len(groups) - 1, group)
            self.num_samples += len(group)
            if progress is not None:
                progress(sum(map(len, groups)), 0)
        return groups

    def release(self) -> None:
        pass


class World(StageContext):
    """A context whose models are a scripted sampler and a random model to train."""

    def open(self, name, config=None):
        engine = ENGINES[self.stage.root]
        OPENED.setdefault(self.stage.root, []).append(name)
        spec = ModelSpec(
            family="llama",
            vocab_size=257,
            width=16,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            head_dim=8,
            ffn_width=16,
            max_context=2048,
        )
        model = Decoder(spec)
        init_weights(model, seed=0)
        loaded = LoadedModel(
            model=model, tokenizer=engine.tokenizer, name=name, digest="", path=Path()
        )
        return Workbench(loaded=loaded, engine=engine, device="cpu", device_name="cpu")


ENGINES: dict[Path, ScriptedEngine] = {}
OPENED: dict[Path, list[str]] = {}


def make_world(
    root: Path,
    say: Callable[[str, int], str | None],
    *,
    kind: str = "cold-start",
    should_stop: Callable[[], bool] = lambda: False,
    **values,
) -> World:
    """The context of one stage in `root`, continued where it is there."""
    torch.set_num_threads(1)
    sft = {"epochs": 1, "batch_sequences": 4, "checkpoint_every": 1, "learning_rate": 1e-3}
    stage = {"kind": kind, "name": kind, "start": "base", "problems": 6, "samples": 3}
    stage |= {"sampler": "zero" if kind == "cold-start" else "base", "sft": sft}
    zero = {"kind": "zero", "name": "zero", "template": "r1-zero"}
    recipe = PipelineConfig.model_validate({"stages": [zero, stage | values]})
    folder = RunFolder(root).stage(2, kind)
    ENGINES[folder.root] = ScriptedEngine(byte_tokenizer(), say)
    OPENED.pop(folder.root, None)
    return World(
        recipe=recipe,
        config=recipe.stage(kind),
        stage=folder,
        inputs={},
        address="0" * 64,
        ledger=Ledger(RunFolder(root).ledger),
        progress=Progress(is_silent=True),
        should_stop=should_stop,
    )


def stop_after(calls: int) -> Callable[[], bool]:
    """True from the call after so many."""
    left = [calls]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return should_stop


__all__ = ["ENGINES", "OPENED", "Interrupted", "make_world", "stop_after"]
