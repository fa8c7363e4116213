"""What one training step holds in memory, found by taking it on tensors without values.

The module is built and stepped on fake tensors: sizes are computed, numbers and memory are not, so
that a network of any size is profiled in seconds on a laptop. What is counted is therefore the code
that will run, a user's own network, loss and optimizer included, and no rule of thumb. Left out is
what kernels allocate within an operation, and what ``torch.compile`` saves by fusing.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from pile_lightning.batch import TokenBatch
from pile_lightning.nn import ChunkedHead
from pile_lightning.parallel import Recompute, recompute_blocks
from pile_lightning.plan.live_bytes import Kind, LiveBytes
from pile_lightning.plan.optimizer_state import optimizer_state
from pile_lightning.plan.parameters import ROOT, ParameterSize, parameter_sizes
from pile_lightning.plan.precision import Precision

__all__ = ["Planned", "StepProfile", "profile_step"]

Curve = npt.NDArray[np.int64]


class Planned(Protocol):
    """A module that can be planned: it builds a network and says its loss and optimizer."""

    optimizer_config: Any

    @property
    def built_network(self) -> nn.Module:
        """The network."""
        ...

    def loss_sum(self, batch: TokenBatch) -> Tensor:
        """Return the loss that is differentiated."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """The live bytes of one step on one device."""

    rows: int
    """Rows of the micro-batch."""
    parameters: tuple[ParameterSize, ...]
    """What there is to train, and to keep for it."""
    optimizer_flops: int
    """Operations of the optimizer's products in a step."""
    kept: tuple[int, ...]
    """Bytes by kind (``Kind``) between forward and backward."""
    forward: Curve
    """Bytes by kind after every operation of the forward (operation, kind)."""
    backward: Curve
    """The same of the backward."""
    step: Curve
    """The same of the optimizer's step, up to where it asks for a value, if it does."""


def profile_step(
    make_module: Callable[[], Planned],
    *,
    rows: int,
    seq_len: int,
    precision: Precision,
    checkpointing: Recompute = "none",
    accumulate: bool = False,
    device: str = "cuda",
) -> StepProfile:
    """Take one step of a module on tensors without values.

    The order is Lightning's: the gradients of the step before are there until the forward is done,
    and while batches are accumulated also during the backward.

    Args:
        make_module: Makes the module (``Planned``).
        rows: Rows of the micro-batch.
        seq_len: Positions of a row.
        precision: Of weights and products.
        checkpointing: What each block keeps.
        accumulate: Whether gradients of an earlier micro-batch are added to.
        device: Type of device that the run will have.

    Raises:
        ValueError: For a network whose forward asks for the values of tensors.

    Example:
        >>> from pile_lightning import CausalLM, DecoderConfig
        >>> profile = profile_step(
        ...     lambda: CausalLM(DecoderConfig(d_model=32), vocab_size=100, max_seq_len=16),
        ...     rows=2,
        ...     seq_len=16,
        ...     precision=Precision.of("32-true"),
        ... )
        >>> sum(size.num_bytes for size in profile.parameters)
        210592
    """
    module = make_module()
    with FakeTensorMode():
        try:
            with precision.active():
                network = module.built_network
            network.train()
            optimizer = module.optimizer_config.build(network)
            state = optimizer_state(optimizer)
            sizes = parameter_sizes(network, state=state.num_bytes)
            run = _Run(module, network, LiveBytes(casts_in_kernels=device == "cpu"), precision)
            run.enter(sizes, state.tensors)
            recompute_blocks(network, checkpointing)
            return run.take(rows, seq_len, sizes, optimizer, accumulate=accumulate)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise ValueError(
                f"the network or its loss asks for the value of a tensor ({error}), and a plan has "
                f"none; compute with tensors throughout, for example torch.where in place of if"
            ) from error


