"""Keeping a text from going round in circles.

What was said once is likely to be said again, so a small network that copies well soon says nothing
else. DRY ("don't repeat yourself", p-e-w, 2024, as in llama.cpp) lowers the logit of a token that
would make a repeat longer, by more the longer it is: names and idioms come again, loops do not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["lower_repeats"]

_SHORTEST = 2
_LONGEST = 50
_BASE = 1.75


def lower_repeats(logits: Tensor, texts: Sequence[Sequence[int]], multiplier: float) -> Tensor:
    """Lower the logits of tokens that would go on with a repeat of two tokens or more.

    Where the last ``n`` tokens of a text stood in it before, the logit of what followed them there
    loses ``multiplier * 1.75 ** (n - 2)``, for the longest of such places.

    Args:
        logits: What may come next (rows, vocab).
        texts: The ids of each row so far.
        multiplier: 0 changes nothing.

    Example:
        >>> lower_repeats(torch.zeros(1, 6), [[1, 2, 5, 4, 1, 2]], 0.5)
        tensor([[ 0.0000,  0.0000,  0.0000,  0.0000,  0.0000, -0.5000]])
    """
    if not multiplier:
        return logits
    by = torch.zeros(logits.shape, dtype=torch.float32)
    for row, text in enumerate(texts):
        ids, lengths = _repeats(torch.tensor(text))
        by[row].scatter_reduce_(0, ids, multiplier * _BASE ** (lengths - _SHORTEST), "amax")
    return logits.float() - by.to(logits.device)


def _repeats(text: Tensor) -> tuple[Tensor, Tensor]:
    """Find where the end of a text stood in it before.

    Returns:
        The ids that followed (places,), and how many tokens were the same (places,).
    """
    ends = (text[:-1] == text[-1]).nonzero().flatten()
    back = torch.arange(min(_LONGEST, len(text)))
    before = ends[:, None] - back
    same = (text[before] == text[-1 - back]) & (before >= 0)  # a negative place is another's
    lengths = same.cumprod(1).sum(1)
    long = lengths >= _SHORTEST
    return text[ends[long] + 1], lengths[long].float()
