"""What one layout of ranks saved, any other loads: bit for bit, each part written once."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from pile_lightning.checkpoint import load_shards, read_whole, save_shards
from pile_lightning.checkpoint.manifest import Manifest
from tests.checkpoint.worlds import in_ranks, world

pytestmark = pytest.mark.dist

LAYOUTS = {
    # ranks, then the sizes of replicate, shard, tensor
    "alone": (1, 1, 1, 1),
    "fsdp2": (2, 1, 2, 1),
    "fsdp4": (4, 1, 4, 1),
    "tensor2": (2, 1, 1, 2),
    "tensor4": (4, 1, 1, 4),
    "fsdp2 x tensor2": (4, 1, 2, 2),
    "hybrid": (4, 2, 2, 1),
}


class Net(nn.Module):
    """Widths that no number of ranks divides, a scalar, and a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(5, 12)
        self.down = nn.Linear(12, 7)
        self.norm = nn.LayerNorm(7)
        self.short = nn.Linear(7, 1)
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        return self.short(self.norm(self.down(F.gelu(self.up(x)))))


def build(layout, seed):
    _, replicate, shard, tensor = LAYOUTS[layout]
    torch.manual_seed(seed)
    net = Net()
    if layout != "alone":
        mesh = init_device_mesh(
            "cpu", (replicate, shard, tensor), mesh_dim_names=("replicate", "shard", "tensor")
        )
        if tensor > 1:
            plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            parallelize_module(net, mesh["tensor"], plan)
        if replicate > 1:
            fully_shard(net, mesh=mesh["replicate", "shard"])
        elif shard > 1:
            fully_shard(net, mesh=mesh["shard"])
    # no fused kernel: it refuses DTensors beside tensors
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1 * seed, foreach=False)
    for row in torch.randn(seed, 4, 5):
        net(row).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        net.seen += 1
    return net, optimizer


def state_of(net, optimizer):
    return {
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "global_step": int(net.seen),
        "loops": {"done": [1, 2], "best": None, 3: float("nan")},
    }


def full(state):
    """The state with whole tensors, as torch itself gathers them."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {key: full(value) for key, value in state.items()}
    return [full(value) for value in state] if isinstance(state, list) else state


def assert_same(one, two):
    assert type(one) is type(two) or isinstance(one, dict)
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert_same(first, second)
    else:
        assert one == two or (one != one and two != two)


def save_and_load(rank, folder, pairs):
    for writer in dict.fromkeys(writer for writer, _ in pairs):
        with world(folder, f"save {writer}", rank, LAYOUTS[writer][0]) as taking_part:
            if taking_part:
                state = state_of(*build(writer, seed=1))
                save_shards(state, Path(folder, writer))
                whole = full(state)
                if rank == 0:
                    torch.save(whole, Path(folder, f"{writer}.pt"))
    for writer, reader in pairs:
        with world(folder, f"{writer} to {reader}", rank, LAYOUTS[reader][0]) as taking_part:
            if not taking_part:
                continue
            state = state_of(*build(reader, seed=2))
            expected = torch.load(Path(folder, f"{writer}.pt"), weights_only=True)
            assert not torch.equal(
                full(state["state_dict"]["up.weight"]), expected["state_dict"]["up.weight"]
            )
            load_shards(state, Path(folder, writer))
            assert_same(full(state), expected)


def check(tmp_path, pairs, processes):
    in_ranks(save_and_load, str(tmp_path), pairs, processes=processes)
    for writer in dict.fromkeys(writer for writer, _ in pairs):
        assert_same(
            read_whole(tmp_path / writer), torch.load(tmp_path / f"{writer}.pt", weights_only=True)
        )
        manifest = Manifest.read(tmp_path / writer)
        for tensor in manifest.tensors.values():
            parts = sum(chunk.box.num_elements for chunk in tensor.chunks)
            assert parts == torch.Size(tensor.shape).numel()


def test_one_layout_saves_and_another_loads(tmp_path):
    pairs = [
        ("fsdp2 x tensor2", "fsdp2"),
        ("tensor2", "hybrid"),
        ("alone", "fsdp4"),
    ]
    check(tmp_path, pairs, processes=4)


@pytest.mark.slow
def test_every_layout_loads_what_every_layout_saved(tmp_path):
    check(tmp_path, list(itertools.product(LAYOUTS, LAYOUTS)), processes=4)
