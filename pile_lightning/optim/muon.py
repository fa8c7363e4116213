"""Muon for the matrices and AdamW for the rest, as one optimizer.

One object, so that automatic optimization, one schedule and one checkpoint entry do. Matrices of
one shape are orthogonalised together in a batch: many small products become few large ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pile_lightning.device import has_fast_bfloat16
from pile_lightning.optim.adamw import AdamW, with_gradient
from pile_lightning.optim.base import OptimizerConfig
from pile_lightning.optim.groups import parameter_roles
from pile_lightning.optim.newton_schulz import orthogonalise
from pile_lightning.optim.sharded import Layout, local, local_gradient, map_whole
from pile_lightning.optim.width import check_base_width, rate_factor

__all__ = ["Muon", "MuonConfig", "step_together"]


class Muon(AdamW):
    """Muon on the groups marked ``algorithm="muon"``, fused AdamW on those marked ``"adamw"``.

    Muon: momentum (Nesterov), then the nearest orthogonal matrix, times
    ``lr * sqrt(max(1, rows / columns))``. Parameters of more than two dimensions count as
    (first, rest) matrices.

    Args:
        groups: Parameter groups, each with ``params``, ``algorithm`` and ``lr``.
        momentum: Of the Muon groups.
        num_iterations: Newton-Schulz steps.
        betas: Of the AdamW groups.
        eps: Of the AdamW groups.

    Raises:
        ValueError: For a group without a known ``algorithm``.

    Example:
        >>> weight = nn.Parameter(torch.eye(2))
        >>> optimizer = Muon([{"params": [weight], "algorithm": "muon", "lr": 0.1}])
        >>> weight.sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float = 0.95,
        num_iterations: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
    ) -> None:
        groups = list(groups)
        for group in groups:
            if group.get("algorithm") not in {"muon", "adamw"}:
                raise ValueError(
                    f"algorithm={group.get('algorithm')!r} of a parameter group is not known; "
                    f"mark each group with 'muon' or 'adamw'"
                )
        super().__init__(groups, lr=0.02, betas=betas, eps=eps)
        self.momentum = momentum
        self.num_iterations = num_iterations

    def step_group(self, group: dict[str, Any]) -> None:
        """Step the parameters of one group by its algorithm."""
        if group["algorithm"] == "muon":
            _step_matrices([(self, group)])
        else:
            super().step_group(group)

    def move_momenta(self, group: dict[str, Any]) -> list["_Matrix"]:
        """Take the gradients of a group of matrices into its momenta, and decay its weights.

        Returns:
            Each matrix that has a gradient, with what is to be orthogonalised for it.
        """
        parameters = with_gradient(group)
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        if not parameters:
            return []
        gradients = [local_gradient(p) for p in parameters]
        momenta = [local(self.state[p]["momentum"]) for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - self.momentum)
        nesterov = torch._foreach_lerp(gradients, momenta, self.momentum)
        targets = [local(p) for p in parameters]
        if group["weight_decay"]:
            torch._foreach_mul_(targets, 1 - group["lr"] * group["weight_decay"])
        return [
            _Matrix(Layout.of(parameter), target, update.flatten(1), group["lr"])
            for parameter, target, update in zip(parameters, targets, nesterov, strict=True)
        ]


class _Matrix(NamedTuple):
    """A matrix that waits for its step."""

    layout: Layout
    target: Tensor
    update: Tensor
    lr: float


@torch.no_grad()
def step_together(optimizers: Iterable[Optimizer]) -> None:
    """Step several optimizers, of models that train side by side; of ``Muon``, all in one batch.

    Each steps as it would alone, but for rounding. Eight small models' matrices of 64 x 64 are
    orthogonalised in little more than half of the time that they take one model after another.

    Args:
        optimizers: Of any kind; no parameter belongs to two of them.

    Example:
        >>> weights = [nn.Parameter(torch.eye(2)) for _ in range(3)]
        >>> group = {"algorithm": "muon", "lr": 0.1}
        >>> sum(weight.sum() for weight in weights).backward()
        >>> step_together([Muon([{"params": [weight], **group}]) for weight in weights])
    """
    matrices: dict[int, list[tuple[Muon, dict[str, Any]]]] = defaultdict(list)
    for optimizer in optimizers:
        if type(optimizer) is not Muon:
            optimizer.step()
            continue
        for group in optimizer.param_groups:
            if group["algorithm"] == "muon":
                matrices[optimizer.num_iterations].append((optimizer, group))
            else:
                optimizer.step_group(group)
    for groups in matrices.values():
        _step_matrices(groups)


