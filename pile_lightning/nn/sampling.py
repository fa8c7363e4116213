"""Drawing the next token from logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_sampling", "draw", "noise", "sample"]


def sample(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one id (batch,) from each row of ``logits`` (batch, vocab).

    Args:
        logits: Unnormalised log-probabilities.
        temperature: Divides the logits: below 1 sharpens, 0 takes the likeliest.
        top_k: Draw from the k likeliest only.
        top_p: Draw from the likeliest that together reach this probability (Holtzman et al., 2020),
            after ``top_k``; there is always at least one.
        generator: Where the randomness comes from, on the device of ``logits``.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> sample(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0)
        tensor([1])
    """
    check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    if temperature == 0:
        return logits.argmax(-1)
    uniform = noise([generator], len(logits), device=logits.device)
    return draw(logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p)


def noise(
    generators: Sequence[torch.Generator | None], num_rows: int, *, device: torch.device
) -> Tensor:
    """Draw a number from [0, 1) for each row (rows,): from its own generator, or all from one."""
    if len(generators) == 1:
        return torch.rand(num_rows, generator=generators[0], device=device)
    return torch.cat([torch.rand(1, generator=own, device=device) for own in generators])


def draw(
    logits: Tensor, uniform: Tensor, *, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Return for each row of ``logits`` (batch, vocab) the id where ``uniform`` (batch,) falls.

    The ids divide [0, 1) in proportion to their probability, so that what a row draws depends on
    its own logits and its own number, and on no other row.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits, ids = logits.float() / temperature, None
    if top_k is not None and top_k < logits.shape[-1]:
        logits, ids = logits.topk(top_k)  # the likeliest first
    elif top_p is not None and top_p < 1:
        logits, ids = logits.sort(descending=True)
    shares = logits.softmax(-1)
    ends = shares.cumsum(-1)
    if top_p is not None and top_p < 1:
        shares = shares.masked_fill(ends - shares >= top_p, 0)
        ends = shares.cumsum(-1)
    total = ends[:, -1:]
    # below the end of the last, whatever rounding makes of the product
    at = torch.minimum(uniform[:, None] * total, total.nextafter(torch.zeros_like(total)))
    found = torch.searchsorted(ends, at, right=True)
    return (found if ids is None else ids.gather(-1, found)).squeeze(1)


def check_sampling(*, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise a ValueError where a setting is out of range."""
    if not temperature >= 0:
        raise ValueError(
            f"temperature={temperature} is negative; choose 0 for the likeliest token, 1 for the "
            f"network's own distribution"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} leaves no token; choose at least 1, or None for all")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} is no probability; choose above 0 and up to 1, or None")
