"""The cost of training, by formula: matrix products only, the convention behind published MFU.

Left out: norms, activations, the softmax, the optimizer (none is a matrix product), and
recomputation (it is a cost of the hardware's memory, not of the model).
"""

from torch import nn

__all__ = ["attention_flops", "linear_flops"]


def linear_flops(network: nn.Module) -> float:
    """Count the training operations a token of every ``nn.Linear`` in ``network``.

    Each weight takes part in one multiply-add (2 operations) in the forward and two in the
    backward: one for the gradient of the input, one for its own. Embedding tables are looked up,
    not multiplied; a tied head is to be added by who ties it.

    Example:
        >>> linear_flops(nn.Linear(10, 20))
        1200.0
    """
    linears = (module for module in network.modules() if isinstance(module, nn.Linear))
    return 6.0 * sum(module.weight.numel() for module in linears)


def attention_flops(*, num_layers: int, width: int, seq_len: int) -> float:
    """Count the training operations a token of ``num_layers`` attentions over ``seq_len`` keys.

    Each has ``width`` features in all its heads. Scores and their mix of values are one
    multiply-add each for every key and feature, forward once and backward twice; nothing is taken
    off for a mask.

    Example:
        >>> attention_flops(num_layers=1, width=8, seq_len=8)
        768.0
    """
    return 12.0 * num_layers * width * seq_len
