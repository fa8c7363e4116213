"""A network made ready to generate: its weights cast once, packed for the CPU, or of one byte.

Autocast would cast every weight at every token. What is done here is done once and in place, and
the network is good for nothing but inference afterwards.
"""

from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pile_lightning.device import has_fast_bfloat16
from pile_lightning.nn.checks import check_name
from pile_lightning.nn.initialization import Linear
from pile_lightning.nn.int8 import Int8Linear
from pile_lightning.nn.norms import LayerNorm, RMSNorm
from pile_lightning.nn.packed import PackedLinear, can_pack

__all__ = ["OwnHead", "Quantization", "fast_dtype", "optimize_for_inference"]

Quantization: TypeAlias = Literal["none", "int8"]
"""What weights of linear layers are rounded to."""


@runtime_checkable
class OwnHead(Protocol):
    """A network that multiplies by its head's matrix itself, which may be another module's too."""

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix (vocab, d_model)."""
        ...

    def use_head(self, head: nn.Module) -> None:
        """Compute logits by ``head`` from now on, which has the same matrix laid out otherwise."""
        ...


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bf16 where ``device`` is known to multiply it faster than float32, else float32.

    Example:
        >>> fast_dtype(torch.device("meta"))
        torch.float32
    """
    return torch.bfloat16 if has_fast_bfloat16(device.type) else torch.float32


@torch.no_grad()
def optimize_for_inference(
    network: nn.Module, *, dtype: torch.dtype | None = None, quantize: Quantization = "none"
) -> None:
    """Cast and lay out the weights of ``network`` for generation, in place and for good.

    Gains of this package's norms, which compute in float32, stay as they are. Linear layers of this
    package are packed on CPU, or take int8 weights; those of others are cast and nothing more.

    Args:
        network: A whole one, on the device where it will run.
        dtype: What weights become; ``None`` leaves them as they are.
        quantize: ``int8`` rounds the weights of linear layers to one byte.

    Raises:
        ValueError: If the network is spread over ranks, or ``quantize`` is unknown.

    Example:
        >>> from pile_lightning.nn import DecoderConfig
        >>> network = DecoderConfig(d_model=32).build(vocab_size=100, max_seq_len=16)
        >>> optimize_for_inference(network, dtype=torch.bfloat16)
        >>> network(torch.zeros(1, 4, dtype=torch.long)).dtype
        torch.bfloat16
    """
    check_name(("none", "int8"), quantize=quantize)
    if any(isinstance(parameter, DTensor) for parameter in network.parameters()):
        raise ValueError(
            "the network is spread over ranks, and its weights cannot be laid out anew; load its "
            "checkpoint in one process, e.g. with load_from_checkpoint, and do it there"
        )
    if dtype is not None:
        _cast(network, dtype)
    network.eval().requires_grad_(False)
    if isinstance(network, OwnHead):
        weight = network.head_weight
        head = Linear(weight.shape[1], weight.shape[0], role="head", bias=False)
        head.weight = nn.Parameter(weight.detach(), requires_grad=False)
        network.use_head(_lay_out(head, quantize))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear):
                setattr(module, name, _lay_out(child, quantize))


def _cast(network: nn.Module, dtype: torch.dtype) -> None:
    for module in network.modules():
        if isinstance(module, RMSNorm | LayerNorm):
            continue
        own: list[Tensor] = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        for tensor in own:
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)


def _lay_out(layer: Linear, quantize: Quantization) -> nn.Module:
    """Make what takes the place of ``layer``."""
    if quantize == "int8":
        return Int8Linear(layer.weight, layer.bias)
    return PackedLinear(layer.weight, layer.bias) if can_pack(layer.weight) else layer
