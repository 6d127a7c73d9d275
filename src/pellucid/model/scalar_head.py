"""A reward model: the decoder with one number in place of the next token (paper, Methods: the same
architecture with a scalar reward head).

    reward = weight · hidden state behind the last token + bias

The folder of a reward model is that of a decoder (`model.load` opens it) with two files more:
`reward_head.safetensors` and `reward_model.json`, which says what the number means, what the model
is to be shown, and the digests of both files of weights.
Not here: how text becomes tokens, how a reward model is trained.

Shapes: T tokens, N sequences, D width.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pellucid.artifacts import sha256_file
from pellucid.config import ModelConfig
from pellucid.errors import ModelError
from pellucid.model.export import export_model
from pellucid.model.load import load_model, weights_digest
from pellucid.model.tensor_file import save_file
from pellucid.model.tokenizer import TextTokenizer, read_json
from pellucid.model.transformer import Attend, Decoder

HEAD_NAME = "reward_head.safetensors"
CARD_NAME = "reward_model.json"

Loss = Literal["pairwise", "pointwise"]
View = Literal["summary", "response"]


class RewardModel(nn.Module):
    """A decoder and its scalar head. The head is float32 whatever the decoder's type.

    The decoder's output head takes no part: where it has weights of its own they are frozen, and
    written out as they came.
    """

    def __init__(self, decoder: Decoder, *, seed: int = 0) -> None:
        """A fresh head is Normal(0, 1 / (D + 1)) as in Stiennon et al. 2020 (arXiv 2009.01325,
        appendix B), its bias 0: rewards start at about unit scale and reach every block.
        """
        super().__init__()
        self.decoder = decoder
        self.spec = decoder.spec
        weight = decoder.embedding.weight
        self.reward = nn.Linear(self.spec.width, 1, device=weight.device, dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn((1, self.spec.width), generator=generator)
        with torch.no_grad():
            self.reward.weight.copy_(drawn / (self.spec.width + 1) ** 0.5)
            self.reward.bias.zero_()
        if not self.spec.is_head_tied:
            decoder.head.weight.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.reward.weight.device

    def forward(self, token_ids: Tensor, attend: Attend, last: Tensor) -> Tensor:
        """Rewards [N] float32 of packed token_ids [T]; `last` [N]: where each sequence ends."""
        hidden = self.decoder(token_ids, attend)[last]
        return self.reward(hidden.float()).squeeze(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCard:
    """What must be known of a reward model to use it rightly.

    Example: RewardCard(name="safety", loss="pointwise", sees="response", template="r1-chat")
    """

    name: str
    """`helpful` or `safety`: the reward term it serves."""
    loss: Loss
    """pairwise: only differences mean something; pointwise: the log-odds of the positive label."""
    sees: View
    """summary: what follows the thinking; response: thinking and summary."""
    template: str
    """Name of the template that puts the question; its prefill belongs to the response."""
    centre: float = 0.0
    """pairwise: mean reward of the responses it was trained on, the zero of its scale."""


class LoadedReward(NamedTuple):
    """A reward model ready to score."""

    model: RewardModel
    tokenizer: TextTokenizer
    card: RewardCard
    digest: str
    """sha256 of the head's file; the card vouches for the decoder's."""


def save_reward_model(
    model: RewardModel, tokenizer: TextTokenizer, card: RewardCard, folder: Path
) -> Path:
    """Writes the decoder as `export_model` does, the head and the card, which is written last: a
    folder without it is not whole. Raises ModelError where the folder exists or cannot be written.
    """
    export_model(model.decoder, tokenizer, folder)
    head = {name: t.detach().cpu().contiguous() for name, t in model.reward.state_dict().items()}
    try:
        save_file(head, folder / HEAD_NAME, metadata={"format": "pt"})
        digests = {
            "head_sha256": sha256_file(folder / HEAD_NAME),
            "decoder_sha256": weights_digest(folder),
        }
        temporary = folder / f".{CARD_NAME}"
        temporary.write_text(json.dumps(asdict(card) | digests, indent=2) + "\n")
        os.replace(temporary, folder / CARD_NAME)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror}") from error
    return folder


def is_reward_model(folder: Path) -> bool:
    """Whether a folder holds a whole reward model."""
    return (folder / CARD_NAME).is_file()


def load_reward_model(folder: Path, *, dtype: torch.dtype, device: str) -> LoadedReward:
    """Loads what `save_reward_model` wrote, the decoder in `dtype`.

    Raises ModelError where a file is missing, damaged or another than the card vouches for.
    """
    facts = read_json(folder / CARD_NAME)
    if not facts:
        raise ModelError(
            f"{folder} has no {CARD_NAME}: not a reward model, or its export was cut short"
        )
    if not (folder / HEAD_NAME).is_file():
        raise ModelError(f"{folder} lacks {HEAD_NAME}: copy the folder again, whole")
    found = {"head_sha256": sha256_file(folder / HEAD_NAME)}
    found["decoder_sha256"] = weights_digest(folder)
    for name, digest in found.items():
        if facts.pop(name, None) != digest:
            part = name.removesuffix("_sha256")
            raise ModelError(f"{folder}: the {part}'s weights are not those that {CARD_NAME} names")
    loaded = load_model(ModelConfig(id=folder.name, path=str(folder)), dtype=dtype, device=device)
    model = RewardModel(loaded.model)
    try:
        model.reward.load_state_dict(load_file(folder / HEAD_NAME))
        card = RewardCard(**facts)
    except (SafetensorError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder} is no reward model of this version: {reason}") from error
    return LoadedReward(model, loaded.tokenizer, card, found["head_sha256"])
