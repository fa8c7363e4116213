"""Whether gradients are finite, found without a tensor more than it takes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pile_lightning.optim.sharded import local

__all__ = ["NonFiniteGradients"]


class NonFiniteGradients:
    """Look for what is not finite in the gradients of parameters, those that this rank holds.

    Args:
        parameters: On any devices, whole or sharded.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> look = NonFiniteGradients([weight])
        >>> weight.grad = torch.tensor([1.0, torch.nan])
        >>> bool(look.found())
        True
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        devices = {parameter.device for parameter in self.parameters}
        on = devices.pop() if len(devices) == 1 else None
        self._found_and_one = None if on is None else torch.tensor([0.0, 1.0], device=on).unbind()
        self._sharded = any(hasattr(parameter, "to_local") for parameter in self.parameters)

    def found(self) -> Tensor:
        """Return what is true if a gradient is not finite, on the device; so until ``drop``."""
        gradients = [g for p in self.parameters if (g := p.grad) is not None]
        if self._sharded:
            gradients = [local(g) for g in gradients]
        if self._found_and_one is None or not gradients:
            return ~torch.nn.utils.get_total_norm(gradients).isfinite()
        # what a gradient scaler looks for: 21 us for 22 gradients, where norms took 49
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, *self._found_and_one)
        return self._found_and_one[0]

    def drop(self) -> None:
        """Drop all gradients: without them an optimizer leaves parameter and moments alone."""
        if self._found_and_one is not None:
            self._found_and_one[0].zero_()
        for parameter in self.parameters:
            parameter.grad = None
