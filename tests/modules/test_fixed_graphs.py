"""Compiled, a step is made of whole graphs, and of the same ones from the second batch on."""

from functools import partial, partialmethod

import pytest
import torch
from torch import nn

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.batch import without_needless_mask
from pile_lightning.nn import (
    AttentionConfig,
    MatchesConfig,
    ShortConvConfig,
    ShortcutsConfig,
    TablesConfig,
    chunk_softmax,
)
from pile_lightning.optim import AdamWConfig
from pile_lightning.parallel import RECOMPUTE

# the compiler looks at attributes that warn of it
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture
def traced(monkeypatch):
    """A compiler that traces as the real one does, and runs what it traced as it is written."""
    compile_in_place = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", partialmethod(compile_in_place, backend="aot_eager"))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    chunk_softmax.compiled_pass.cache_clear()
    yield
    chunk_softmax.compiled_pass.cache_clear()
    torch.compiler.reset()


def make_batch(*, packed, rows=4):
    ids = torch.randint(50, (rows, 33))
    documents = torch.zeros(rows, 32, dtype=torch.long)
    if packed:
        documents[1, 20:] = 1
    positions = torch.arange(32).repeat(rows, 1) - 20 * documents
    return {
        "input_ids": ids[:, :-1],
        "labels": ids[:, 1:].contiguous(),
        "position_ids": positions,
        "document_ids": documents,
    }


def make_steps(model):
    network = model.built_network
    optimizer = AdamWConfig().build(network)

    def step(*, packed, rows=4):
        batch = without_needless_mask(make_batch(packed=packed, rows=rows))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss_sum(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "z_loss"),
    [
        ({}, 0.0),
        ({"shortcuts": ShortcutsConfig(), "logit_cap": 15.0}, 1e-4),
        ({"short_conv": ShortConvConfig()}, 0.0),
        ({"matches": MatchesConfig()}, 0.0),
    ],
)
def test_no_graph_breaks_and_none_is_made_after_the_first_of_each_kind_of_batch(
    traced, more, z_loss
):
    torch._dynamo.utils.counters.clear()
    network = DecoderConfig(
        d_model=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2),
        tables=TablesConfig(),
        **more,
    )
    model = CausalLM(network, vocab_size=50, max_seq_len=32, compile=True, z_loss=z_loss)
    step = make_steps(model)
    for packed in (False, True):
        step(packed=packed)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        for packed in (True, False, False, True):
            step(packed=packed)
        with pytest.raises(RuntimeError, match="recompile"):  # so it would have been told
            step(packed=False, rows=3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_on_a_cpu_packed_rows_take_the_graph_of_rows_of_one_document(traced):
    torch._dynamo.utils.counters.clear()
    step = make_steps(
        CausalLM(DecoderConfig(d_model=32), vocab_size=50, max_seq_len=32, compile=True)
    )
    step(packed=False)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.compiler.set_stance("fail_on_recompile"):
        step(packed=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0


@pytest.mark.slow
@pytest.mark.parametrize("tables", [None, TablesConfig(value_layers=1)])
def test_all_blocks_share_their_graphs(traced, tables):
    torch._dynamo.utils.counters.clear()
    counts = []
    for num_layers in (1, 3):
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        network = DecoderConfig(d_model=32, num_layers=num_layers, tables=tables)
        step = make_steps(CausalLM(network, vocab_size=50, max_seq_len=32, compile=True))
        step(packed=False)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_blocks_that_compute_again_are_compiled_as_others_are(traced):
    graphs, grads = [], []
    for recompute in RECOMPUTE:
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        model = CausalLM(
            DecoderConfig(d_model=32),
            vocab_size=50,
            max_seq_len=32,
            compile=True,
            activation_checkpointing=recompute,
        )
        for _ in range(2):
            model.loss_sum(without_needless_mask(make_batch(packed=True))).backward()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert not torch._dynamo.utils.counters["graph_break"]
        grads.append([parameter.grad for parameter in model.parameters()])
    assert graphs == [2] * 6  # one of the loss, one for all blocks
    for others in grads[1:]:
        torch.testing.assert_close(others, grads[0])


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_one_document_each_lose_a_mask_that_they_do_not_need(packed):
    model = CausalLM(DecoderConfig(d_model=32), vocab_size=50, max_seq_len=32)
    nn.init.normal_(model.built_network.blocks[0].attention.out.weight)
    batch = make_batch(packed=packed)
    expected = model.token_nll(batch)
    lighter = without_needless_mask(batch)
    assert (lighter["document_ids"] is None) == (not packed)
    torch.testing.assert_close(model.token_nll(lighter), expected)


@pytest.mark.slow
def test_each_of_many_unlike_models_is_compiled(traced):
    """Torch would stop at eight shapes of one function."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    counts = []
    for d_model in range(16, 64, 4):
        network = DecoderConfig(
            d_model=d_model, num_layers=1, attention=AttentionConfig(num_heads=1)
        )
        step = make_steps(CausalLM(network, vocab_size=50, max_seq_len=32, compile=True))
        step(packed=False)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts == sorted(set(counts))
