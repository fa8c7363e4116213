"""FlexAttention within documents is attention with their mask, in values and gradients.

It has no backward of its own on a CPU. Where it is let, torch takes gradients by the dense form
that its kernels are held against; ``on_a_cpu`` lets it.
"""

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch.nn.attention import flex_attention as torchs

from pile_lightning.nn import flex_documents, masks
from pile_lightning.nn.attend import attend
from pile_lightning.nn.attention import AttentionConfig
from pile_lightning.nn.decoder import DecoderConfig
from pile_lightning.nn.stacking import StackedKernels
from pile_lightning.parallel import recompute_blocks

# the compiler looks at attributes that warn of it
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(flex_documents, "_DEVICES", {"cpu"})
    monkeypatch.setattr(flex_documents, "_DTYPES", {torch.float32})
    monkeypatch.setattr(torchs, "_validate_device", lambda *_: None)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(function):
    return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)


def documents_of(seq, *, share=0.01):
    """One row of one document, and two of many."""
    ids = (torch.rand(3, seq) < share).cumsum(1)
    ids[0] = 0
    return masks.Documents.of(ids)


def with_blocks(documents):
    return documents._replace(blocks=flex_documents.block_mask(documents.first))


@pytest.mark.parametrize("seq", [1, 100, 128, 300, 512, 1000])
@pytest.mark.parametrize("share", [0.003, 0.03, 1.0])
def test_blocks_are_those_that_torch_finds_in_the_mask(seq, share):
    documents = documents_of(seq, share=share)
    ours = flex_documents.block_mask(documents.first)
    theirs = torchs.create_block_mask(ours.mask_mod, 3, None, seq, seq, device="cpu")
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    for row, query in ((1, 0), (2, ours.full_kv_num_blocks.shape[-1] - 1)):
        count = ours.full_kv_num_blocks[row, 0, query]
        whole, known = (m.full_kv_indices[row, 0, query, :count] for m in (ours, theirs))
        assert sorted(whole) == sorted(known)
    seen = torchs.create_mask(ours.mask_mod, 3, 1, seq, seq, device="cpu")
    assert torch.equal(seen, documents.allowed())


@pytest.mark.parametrize("seq", [100, 300])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_values_and_gradients_are_the_kernels(on_a_cpu, seq, kv_heads):
    documents = documents_of(seq, share=0.02)
    q = torch.randn(3, 4, seq, 16, requires_grad=True)
    k, v = (torch.randn(3, kv_heads, seq, 16, requires_grad=True) for _ in range(2))
    expected = F.scaled_dot_product_attention(
        q, k, v, attn_mask=documents.allowed(), enable_gqa=True
    )
    out = compiled(flex_documents.flex_documents)(
        q, k, v, documents.first, flex_documents.block_mask(documents.first)
    )
    torch.testing.assert_close(out, expected)
    direction = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, (q, k, v), direction),
        torch.autograd.grad(expected, (q, k, v), direction),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_inductors_own_kernel_gives_the_same():
    documents = documents_of(300)
    q, k, v = torch.randn(3, 3, 2, 300, 16)
    blocks = flex_documents.block_mask(documents.first)
    with torch.no_grad():
        out = torch.compile(flex_documents.flex_documents)(q, k, v, documents.first, blocks)
    torch.testing.assert_close(out, attend(q, k, v, documents))


@pytest.mark.parametrize(
    ("dtype", "head_dim", "taken"),
    [(torch.bfloat16, 16, True), (torch.float32, 16, False), (torch.bfloat16, 8, False)],
)
def test_only_what_it_has_kernels_for_takes_it(monkeypatch, dtype, head_dim, taken):
    monkeypatch.setattr(flex_documents, "_DEVICES", {"cpu"})
    called = []

    def stand_in(q, k, v, first, blocks):
        called.append(blocks)
        return q

    monkeypatch.setattr("pile_lightning.nn.attend.flex_documents", stand_in)
    monkeypatch.setattr("pile_lightning.nn.attend.suits_causal_blocks", lambda q: False)
    documents = with_blocks(documents_of(64))
    q, k, v = torch.randn(3, 3, 2, 64, head_dim, dtype=dtype)
    attend(q, k, v, documents)
    assert not called  # not compiled
    torch.compile(attend, backend="eager")(q, k, v, documents)
    assert bool(called) == taken


def make_network(kernel):
    torch.manual_seed(0)
    attention = AttentionConfig(num_heads=2, num_kv_heads=1, documents=kernel)
    config = DecoderConfig(d_model=32, num_layers=2, attention=attention)
    return config.build(vocab_size=50, max_seq_len=200)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_a_network_trains_as_with_a_mask_and_compiles_once(on_a_cpu, monkeypatch, recompute):
    monkeypatch.setattr("pile_lightning.nn.attend.suits_causal_blocks", lambda q: False)
    by_mask, by_flex = make_network("mask"), make_network("flex")
    recompute_blocks(by_flex, recompute)
    by_flex.make_uniform()
    for block in by_flex.blocks:
        block.compile(backend="aot_eager")
    counts, graphs = torch._dynamo.utils.counters["stats"], []
    for _ in range(3):
        ids, documents = torch.randint(50, (3, 200)), documents_of(200, share=0.02).first
        outs = [each(ids, document_ids=documents) for each in (by_mask, by_flex)]
        torch.testing.assert_close(outs[1], outs[0])
        direction = torch.randn_like(outs[0])
        grads = [
            torch.autograd.grad(out, list(each.parameters()), direction)
            for out, each in zip(outs, (by_mask, by_flex), strict=True)
        ]
        torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)
        graphs.append(counts["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2] > 0


@pytest.mark.parametrize(("recompute", "times"), [("selective", 0), ("full", 1)])
def test_what_was_attended_is_computed_again_in_full_alone(on_a_cpu, monkeypatch, recompute, times):
    monkeypatch.setattr("pile_lightning.nn.attend.suits_causal_blocks", lambda q: False)
    seen = []

    def backward(graph, inputs):
        targets = [node.target for node in graph.graph.nodes]
        seen.append(targets.count(torch.ops.higher_order.flex_attention))
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward),
        bw_compiler=backward,
        partition_fn=min_cut_rematerialization_partition,
    )
    network = make_network("flex")
    recompute_blocks(network, recompute)
    network.make_uniform()
    network.blocks[0].compile(backend=backend)
    ids, documents = torch.randint(50, (3, 200)), documents_of(200).first
    network(ids, document_ids=documents).sum().backward()
    assert seen == [times]


def test_stacked_networks_take_the_mask():
    documents = with_blocks(documents_of(64))
    q, k, v = torch.randn(3, 2, 3, 2, 64, 16)  # of two members

    def one(q, k, v):
        return flex_documents.flex_documents(q, k, v, documents.first, documents.blocks)

    with StackedKernels():
        out = torch.vmap(one)(q, k, v)
    expected = torch.stack([attend(*member, documents) for member in zip(q, k, v, strict=True)])
    torch.testing.assert_close(out, expected)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="documents='triton' is unknown; choose one of 'flex'"):
        AttentionConfig(documents="triton")
