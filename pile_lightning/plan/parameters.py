"""A network's parameters as sizes: how many of each kind, and what a rank has of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from pile_lightning.optim import parameter_roles
from pile_lightning.parallel import Layout

__all__ = [
    "ROOT",
    "ParameterCounts",
    "ParameterSize",
    "count_parameters",
    "parameter_sizes",
    "summed_features",
    "tensor_ranks",
]

ROOT = -1
"""The unit of what is in no block."""


@dataclass(frozen=True, kw_only=True)
class ParameterSize:
    """What one parameter weighs."""

    shape: tuple[int, ...]
    """Its shape."""
    itemsize: int
    """Bytes of a number."""
    state: int = 0
    """Bytes that the optimizer keeps for it."""
    unit: int = ROOT
    """The block that it belongs to, which FSDP2 gathers as one; -1 for what is in none."""
    tensor_dim: int | None = None
    """The dimension that tensor parallelism splits, or None where every rank has all of it."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole parameter."""
        return prod(self.shape) * self.itemsize

    def on_rank(self, layout: Layout) -> int:
        """Return the bytes that the first rank, which has most, keeps of it.

        FSDP2 shards the first dimension in pieces of equal length, the last ones shorter or empty.

        Example:
            >>> gain = ParameterSize(shape=(1,), itemsize=4)
            >>> gain.on_rank(Layout(shard=8))
            4
            >>> matrix = ParameterSize(shape=(64, 16), itemsize=4, tensor_dim=1)
            >>> matrix.on_rank(Layout(shard=8, tensor=2))
            256
        """
        shape = list(self.shape)
        if self.tensor_dim is not None:
            shape[self.tensor_dim] = -(-shape[self.tensor_dim] // layout.tensor)
        if shape:
            shape[0] = -(-shape[0] // layout.shard)
        return prod(shape) * self.itemsize


# the dimension that tensor parallelism splits, by the role of a ``Linear`` or an ``Embedding``
_WEIGHT_DIM = {"input": 0, "output": 1, "embedding": 0, "head": 0}
_BIAS_DIM = {"input": 0}


def parameter_sizes(
    network: nn.Module, *, state: dict[nn.Parameter, int] | None = None
) -> tuple[ParameterSize, ...]:
    """Return the sizes of a network's parameters, a shared one once.

    Blocks are what the network calls ``blocks``. A matrix is split by features where its module
    says with a ``role`` that it reads the stream (``input``: rows) or writes to it (``output``:
    columns), as Shoeybi et al. do (Megatron-LM, arXiv 1909.08053, section 3); the token table and
    the head by ids.

    Args:
        network: The network, on any device.
        state: Bytes that the optimizer keeps, by parameter.
    """
    blocks = getattr(network, "blocks", None)
    units = {
        id(parameter): number
        for number, block in enumerate(blocks if isinstance(blocks, nn.ModuleList) else ())
        for parameter in block.parameters()
    }
    dims: dict[int, int] = {}
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            role = getattr(module, "role", "")
            bias = getattr(module, "bias", None)
            for parameter, known in ((module.weight, _WEIGHT_DIM), (bias, _BIAS_DIM)):
                if parameter is not None and role in known:
                    dims[id(parameter)] = known[role]
    return tuple(
        ParameterSize(
            shape=tuple(parameter.shape),
            itemsize=parameter.element_size(),
            state=(state or {}).get(parameter, 0),
            unit=units.get(id(parameter), ROOT),
            tensor_dim=dims.get(id(parameter)),
        )
        for parameter in network.parameters()
    )


def summed_features(network: nn.Module) -> tuple[int, ...]:
    """Return the widths of the projections whose results tensor-parallel ranks sum.

    Example:
        >>> from pile_lightning import DecoderConfig
        >>> network = DecoderConfig(d_model=32, num_layers=1).build(vocab_size=8, max_seq_len=4)
        >>> summed_features(network)
        (32, 32)
    """
    linears = (module for module in network.modules() if isinstance(module, nn.Linear))
    return tuple(m.out_features for m in linears if getattr(m, "role", None) == "output")


def tensor_ranks(network: nn.Module, most: int) -> int:
    """Return over how many ranks, up to ``most`` and by halves, a network's features divide.

    Heads stay whole: a module with a ``head_dim`` reads the stream into multiples of it.

    Example:
        >>> from pile_lightning import DecoderConfig
        >>> network = DecoderConfig(d_model=32, num_layers=1).build(vocab_size=8, max_seq_len=4)
        >>> tensor_ranks(network, 8)  # of two heads
        2
    """
    wholes: list[int] = []
    for module in network.modules():
        unit = getattr(module, "head_dim", 1)
        for child in module.children():
            if isinstance(child, nn.Linear) and getattr(child, "role", None) == "input":
                wholes.append(child.out_features // unit)
    while most > 1 and (not wholes or any(whole % most for whole in wholes)):
        most //= 2
    return most


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """How many numbers a network learns, by kind."""

    matrices: int
    """What takes part in products inside the network."""
    tables: int
    """Embeddings and head."""
    lookups: int
    """Tables whose rows are added and never multiplied."""
    vectors: int
    """Gains, biases and scalars."""
    frozen: int = 0
    """What is not trained."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.without_tables + self.tables + self.lookups + self.frozen

    @property
    def without_tables(self) -> int:
        """Neither embeddings nor head: what Kaplan et al. (arXiv 2001.08361) call N."""
        return self.matrices + self.vectors


def count_parameters(network: nn.Module) -> ParameterCounts:
    """Count the parameters of a network by kind.

    Example:
        >>> net = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8, bias=False))
        >>> counts = count_parameters(net)
        >>> counts.tables, counts.matrices, counts.vectors, counts.total
        (64, 16, 4, 84)
    """
    roles = parameter_roles(network)
    return ParameterCounts(
        matrices=_numel(roles.matrices),
        tables=_numel(roles.tables),
        lookups=_numel(roles.lookups),
        vectors=_numel(roles.vectors),
        frozen=_numel([p for p in network.parameters() if not p.requires_grad]),
    )


def _numel(parameters: Sequence[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
