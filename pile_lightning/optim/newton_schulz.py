"""The nearest orthogonal matrix, nearly: what Muon makes of each update.

Newton-Schulz multiplies a matrix by a polynomial of its Gram matrix, some times over. All those
polynomials are of the first Gram matrix, so that they can be multiplied with one another first, and
the matrix by their product once. Of a matrix four times as wide as high that is 25 products of its
height cubed where 45 were, and the same numbers but for rounding: a few in ten thousand where its
rank is low, as many in a million elsewhere. In bf16 that would be too much.
"""

import torch
from torch import Tensor

__all__ = ["orthogonalise"]

# Jordan et al.: a quintic that drives every singular value into about [0.7, 1.2] in five steps
QUINTIC = (3.4445, -4.7750, 2.0315)

# what rounding leaves of a small eigenvalue of the Gram matrix grows twelvefold in each step
_GRAM_STEPS = 5


def orthogonalise(matrices: Tensor, *, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Replace the singular values of ``matrices`` (batch, rows, columns) by about 1.

    Source: Jordan et al., Muon, 2024 (Newton-Schulz with tuned coefficients).

    Args:
        matrices: Many matrices of one shape.
        steps: Newton-Schulz iterations.
        dtype: What the products are computed in; the dtype of ``matrices`` by default.

    Example:
        >>> orthogonalise(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])).round(decimals=1)
        tensor([[[0.8000, 0.0000],
                 [0.0000, 1.1000]]])
    """
    x = matrices.to(dtype or matrices.dtype)
    upright = x.shape[-2] > x.shape[-1]
    wide = x.mT if upright else x  # the smaller Gram matrix
    # the Frobenius norm bounds the largest singular value, where the quintic needs at most 1
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    rows, columns = wide.shape[-2:]
    exact = wide.dtype in (torch.float32, torch.float64) and steps <= _GRAM_STEPS
    wide = _by_gram(wide, steps) if exact and columns > 2 * rows else _one_by_one(wide, steps)
    return (wide.mT if upright else wide).to(matrices.dtype)


def _one_by_one(wide: Tensor, steps: int) -> Tensor:
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = wide @ wide.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        wide = torch.baddbmm(wide, polynomial, wide, beta=a)
    return wide


def _by_gram(wide: Tensor, steps: int) -> Tensor:
    a, b, c = QUINTIC
    gram = wide @ wide.mT
    product: Tensor | None = None
    for step in range(1, steps + 1):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else polynomial @ product
        if step < steps:
            gram = polynomial @ gram @ polynomial  # that of the matrix after this step
    return wide if product is None else product @ wide
