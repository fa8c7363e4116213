"""Keeping a text from going round in circles.

What was said once is likely to be said again, so a small network that copies well soon says nothing
else. DRY ("don't repeat yourself", p-e-w, 2024, as in llama.cpp) lowers the logit of a token that
would make a repeat longer, by more the longer it is: names and idioms come again, loops do not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["RepeatIndex", "lower_repeats"]

_SHORTEST = 2
_LONGEST = 50
_BASE = 1.75


class RepeatIndex:
    """Where the end of a growing text stood in it before; a new token costs its own occurrences.

    Example:
        >>> index = RepeatIndex()
        >>> index.follow([1, 2, 5, 4, 1, 2])
        >>> index.continuations()  # 5 came after 1, 2
        {5: 2}
    """

    def __init__(self) -> None:
        self._text: list[int] = []
        self._places: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        """By each earlier place of the last token, how many tokens up to it are the same."""

    def follow(self, text: Sequence[int]) -> None:
        """Read what a text has more than before; one that was cut is read from its start."""
        if len(text) < len(self._text):
            self._text, self._places, self._lengths = [], {}, {}
        for token in text[len(self._text) :]:
            before = self._places.setdefault(token, [])
            self._lengths = {at: self._lengths.get(at - 1, 0) + 1 for at in before}
            before.append(len(self._text))
            self._text.append(token)

    def continuations(self) -> dict[int, int]:
        """Return which ids would go on with a repeat, and how long the longest of each is."""
        found: dict[int, int] = {}
        for at, length in self._lengths.items():
            if length >= _SHORTEST:
                token = self._text[at + 1]
                found[token] = max(found.get(token, 0), min(length, _LONGEST))
        return found


def lower_repeats(logits: Tensor, indexes: Sequence[RepeatIndex], multiplier: float) -> Tensor:
    """Lower the logits of tokens that would go on with a repeat of two tokens or more.

    Where the last ``n`` tokens of a text stood in it before, the logit of what followed them there
    loses ``multiplier * 1.75 ** (n - 2)``, for the longest of such places.

    Args:
        logits: What may come next (rows, vocab).
        indexes: Of the text of each row.
        multiplier: 0 changes nothing.

    Example:
        >>> index = RepeatIndex()
        >>> index.follow([1, 2, 5, 4, 1, 2])
        >>> lower_repeats(torch.zeros(1, 6), [index], 0.5)
        tensor([[ 0.0000,  0.0000,  0.0000,  0.0000,  0.0000, -0.5000]])
    """
    if not multiplier:
        return logits
    found = [
        (row, token, multiplier * _BASE ** (length - _SHORTEST))
        for row, index in enumerate(indexes)
        for token, length in index.continuations().items()
    ]
    if not found:
        return logits
    rows, tokens, by = zip(*found, strict=True)
    lowered = logits.to(torch.float32, copy=True)
    at = (torch.tensor(rows, device=logits.device), torch.tensor(tokens, device=logits.device))
    lowered[at] -= torch.tensor(by, device=logits.device)
    return lowered
