"""What rounding the weights of a run costs its held-out text, and what it saves.

    python tests/benchmarks/rounding.py runs/quickstart

The run's best checkpoint scores its held-out text with weights of each kind, as ``pile generate``
has them with ``--precision`` and ``--quantize``. Memory is of all weights: tables and embeddings
stay in the wider type, int8 has a scale for each row, and a head that is tied to its embedding is
held beside it, laid out for its products.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor, nn

from pile_lightning import TextData
from pile_lightning.batch import TokenBatch
from pile_lightning.cli.data_config import DataParser, add_data_arguments, make_data
from pile_lightning.cli.generate import load_run
from pile_lightning.nn.packed import PackedLinear
from tests.benchmarks.quality.scoring import bits_per_byte

KINDS = {
    "float32": {"dtype": torch.float32},
    "bf16": {"dtype": torch.bfloat16},
    "int8, the rest float32": {"dtype": torch.float32, "quantize": "int8"},
    "int8, the rest bf16": {"dtype": torch.bfloat16, "quantize": "int8"},
}


def data_of(run: Path) -> TextData:
    """Return the data module of a run, prepared."""
    parser = DataParser()
    add_data_arguments(parser)
    data = make_data(parser, parser.parse_args(["--config", str(run / "config.yaml")]))
    if not isinstance(data, TextData):
        raise SystemExit(f"{run} streams its text; give a run with prepared data")
    data.prepare_data()
    return data


def megabytes(network: nn.Module) -> float:
    """Return the size of the weights, each tensor once."""
    held = {
        id(tensor): tensor
        for module in network.modules()
        for tensor in (
            [module.weight]
            if isinstance(module, PackedLinear)
            else [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        )
    }
    return sum(tensor.nbytes for tensor in held.values()) / 1e6


def measure(run: Path, kind: str, data: TextData, batches: int | None) -> tuple[float, float]:
    """Return the size of the weights in MB, and bits per byte."""
    model = load_run(run)
    model.optimize_for_inference(**KINDS[kind])
    network = model.built_network

    def logits(batch: TokenBatch) -> Tensor:
        where = {name: batch[name] for name in ("position_ids", "document_ids")}
        out: Tensor = network(batch["input_ids"], **where)
        return out.float()

    return megabytes(network), bits_per_byte(
        logits, data, context=data.seq_len, max_batches=batches
    )


def main() -> None:
    """Print a line for each kind of weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--batches", type=int, help="score less, for a trial")
    arguments = parser.parse_args()
    # the layers that take the place of others are not for the compiler
    torch.compiler.set_stance("force_eager")
    data = data_of(arguments.run)
    print("| weights | MB | bits per byte |\n|---|---|---|")
    for kind in arguments.kinds:
        size, bits = measure(arguments.run, kind, data, arguments.batches)
        print(f"| {kind} | {size:.1f} | {bits:.4f} |", flush=True)


if __name__ == "__main__":
    main()
