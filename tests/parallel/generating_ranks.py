"""Run by ``test_generating`` on two ranks over gloo: what a network that is spread out generates.

Prints a line of JSON for each layout and network: whether its tokens are those of one process.
"""

import json
import sys
from functools import partial

import torch
import torch.distributed as dist

from pile_lightning import DecoderConfig
from pile_lightning.nn import (
    AttentionConfig,
    FeedForwardConfig,
    MatchesConfig,
    ShortConvConfig,
    ShortcutsConfig,
    TablesConfig,
    complete,
    generate,
    optimize_for_inference,
)
from pile_lightning.parallel import Layout, build_network, build_sharded

VOCAB, SEQ = 50, 16
TEXTS = [[3, 1, 4, 1, 5], [9], [2, 6], [5, 3, 5, 8, 9, 7, 9, 3]]
NETWORKS = {
    "default": DecoderConfig(d_model=32, num_layers=2),
    "llama": DecoderConfig(
        d_model=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2),
        feed_forward=FeedForwardConfig(activation="silu", gated=True, d_ff=48),
        tie_embeddings=False,
        tables=TablesConfig(ngram_rows=(64,)),
        shortcuts=ShortcutsConfig(),
        short_conv=ShortConvConfig(size=3, queries=True, values=True, inputs=True),
        matches=MatchesConfig(lengths=(1, 2)),
        logit_cap=3.0,
    ),
}
LAYOUTS = {"shard 2": Layout(shard=2), "tensor 2": Layout(tensor=2)}


@torch.no_grad()
def fill(network):
    """Give every parameter a value that matters: output projections start at zero."""
    for number, parameter in enumerate(network.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def drawn(network):
    """Return tokens past the context, drawn and likeliest, and of rows that come and go."""
    prompts = [torch.tensor(text) for text in TEXTS]
    found = []
    for temperature in (0, 1.0):
        settings = {"generator": torch.Generator().manual_seed(5), "temperature": temperature}
        tokens = generate(network, prompts, max_new_tokens=20, **settings)
        found.append(torch.stack(list(tokens), dim=1).tolist())
    settings = {"max_new_tokens": 12, "batch_size": 2, "ended": lambda _, token: token < 8}
    return [*found, sorted(complete(network, TEXTS, **settings))]


def compare(name, layout):
    build = partial(NETWORKS[name].build, vocab_size=VOCAB, max_seq_len=SEQ)

    def filled():
        network = build()
        fill(network)
        return network

    one = build_network(filled)
    expected = drawn(one)
    shape = LAYOUTS[layout]
    torch.manual_seed(1)
    mesh, device = shape.mesh("cpu"), torch.device("cpu")
    many = build_sharded(build, layout=shape, mesh=mesh, device=device)
    with torch.no_grad():
        for whole, part in zip(one.parameters(), many.parameters(), strict=True):
            part.copy_(
                torch.distributed.tensor.distribute_tensor(
                    whole.detach(), part.device_mesh, part.placements
                )
                if isinstance(part, torch.distributed.tensor.DTensor)
                else whole
            )
    try:
        optimize_for_inference(many)
        said = ""
    except ValueError as error:
        said = str(error)
    return {"network": name, "layout": layout, "same": drawn(many) == expected, "said": said}


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = [compare(name, layout) for name in NETWORKS for layout in LAYOUTS]
    if dist.get_rank() == 0:
        for case in found:
            print(json.dumps(case))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
