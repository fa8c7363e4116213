"""Run under the peers' Python: what litgpt's network, as it was saved, gives to held-out rows.

    python litgpt_nats.py out/final rows.npz nats.npz

``rows.npz`` has ``input_ids`` and ``labels`` (rows, seq), -100 where nothing is predicted;
``nats.npz`` gets ``nats`` (rows), summed over a row in float32, and counts of ``parameters``.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


@torch.inference_mode()
def main() -> None:
    # not above: whoever looks at this file need not have it
    from litgpt.model import GPT, Config

    saved, rows, out = map(Path, sys.argv[1:])
    weights = torch.load(saved / "lit_model.pth", map_location="cpu", weights_only=False)["model"]
    network = GPT(Config.from_file(saved / "model_config.yaml"))
    network.lm_head.weight = network.transformer.wte.weight
    network.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in weights.items()})
    network.float().eval()
    given = np.load(rows)
    ids, labels = (torch.from_numpy(given[name]) for name in ("input_ids", "labels"))
    nats = [
        F.cross_entropy(network(some).flatten(0, 1), wanted.flatten(), reduction="none")
        .view_as(wanted)
        .sum(dim=1)
        for some, wanted in zip(ids.split(8), labels.split(8), strict=True)
    ]
    np.savez(
        out,
        nats=torch.cat(nats).numpy(),
        parameters=sum(each.numel() for each in network.parameters()),
        looked_up=network.transformer.wte.weight.numel(),
    )


if __name__ == "__main__":
    main()