@dataclass(frozen=True)
class _Run:
    """One step, watched."""

    module: Planned
    network: nn.Module
    live: LiveBytes
    precision: Precision

    def enter(self, sizes: Sequence[ParameterSize], state: Sequence[Tensor]) -> None:
        """Enter what is there before the step, and let gradients be entered as they come."""
        for parameter, size in zip(self.network.parameters(), sizes, strict=True):
            whole = size.tensor_dim is None
            self.live.enter(parameter, Kind.WEIGHTS if whole else Kind.SPLIT_WEIGHTS)
            kind = Kind.ROOT_GRADIENTS if size.unit == ROOT else Kind.GRADIENTS
            if parameter.grad is not None:
                self.live.enter(parameter.grad, kind)
            if parameter.requires_grad:
                self._enter_gradient_of(parameter, kind)
        for buffer in self.network.buffers():
            self.live.enter(buffer, Kind.WEIGHTS)
        for tensor in state:
            self.live.enter(tensor, Kind.STATE)
        _watch_network(self.network, self.live)

    def take(
        self,
        rows: int,
        seq_len: int,
        sizes: tuple[ParameterSize, ...],
        optimizer: Optimizer,
        *,
        accumulate: bool,
    ) -> StepProfile:
        """Take the step and return what it held."""
        with self.live:
            batch = _batch(rows, seq_len)
            with self.live.kind(Kind.HEAD), self.precision.active():
                loss = self.module.loss_sum(batch)
            kept = tuple(self.live.now)
            forward = self._curve()
            if not accumulate:
                self.network.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            backward = self._curve()
            products = FlopCounterMode(display=False)
            with suppress(DataDependentOutputException), products:
                optimizer.step()
            step = self._curve()
        return StepProfile(
            rows=rows,
            parameters=sizes,
            optimizer_flops=products.get_total_flops(),
            kept=kept,
            forward=forward,
            backward=backward,
            step=step,
        )

    def _enter_gradient_of(self, parameter: Any, kind: Kind) -> None:
        def enter(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self.live.enter(parameter.grad, kind)

        parameter.register_post_accumulate_grad_hook(enter)

    def _curve(self) -> Curve:
        """Take out the points since the last time."""
        curve = np.array(self.live.curve or [tuple(self.live.now)], dtype=np.int64)
        self.live.curve.clear()
        return curve


def _batch(rows: int, seq_len: int) -> TokenBatch:
    """Return a batch of the contract, of zeros."""
    ids = torch.zeros(rows, seq_len, dtype=torch.long)
    of_rows = torch.zeros(rows, dtype=torch.long)
    return {
        "input_ids": ids,
        "labels": ids.clone(),
        "position_ids": ids.clone(),
        "document_ids": ids.clone(),
        "domain": of_rows,
        "num_bytes": of_rows.clone(),
    }


_BEFORE = {"input": Kind.SPLIT_ACTIVATIONS, "output": Kind.ACTIVATIONS}


def _switch(live: LiveBytes, kind: Kind, module: nn.Module, inputs: Any) -> None:
    live.switch(kind)


def _watch_network(network: nn.Module, live: LiveBytes) -> None:
    """Enter what the network makes as activations, and what lies between heads as split.

    Between a projection that reads the stream (a ``role`` of ``input``) and the one that writes to
    it (``output``) there are heads and hidden features, which tensor parallelism has apart.
    """
    # what the loss calls: the head is outside of `hidden`
    name = "hidden" if isinstance(network, ChunkedHead) else "forward"
    inner = getattr(network, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        with live.kind(Kind.ACTIVATIONS):
            return inner(*args, **kwargs)

    setattr(network, name, watched)
    for module in network.modules():
        role = getattr(module, "role", None) if isinstance(module, nn.Linear) else None
        if role in _BEFORE:
            module.register_forward_pre_hook(partial(_switch, live, _BEFORE[role]))
    blocks = getattr(network, "blocks", None)
    for block in blocks if isinstance(blocks, nn.ModuleList) else ():
        _watch_block(block, live)


def _watch_block(block: nn.Module, live: LiveBytes) -> None:
    """Enter by the block's own kinds also what it makes again in the backward."""
    inner = block.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        with live.kind(Kind.ACTIVATIONS):
            return inner(*args, **kwargs)

    block.forward = watched
