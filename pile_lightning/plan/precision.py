"""What ``trainer.precision`` means for the bytes of weights and of products."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

__all__ = ["Precision"]

_WEIGHTS = {
    "16-mixed": (torch.float32, torch.float16),
    "16-true": (torch.float16, None),
    "32-true": (torch.float32, None),
    "64-true": (torch.float64, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "bf16-true": (torch.bfloat16, None),
}
_SHORT = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Types of weights and of products."""

    name: str
    """As the trainer calls it."""
    weights: torch.dtype
    """Of parameters, and so of gradients."""
    products: torch.dtype | None
    """Of autocast, or None where it is off."""

    @classmethod
    def of(cls, name: str | int) -> "Precision":
        """Return what a trainer's precision means.

        Raises:
            ValueError: For one that the plan does not know.

        Example:
            >>> Precision.of("bf16-mixed").products
            torch.bfloat16
        """
        full = _SHORT.get(str(name), str(name))
        if full not in _WEIGHTS:
            raise ValueError(
                f"trainer.precision={name!r} is one that a plan cannot weigh; it knows "
                f"{', '.join(_WEIGHTS)}"
            )
        weights, products = _WEIGHTS[full]
        return cls(name=full, weights=weights, products=products)

    @property
    def itemsize(self) -> int:
        """Bytes of a number that is multiplied."""
        return (self.products or self.weights).itemsize

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make tensors of the weights' type by default, and products in autocast's."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.weights)
        try:
            # as Lightning does: without a cache, so that casts live as long as the backward needs
            cast = torch.autocast("cpu", self.products, cache_enabled=False)
            with cast if self.products is not None else nullcontext():
                yield
        finally:
            torch.set_default_dtype(before)
