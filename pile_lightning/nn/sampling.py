"""Drawing the next token from logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pile_lightning.nn.repeats import RepeatIndex, lower_repeats

__all__ = ["Sampling", "noise"]


def noise(
    generators: Sequence[torch.Generator | None], num_rows: int, *, device: torch.device
) -> Tensor:
    """Draw a number from [0, 1) for each row (rows,): from its own generator, or all from one."""
    if len(generators) == 1:
        return torch.rand(num_rows, generator=generators[0], device=device)
    return torch.cat([torch.rand(1, generator=own, device=device) for own in generators])


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is drawn.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> Sampling(temperature=0).draw(torch.tensor([[0.0, 3.0, 1.0]]), torch.zeros(1))
        tensor([1])
    """

    temperature: float = 1.0
    """Divides the logits: below 1 sharpens, 0 takes the likeliest."""
    top_k: int | None = None
    """Draw from the k likeliest only; null for all."""
    top_p: float | None = None
    """Draw from the likeliest that together reach this probability (Holtzman et al., 2020), after
    ``top_k``; there is always at least one. Null for all."""
    dry_multiplier: float = 0.0
    """What a token's logit loses where it would make a repeat of two tokens longer, and 1.75 times
    as much for each token that the repeat has more (see ``repeats``); 0 for nothing."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(
                f"temperature={self.temperature} is negative; choose 0 for the likeliest token, 1 "
                f"for the network's own distribution"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k={self.top_k} leaves no token; choose at least 1, or None for all"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p} is no probability; choose above 0 and up to 1, or None"
            )
        if not self.dry_multiplier >= 0:
            raise ValueError(
                f"dry_multiplier={self.dry_multiplier} is negative, which would call for repeats; "
                f"choose e.g. 0.4, or 0 to leave them alone"
            )

    def follow(self, repeats: Sequence[RepeatIndex], texts: Sequence[Sequence[int]]) -> None:
        """Let ``repeats`` read what each text has more than before, if they count."""
        if self.dry_multiplier:
            for index, text in zip(repeats, texts, strict=True):
                index.follow(text)

    def draw(self, logits: Tensor, uniform: Tensor, repeats: Sequence[RepeatIndex] = ()) -> Tensor:
        """Return for each row of ``logits`` (batch, vocab) the id where ``uniform`` (batch,) falls.

        The ids divide [0, 1) in proportion to their probability, so that what a row draws depends
        on its own logits, text and number, and on no other row.

        Args:
            logits: Unnormalised log-probabilities.
            uniform: A number from [0, 1) for each row.
            repeats: Of the text of each row so far, where ``dry_multiplier`` is not 0.
        """
        logits, ids = lower_repeats(logits, repeats, self.dry_multiplier), None
        if self.temperature == 0:
            return logits.argmax(-1)
        logits, top_p = logits.float() / self.temperature, self.top_p or 1
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, ids = logits.topk(self.top_k)  # the likeliest first
        elif top_p < 1:
            logits, ids = logits.sort(descending=True)
        shares = logits.softmax(-1)
        ends = shares.cumsum(-1)
        if top_p < 1:
            shares = shares.masked_fill(ends - shares >= top_p, 0)
            ends = shares.cumsum(-1)
        total = ends[:, -1:]
        # below the end of the last, whatever rounding makes of the product
        at = torch.minimum(uniform[:, None] * total, total.nextafter(torch.zeros_like(total)))
        found = torch.searchsorted(ends, at, right=True)
        return (found if ids is None else ids.gather(-1, found)).squeeze(1)
