"""A model of a sweep and what it becomes at another width, each with the learning rates it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pile_lightning.cli.larger import Larger
from pile_lightning.cli.swept_run import SweptRun
from pile_lightning.nn import NetworkConfig
from pile_lightning.optim import OptimizerConfig, meant_for, parameter_roles, width_of

__all__ = ["Model", "model_of", "transferred"]

_ROLES = {
    "matrices": "matrices",
    "tables": "embeddings and head",
    "vectors": "gains and biases",
    "lookups": "look-up tables",
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a model is made with; nothing of it is in memory."""

    settings: Mapping[str, Any]
    """Of its class, as objects."""
    network: NetworkConfig
    """Of them."""
    optimizer: OptimizerConfig
    """Of them."""
    vocab_size: int
    """Token ids."""
    max_seq_len: int
    """Longest context."""

    def rates(self) -> dict[str, float]:
        """Return the learning rate that its optimizer gives parameters, by what they are."""
        with torch.device("meta"):
            network = self.network.build(vocab_size=self.vocab_size, max_seq_len=self.max_seq_len)
            groups = self.optimizer.build(network).param_groups
        rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
        roles = parameter_roles(network)._asdict()
        return {said: rate_of[id(roles[role][0])] for role, said in _ROLES.items() if roles[role]}

    def num_block_parameters(self) -> int:
        """Count the parameters but for tables and head: those that do not hang on the text."""
        with torch.device("meta"):
            network = self.network.build(vocab_size=self.vocab_size, max_seq_len=self.max_seq_len)
        roles = parameter_roles(network)
        return sum(p.numel() for p in (*roles.matrices, *roles.vectors))


def model_of(swept: SweptRun, name: str) -> Model:
    """Return a member of a sweep."""
    spec, sizes = (
        swept.spec(name),
        {
            "vocab_size": swept.vocab_size,
            "max_seq_len": swept.max_seq_len,
        },
    )
    module = spec.build(**sizes)
    return Model(
        settings=spec.settings,
        network=module.network_config,
        optimizer=module.optimizer_config,
        **sizes,
    )


def transferred(narrow: Model, larger: Larger) -> Model:
    """Return a model at another size, whose learning rates follow the width.

    At the same size it is the same.

    Raises:
        TypeError: For a network or an optimizer that does not know of widths.
        ValueError: For a size that cannot be.
    """
    network = larger.apply(narrow.network)
    if network == narrow.network:
        return narrow
    with torch.device("meta"):
        width = width_of(
            narrow.network.build(vocab_size=narrow.vocab_size, max_seq_len=narrow.max_seq_len)
        )
    optimizer = meant_for(narrow.optimizer, width)
    return Model(
        settings={**narrow.settings, "network": network, "optimizer": optimizer},
        network=network,
        optimizer=optimizer,
        vocab_size=narrow.vocab_size,
        max_seq_len=narrow.max_seq_len,
    )
