"""Compiled, stacked blocks share their graphs and compute the same."""

import copy
from functools import partial

import pytest
import torch

from pile_lightning.modules.stacked import Stack, regions
from tests.modules.members import (
    NETWORKS,
    assert_same_gradients,
    make_batch,
    make_members,
    of_losses,
)


@pytest.fixture
def traced(monkeypatch):
    """A compiler that traces as the real one does, and runs what it traced as it is written."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    regions.compiled.cache_clear()
    yield
    regions.compiled.cache_clear()
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_all_layers_and_members_share_a_graph_for_each_kind_of_batch(traced):
    members = make_members(network=NETWORKS["decoder"])
    alone = copy.deepcopy(members)
    stack = Stack(members, compile=True)
    for packed in (False, True):
        stack(of_losses(make_batch(packed=packed))).sum().backward()
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    with torch.compiler.set_stance("fail_on_recompile"):
        for number, packed in enumerate((True, False, True)):
            for member in members:
                member.zero_grad()
            batch = make_batch(packed=packed, seed=number)
            losses = stack(of_losses(batch))
            losses.sum().backward()
    for member, loss in zip(alone, losses.detach(), strict=True):
        own = member.loss_sum(batch)
        own.backward()
        torch.testing.assert_close(loss, own.detach(), rtol=1e-6, atol=0)
    assert_same_gradients(members, alone)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", ["another decoder", "pile", "own"])
def test_compiled_any_network_computes_what_it_does_alone(name, traced):
    members = make_members(network=NETWORKS[name])
    alone = copy.deepcopy(members)
    batch = make_batch()
    Stack(members, compile=True)(of_losses(batch)).sum().backward()
    for member in alone:
        member.loss_sum(batch).backward()
    assert_same_gradients(members, alone)