def _step_matrices(groups: Sequence[tuple[Muon, dict[str, Any]]]) -> None:
    """Step groups of matrices, with as many iterations for all: those of one layout in a batch."""
    by_layout: dict[Layout, list[_Matrix]] = defaultdict(list)
    for optimizer, group in groups:
        for matrix in optimizer.move_momenta(group):
            by_layout[matrix.layout].append(matrix)
    for layout, matrices in by_layout.items():
        rows, columns = layout.shape
        orthogonal = partial(_orthogonalise, num_iterations=groups[0][0].num_iterations)
        updates = map_whole(orthogonal, [matrix.update for matrix in matrices], layout)
        by_rate: dict[float, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for matrix, update in zip(matrices, updates, strict=True):
            by_rate[matrix.lr].append((matrix.target, update.view_as(matrix.target)))
        for lr, steps in by_rate.items():
            targets, moves = zip(*steps, strict=True)
            torch._foreach_add_(targets, moves, alpha=-lr * max(1.0, rows / columns) ** 0.5)


def _orthogonalise(matrices: Tensor, *, num_iterations: int) -> Tensor:
    fast = torch.bfloat16 if has_fast_bfloat16(matrices.device.type) else torch.float32
    return orthogonalise(matrices, steps=num_iterations, dtype=fast)


@dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon on the matrices, AdamW on tables and vectors, with a learning rate for each.

    Example:
        >>> optimizer = MuonConfig().build(nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)))
        >>> [(group["algorithm"], group["lr"]) for group in optimizer.param_groups]
        [('muon', 0.03), ('adamw', 0.03), ('adamw', 0.01)]
    """

    lr: float = 0.03
    """Learning rate of the matrices."""
    table_lr: float = 0.03
    """Learning rate of embeddings and head."""
    lookup_lr: float = 0.3
    """Learning rate of tables beside the blocks, which few tokens reach in a step."""
    vector_lr: float = 0.01
    """Learning rate of gains, biases and shares; those of a convolution want 0.03 to 0.1 in a run
    of some hundred steps."""
    momentum: float = 0.95
    """Nesterov momentum of the matrices. Short runs of small batches learn faster with less: over
    200 steps of 2,048 tokens 0.8 was best, and is what ``configs/quickstart.yaml`` has."""
    weight_decay: float = 0.0
    """Decoupled decay of the matrices."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's two moments. The same short runs are better off with (0.5, 0.99)."""
    eps: float = 1e-10
    """Added to the root of AdamW's second moment."""
    num_iterations: int = 5
    """Newton-Schulz steps."""
    base_width: int | None = None
    """Width that table_lr is meant for: a network of another width has it times base_width / width;
    the other rates hold for any. Null for the same rate at any width."""

    def __post_init__(self) -> None:
        check_base_width(self.base_width)

    def build(self, network: nn.Module) -> Muon:
        """Make the optimizer for the parameters of ``network``."""
        table_lr = self.table_lr * rate_factor(network, base_width=self.base_width)
        lookups, tables, matrices, vectors = parameter_roles(network)
        groups = [
            {
                "params": matrices,
                "algorithm": "muon",
                "lr": self.lr,
                "weight_decay": self.weight_decay,
            },
            {"params": tables, "algorithm": "adamw", "lr": table_lr},
            {"params": vectors, "algorithm": "adamw", "lr": self.vector_lr},
            {"params": lookups, "algorithm": "adamw", "lr": self.lookup_lr},
        ]
        return Muon(
            [group for group in groups if group["params"]],
            momentum=self.momentum,
            num_iterations=self.num_iterations,
            betas=self.betas,
            eps=self.eps,
        )
