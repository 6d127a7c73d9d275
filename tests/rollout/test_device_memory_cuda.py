"""Memory that comes and goes behind one address."""

import pytest
import torch

from pellucid.errors import UserError
from pellucid.model.spec import ModelSpec
from pellucid.rollout.arena import ArenaSize, KVArena, KVStore
from pellucid.rollout.device_memory import CHUNK_BYTES, FixedBuffer, can_give_back

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def device():
    device = torch.device("cuda")
    torch.cuda.init()
    if not can_give_back(device):
        pytest.skip("cuda.bindings is not installed, or the driver cannot map memory")
    return device


def free():
    torch.cuda.synchronize()
    return torch.cuda.mem_get_info()[0]


def test_a_captured_graph_still_runs_after_its_memory_was_elsewhere(device):
    buffer = FixedBuffer.make((4, 1000, 7), torch.bfloat16, device)
    tensor, out = buffer.tensor, torch.zeros(4, 1000, 7, dtype=torch.bfloat16, device=device)
    address = tensor.data_ptr()
    tensor.fill_(3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out.copy_(tensor * 2)
        tensor.add_(1)
    graph.replay()
    assert out.unique().tolist() == [6]
    assert tensor.unique().tolist() == [4]

    buffer.give_back()
    assert not buffer.is_mapped
    poison = torch.full((64 << 20,), float("nan"), device=device)
    buffer.take()
    assert buffer.tensor.data_ptr() == address
    tensor.fill_(5)
    graph.replay()
    assert out.unique().tolist() == [10]
    assert tensor.unique().tolist() == [6]
    assert bool(poison.isnan().all())


def test_memory_is_really_given_back_and_taken(device):
    size = 2 * CHUNK_BYTES + (5 << 20)  # three pieces, the last one small
    before = free()
    buffer = FixedBuffer.make((size,), torch.uint8, device)
    assert before - free() >= size
    buffer.tensor[-1] = 7
    assert buffer.tensor[-1].item() == 7
    buffer.give_back()
    assert before - free() < 32 << 20
    buffer.give_back()  # a second time changes nothing
    buffer.take()
    buffer.take()
    assert before - free() >= size
    del buffer
    assert before - free() < 32 << 20


def test_a_tensor_keeps_its_memory_when_the_buffer_is_gone(device):
    tensor = FixedBuffer.make((1 << 20,), torch.float32, device).tensor
    tensor.fill_(2)
    assert tensor.sum().item() == 2 << 20


def test_memory_held_by_torch_goes_back_before_a_buffer_fails(device):
    half = free() // 2
    buffer = FixedBuffer.make((int(1.2 * half),), torch.uint8, device)
    buffer.give_back()
    hog = torch.empty(int(1.2 * half), dtype=torch.uint8, device=device)
    with pytest.raises(UserError, match=r"need .* GiB, .* GiB are free"):
        buffer.take()
    assert not buffer.is_mapped
    del hog  # now torch's, unused
    buffer.take()
    assert buffer.is_mapped
    buffer.give_back()
    torch.cuda.empty_cache()


def test_an_arena_lends_its_memory(device):
    spec = ModelSpec(
        family="llama", vocab_size=8, width=64, num_layers=2, num_heads=2, num_kv_heads=2,
        head_dim=32, ffn_width=64,
    )  # fmt: skip
    size = ArenaSize(prompt_tokens=512, slots=16, own=512)
    store = KVStore(size.num_bytes(spec, 2), device, is_shared=True)
    arena = KVArena(spec, size, torch.bfloat16, store)
    addresses = arena.prompts.data_ptr(), arena.own.data_ptr()
    assert all(address % 256 == 0 for address in addresses)
    assert store.can_suspend
    assert store.held_bytes == arena.num_bytes == size.num_bytes(spec, 2)
    store.suspend()
    assert store.held_bytes == 0
    store.resume()
    arena.own.fill_(1)
    arena.prompts.fill_(2)
    assert (arena.own.float().mean().item(), arena.prompts.float().mean().item()) == (1, 2)
    assert (arena.prompts.data_ptr(), arena.own.data_ptr()) == addresses
