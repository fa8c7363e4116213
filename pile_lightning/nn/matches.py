"""What followed the last time: where the last few tokens stood before, the one after them is known.

Text repeats itself, and code more so. Layers of attention learn to find such places (induction
heads, Olsson et al., arXiv 2209.11895) and need a few hundred steps for it. But they can be looked
up by the ids alone, at no product, as compressors do with their match model and as the n-gram heads
of Akyürek et al. (arXiv 2401.12973) do in a network. Then it learns from the first step on how far
a match is to be trusted.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pile_lightning.nn.precision import to_autocast

__all__ = ["Matches", "MatchesConfig", "last_matches"]

# of the ids in the hash of a run of them, which overflows on purpose; odd
_FACTOR = 6364136223846793005


@dataclass(frozen=True, kw_only=True)
class MatchesConfig:
    """How many tokens have to be the same as before.

    Raises:
        ValueError: If lengths do not grow from at least 1, or there is none.

    Example:
        >>> MatchesConfig(lengths=(2,)).build(d_model=8, num_layers=3).shares
        Parameter containing:
        tensor([0.1000, 0.1000, 0.1000], requires_grad=True)
    """

    lengths: tuple[int, ...] = (3, 6, 12)
    """The longest that is found counts, and each has a gain and a bias of its own."""

    def __post_init__(self) -> None:
        grows = all(shorter < longer for shorter, longer in pairwise((0, *self.lengths)))
        if not self.lengths or not grows:
            raise ValueError(
                f"lengths={self.lengths} of matches do not grow from at least 1; choose such as "
                f"(3, 6, 12), or no matches"
            )

    def build(self, *, d_model: int, num_layers: int) -> "Matches":
        """Make the module for a decoder."""
        return Matches(self.lengths, d_model=d_model, num_layers=num_layers)


class Matches(nn.Module):
    """Finds matches, and adds the embedded token that followed to the stream before every block.

    Args:
        lengths: Numbers of tokens, growing.
        d_model: Width of the stream.
        num_layers: Blocks.

    Example:
        >>> matches = MatchesConfig(lengths=(1,)).build(d_model=1, num_layers=1)
        >>> ids = torch.tensor([[5, 7, 5, 6]])  # after the second 5 stands what followed the first
        >>> matches.begin(lambda ids: ids[:, :, None].float(), ids, torch.arange(4)[None])[0, :, 0]
        tensor([0., 0., 7., 0.], grad_fn=<SelectBackward0>)
    """

    def __init__(self, lengths: Sequence[int], *, d_model: int, num_layers: int) -> None:
        super().__init__()
        self.lengths = tuple(lengths)
        self.reach = sys.maxsize
        """Tokens before its own that a position looks at: all of them."""
        self.shares = nn.Parameter(torch.empty(num_layers))
        self.gains = nn.ParameterList(torch.empty(d_model) for _ in lengths)
        self.biases = nn.ParameterList(torch.empty(d_model) for _ in lengths)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put shares, gains and biases back to where they start."""
        nn.init.constant_(self.shares, 0.1)
        for gain, bias in zip(self.gains, self.biases, strict=True):
            nn.init.ones_(gain)
            nn.init.zeros_(bias)

    def begin(
        self,
        embed: Callable[[Tensor], Tensor],
        input_ids: Tensor,
        position_ids: Tensor,
        earlier: Tensor | None = None,
    ) -> Tensor:
        """Look up what followed the longest match of each position, embedded; zeros without one.

        Args:
            embed: Embeds ids (batch, seq) to (batch, seq, d_model).
            input_ids: Token ids (batch, seq).
            position_ids: Distance from the start of the document (batch or 1, seq).
            earlier: Ids read before these (batch, any), from a cache: all of the document's.

        Returns:
            For ``add`` (batch, seq, d_model), in autocast's type.
        """
        found = torch.full_like(input_ids, -1)
        level = torch.zeros_like(input_ids)
        if earlier is not None:
            input_ids = torch.cat((earlier, input_ids), dim=1)
        for number, match in enumerate(last_matches(input_ids, position_ids, self.lengths)):
            found = torch.where(match >= 0, match, found)
            level = torch.where(match >= 0, number, level)
        next_ids = input_ids.gather(1, found + 1)
        # many positions for few rows, whose backward is slower for indexing
        gains, biases = (
            F.embedding(level, torch.stack([*each])) for each in (self.gains, self.biases)
        )
        known = (found >= 0)[:, :, None]
        return to_autocast((embed(next_ids) * gains + biases) * known)

    def add(self, x: Tensor, matched: Tensor, layer: int) -> Tensor:
        """Add to the stream what a block gets of its matches."""
        return x + self.shares[layer].to(x.dtype) * matched.to(x.dtype)


def last_matches(ids: Tensor, position_ids: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
    """Yield for each of ``lengths`` where so many ids, up to each position, ended the last time.

    Of the two ends of a match each is in the same document, which holds it whole.

    Args:
        ids: Token ids (batch, seq).
        position_ids: Distance from the start of the document (batch or 1, new), of the last ``new``
            of them, which are asked about.
        lengths: Numbers of ids, growing.

    Yields:
        Positions in the row (batch, new), before their own; -1 for nowhere.

    Example:
        >>> ids = torch.tensor([[1, 2, 3, 1, 2, 2]])
        >>> [match.tolist() for match in last_matches(ids, torch.arange(6)[None], [1, 2])]
        [[[-1, -1, -1, 0, 1, 4]], [[-1, -1, -1, -1, 1, -1]]]
    """
    seq, new = ids.shape[1], position_ids.shape[1]
    places = torch.arange(seq, device=ids.device)
    starts, earlier = places[-new:] - position_ids, places.where(places < seq - 1, -1)
    key, factor, done = torch.zeros_like(ids), 1, 0
    for length in lengths:
        for back in range(done, length):
            key = key + (F.pad(ids, (back, 0))[:, :seq] + 1) * factor
            factor = _wrapped(factor * _FACTOR)
        done = length
        if new == 1:  # as generation asks: one comparison, for a sort of all
            last = torch.where(key == key[:, -1:], earlier, -1).amax(1, keepdim=True)
        else:
            # of places with one key, which lie in their order, each has the one before it
            ordered, order = key.sort(dim=1, stable=True)
            same = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
            before = torch.where(same, order.roll(1, dims=1), -1)
            last = torch.empty_like(before).scatter_(1, order, before)[:, -new:]
        yield torch.where(last - (length - 1) >= starts, last, -1)


def _wrapped(number: int) -> int:
    """Return what a signed integer of 64 bits makes of ``number``."""
    return (number + 2**63) % 2**64 - 2**63
