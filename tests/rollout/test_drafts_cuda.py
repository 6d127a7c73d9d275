import pytest
import torch
from rollout_tiny import LetterTokenizer, loud_model, tiny_spec

from pellucid.records import Request, SamplingParams

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class ByteLetters(LetterTokenizer):
    def token_bytes(self):
        return [text.encode() for text in self.texts]


@pytest.mark.parametrize("num_drafts", [1, 3])
def test_an_exact_rollout_has_the_same_bits_with_drafts(num_drafts):
    from pellucid.rollout.resident_engine import ResidentEngine

    spec = tiny_spec(width=128, num_heads=4, num_kv_heads=2, head_dim=32, max_context=512)
    model = loud_model(spec).to(device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():  # its last token counts most, so that it falls into circles
        for block in model.blocks:
            block.attention.out.weight.mul_(0.05)
    model.exact = True
    model.reserve_context(512)
    requests = [
        Request(prompt_ids=tuple(range(1, 5 + 9 * g)), sample_ids=tuple(range(9 * g, 9 * g + 9)))
        for g in range(3)
    ]
    params = SamplingParams(temperature=1.0, max_new_tokens=300, stop=("b>c", "e"))
    with torch.inference_mode():
        plain = ResidentEngine(model, ByteLetters(), slots=32).generate(requests, params, seed=3)
        engine = ResidentEngine(model, ByteLetters(), slots=32, drafts=num_drafts)
        mine = engine.generate(requests, params, seed=3)
        again = engine.generate(requests, params, seed=3)
    assert mine == plain
    assert again == plain
    assert engine.drafted.counts.accepted > 0
