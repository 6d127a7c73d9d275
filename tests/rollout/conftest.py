import pytest
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.model.transformer import Decoder


@pytest.fixture
def tokenizer() -> LetterTokenizer:
    return LetterTokenizer()


@pytest.fixture
def model() -> Decoder:
    return loud_model(tiny_spec())
