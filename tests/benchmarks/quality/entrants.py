"""Systems of (nearly) as many parameters, each ready to be given a learning rate and a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.quality.ours import Ours
from tests.benchmarks.quality.trained import Candidate

__all__ = ["OURS", "PEERS", "Entrant", "Scale", "our_entrant", "our_tables", "peer_entrant"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The network that all have, as far as each can."""

    d_model: int = 256
    """Width."""
    num_layers: int = 4
    """Blocks."""
    seq_len: int = 256
    """Positions of a row."""
    compile: bool = True
    """Whether it is compiled by whoever leaves the choice; litgpt does not."""

    @property
    def heads(self) -> int:
        """Heads of the peers' attention: 64 wide."""
        return max(1, self.d_model // 64)


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A row of the table."""

    name: str
    """What it is called."""
    rates: tuple[float, ...]
    """Learning rates to begin with."""
    make: Callable[[float, int], Candidate]
    """From a learning rate and rows of a batch."""


def our_tables(scale: Scale, vocab_size: int) -> dict[str, dict[str, Any]]:
    """Return what sets our rows apart, by the network's fields.

    Look-up tables are parameters: the second row has none, and the third is narrower by a quarter,
    its table of token pairs being as large as that leaves room for.
    """
    narrow = 3 * scale.d_model // 4

    def without(width: int) -> int:
        return 12 * scale.num_layers * width**2 + vocab_size * width

    rows = (without(scale.d_model) - without(narrow)) // narrow
    tables = {"ngram_rows": [rows], "value_layers": 0}
    return {
        "ours": {},
        "no_tables": {"tables": None},
        "narrower": {"d_model": narrow, "tables": tables},
    }


OURS = {
    "ours": "ours",
    "no_tables": "ours, no tables",
    "narrower": "ours, narrower with a table",
}
"""Our rows, and what they are called."""


def our_entrant(
    name: str,
    *,
    config: str,
    changes: Mapping[str, Any],
    scale: Scale,
    vocab_size: int,
    rates: Sequence[float],
    shared: Mapping[str, Any],
) -> Entrant:
    """Return one of our rows: ``config`` at that scale; the rate is that of the matrices."""
    network = {"d_model": scale.d_model, "num_layers": scale.num_layers}
    network |= our_tables(scale, vocab_size)[name]
    fields = {f"model.init_args.network.init_args.{n}": value for n, value in network.items()}
    fields |= {
        "data.init_args.seq_len": scale.seq_len,
        "data.init_args.short_rows": None,
        "data.init_args.val_stride": max(1, scale.seq_len // 2),
        "model.init_args.compile": scale.compile,
    }

    def make(rate: float, batch_size: int) -> Candidate:
        own = {
            "model.init_args.optimizer.init_args.lr": rate,
            "data.init_args.batch_size": batch_size,
        }
        return Ours(
            settings=config, changes={**changes, **fields, **own}, system=OURS[name], **shared
        )

    return Entrant(name=OURS[name], rates=tuple(rates), make=make)


def nano_gpt_settings(scale: Scale, rate: float, batch_size: int) -> str:
    """Write the settings of nanoGPT."""
    return (
        f"n_embd={scale.d_model} n_layer={scale.num_layers} n_head={scale.heads} "
        f"block_size={scale.seq_len} compile={scale.compile} "
        f"batch_size={batch_size} learning_rate={rate}"
    )


def llama_settings(scale: Scale, rate: float, batch_size: int) -> str:
    """Write the settings of a Llama of litgpt's."""
    return (
        f"d_model={scale.d_model} layers={scale.num_layers} heads={scale.heads} "
        f"seq_len={scale.seq_len} batch_size={batch_size} lr={rate}"
    )


def trainer_settings(scale: Scale, rate: float, batch_size: int) -> str:
    """Write the settings of a Llama under Hugging Face's Trainer."""
    return f"{llama_settings(scale, rate, batch_size)} compile={scale.compile}"


PEERS: dict[str, Callable[[Scale, float, int], str]] = {
    "nanogpt": nano_gpt_settings,
    "hugging_face": trainer_settings,
    "litgpt": llama_settings,
}
"""How the scale is written for each of the others."""


def peer_entrant(
    name: str, maker: Callable[..., Candidate], *, scale: Scale, rates: Sequence[float]
) -> Entrant:
    """Return the row of another system, ``maker`` being what takes its settings."""

    def make(rate: float, batch_size: int) -> Candidate:
        return maker(settings=PEERS[name](scale, rate, batch_size))

    return Entrant(name=make(rates[0], 1).system, rates=tuple(rates), make=make)
