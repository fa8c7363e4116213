"""Run by ``test_sharded`` on four ranks over gloo: networks spread in every way, beside one whole.

Prints a line of JSON for each case: what was compared, and by how much it differs at most. With
``all``, each network in each layout with each optimizer, else each of them once.
"""

import json
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from pile_lightning import DecoderConfig, NetworkConfig
from pile_lightning.nn import (
    AttentionConfig,
    Decoder,
    FeedForwardConfig,
    MatchesConfig,
    PileConfig,
    ShortConvConfig,
    ShortcutsConfig,
    TablesConfig,
    cross_entropy_sum,
    linear_cross_entropy,
)
from pile_lightning.optim import AdamWConfig, MuonConfig, muon
from pile_lightning.parallel import Layout, build_network, build_sharded, clip_by_norm

VOCAB, SEQ, ROWS = 51, 16, 8


class Mine(nn.Module):
    """A network of a user's own: weights of its own making, and a plan."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, 12)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, VOCAB)

    def forward(self, input_ids, *, position_ids=None, document_ids=None):
        return self.down(self.up(self.table(input_ids)).relu())

    def tensor_plan(self):
        return {"up": ColwiseParallel(), "down": RowwiseParallel()}


@dataclass(frozen=True, kw_only=True)
class MineConfig(NetworkConfig):
    def build(self, *, vocab_size, max_seq_len):
        return Mine()


NETWORKS = {
    "default": DecoderConfig(d_model=32, num_layers=3),
    "llama": DecoderConfig(
        d_model=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, bias=True),
        feed_forward=FeedForwardConfig(activation="silu", gated=True, d_ff=48, bias=True),
        tie_embeddings=False,
        tables=TablesConfig(ngram_rows=(64,), value_layers=1),
        shortcuts=ShortcutsConfig(),
        short_conv=ShortConvConfig(size=3, queries=True, values=True, inputs=True),
        matches=MatchesConfig(lengths=(1, 2)),
        logit_cap=4.0,
    ),
    "pile": PileConfig(d_model=32, num_heads=2, num_layers=2, dropout=0.0),
    "mine": MineConfig(),
}
LAYOUTS = {
    "shard 4": Layout(shard=4),
    "replicate 2 x shard 2": Layout(replicate=2, shard=2),
    "shard 2 x tensor 2": Layout(shard=2, tensor=2),
    "replicate 2 x tensor 2": Layout(replicate=2, tensor=2),
}
OPTIMIZERS = {"adamw": AdamWConfig(eps=1e-3), "muon": MuonConfig(eps=1e-3)}


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differ(one, other):
    return max(
        (whole(a).detach() - whole(b).detach()).abs().max().item()
        for a, b in zip(one, other, strict=True)
    )


def loss(network, ids, labels):
    if isinstance(network, Decoder):
        hidden, weight = network.hidden(ids), network.head_weight
        settings = {"chunk_size": 7, "logit_cap": network.logit_cap, "z_loss": 0.02}
        return linear_cross_entropy(hidden, weight, labels, **settings)
    return cross_entropy_sum(network(ids), labels)


def gradients(network):
    return [parameter.grad for parameter in network.parameters()]


def train(network, optimizer, *, rank, num_ranks):
    """Take three steps of one global batch each, of which this rank has its rows."""
    norms = []
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(VOCAB, (ROWS, SEQ), generator=generator)
        labels = torch.randint(VOCAB, (ROWS, SEQ), generator=generator)
        rows = slice(rank * ROWS // num_ranks, (rank + 1) * ROWS // num_ranks)
        optimizer.zero_grad()
        # FSDP takes means over ranks, so that the sums of rows are too small by their number
        (loss(network, ids[rows], labels[rows]) * num_ranks / labels.numel()).backward()
        norms.append(clip_by_norm(gradients(network), 0.5))
        optimizer.step()
    return norms


def compare(name, layout, optimizer):
    config, shape = NETWORKS[name], LAYOUTS[layout]
    mesh = shape.mesh("cpu")
    build = partial(config.build, vocab_size=VOCAB, max_seq_len=SEQ)
    torch.manual_seed(1)
    one = build_network(build)
    torch.manual_seed(1)
    many = build_sharded(build, layout=shape, mesh=mesh, device=torch.device("cpu"))
    drawn = differ(one.parameters(), many.parameters())
    data_rank = dist.get_rank() // shape.tensor
    norms = train(one, OPTIMIZERS[optimizer].build(one), rank=0, num_ranks=1)
    their_norms = train(
        many,
        OPTIMIZERS[optimizer].build(many),
        rank=data_rank,
        num_ranks=shape.replicate * shape.shard,
    )
    ids = torch.arange(ROWS * SEQ).view(ROWS, SEQ) % VOCAB
    parts = [
        p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in many.parameters()
    ]
    return {
        "network": name,
        "layout": layout,
        "optimizer": optimizer,
        "drawn": drawn,
        "trained": differ(one.parameters(), many.parameters()),
        "norm": max(abs(a - b).item() / b.item() for a, b in zip(their_norms, norms, strict=True)),
        "logits": differ([one(ids)], [many(ids)]),
        "share": sum(parts) / sum(p.numel() for p in one.parameters()),
    }


def recompute(how, layout):
    """Return by how much the gradients differ from those of a network that keeps everything."""
    build = partial(NETWORKS["llama"].build, vocab_size=VOCAB, max_seq_len=SEQ)
    ids = torch.arange(ROWS * SEQ).view(ROWS, SEQ) % VOCAB
    found = []
    for each in ("none", how):
        torch.manual_seed(1)
        network = build_sharded(
            build,
            layout=layout,
            mesh=layout.mesh("cpu"),
            device=torch.device("cpu"),
            recompute=each,
        )
        loss(network, ids, ids).backward()
        found.append(gradients(network))
    return differ(*found)


FEW = [
    ("default", "shard 4", "adamw"),
    ("llama", "shard 2 x tensor 2", "muon"),
    ("pile", "replicate 2 x tensor 2", "adamw"),
    ("mine", "replicate 2 x shard 2", "muon"),
    ("mine", "shard 2 x tensor 2", "adamw"),
]


class Forgetful(nn.Linear):
    """Inherits a ``reset_parameters`` that knows nothing of what it adds."""

    def __init__(self):
        super().__init__(4, 4)
        self.more = nn.Linear(4, 4)


class Buffered(nn.Linear):
    """Has a buffer that only its constructor fills."""

    def __init__(self):
        super().__init__(4, 4)
        self.register_buffer("mask", torch.ones(4, 4).tril(), persistent=False)


def refuse(shape):
    """Return what is said of a network that could not be filled, and what is in a buffer."""
    settings = {"layout": shape, "mesh": shape.mesh("cpu"), "device": torch.device("cpu")}
    try:
        build_sharded(Forgetful, **settings)
        said = ""
    except ValueError as error:
        said = str(error)
    return {"said": said, "mask": build_sharded(Buffered, **settings).mask.sum().item()}


def main():
    torch.set_num_threads(1)
    # of FSDP2, about a network that returns a view, which this loss does not change in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    muon.has_fast_bfloat16 = lambda device: False  # bf16 would hide what is compared
    dist.init_process_group("gloo")
    cases = product(NETWORKS, LAYOUTS, OPTIMIZERS) if "all" in sys.argv else FEW
    found = [compare(*case) for case in cases]
    found += [
        {"recompute": how, "layout": layout, "gradients": recompute(how, LAYOUTS[layout])}
        for how in ("selective", "full")
        for layout in ("shard 4", "shard 2 x tensor 2")
    ]
    found.append(refuse(LAYOUTS["shard 4"]))
    if dist.get_rank() == 0:
        for case in found:
            print(json.dumps(case))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
