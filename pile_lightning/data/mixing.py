"""What a user says about the shares of domains, and the mixture that it means."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pile_lightning.data.mixture import Mixture, MixtureStage, natural_shares

__all__ = ["MixtureConfig", "StageConfig"]


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Shares that hold from a number of tokens on, until the next stage.

    Raises:
        ValueError: If it starts before the first token.

    Example:
        >>> StageConfig(from_tokens=10**9, weights={"books": 1.0}).from_tokens
        1000000000
    """

    from_tokens: float
    """Tokens of training after which the stage begins, such as 1e9; rounded up to a whole row."""
    weights: dict[str, float]
    """Share of the tokens by domain; they need not sum to 1."""

    def __post_init__(self) -> None:
        if not self.from_tokens > 0:
            raise ValueError(
                f"from_tokens={self.from_tokens}: a later stage begins after the first token; what "
                f"holds from the start is said by mixture.weights"
            )


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Shares of the domains in what a model trains on, counted in tokens.

    Raises:
        ValueError: If a weight is negative, or a number out of its range.

    Example:
        >>> config = MixtureConfig(weights={"code": 3, "prose": 1})
        >>> mixture = config.build({"code": 100, "prose": 100}, tokens_per_row=256)
        >>> mixture.counts(1 << 16).tolist()
        [49152, 16384]
    """

    weights: dict[str, float] | None = None
    """Share of the tokens by domain; they need not sum to 1. Null: the ``weight`` of each source,
    and where no source has one, the shares that the text has by nature."""
    temperature: float = 1.0
    """Above 1 it evens the shares out: each to the power 1/temperature."""
    max_epochs: float | None = None
    """A domain that was read so often is used up, and its share goes to the others."""
    stages: tuple[StageConfig, ...] = field(default=())
    """Later changes of the shares, for example to end on the best text."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        natural_shares({}, temperature=self.temperature)
        if self.max_epochs is not None and not self.max_epochs > 0:
            raise ValueError(f"max_epochs={self.max_epochs} leaves no text; choose more than 0")
        for weights in (self.weights or {}, *(stage.weights for stage in self.stages)):
            for name, weight in weights.items():
                if not (weight >= 0 and math.isfinite(weight)):
                    raise ValueError(
                        f"weight {weight} of domain {name!r} is no share; choose 0 or more"
                    )

    def build(
        self,
        sizes: Mapping[str, int],
        *,
        tokens_per_row: int,
        source_weights: Mapping[str, float | None] | None = None,
        fill: Mapping[str, float] | None = None,
    ) -> Mixture:
        """Make the mixture of domains of the given sizes.

        Args:
            sizes: Rows of an epoch of each domain, or anything in proportion to them where
                ``max_epochs`` is not set.
            tokens_per_row: Tokens of a row.
            source_weights: Weights that sources give, for domains that are sources.
            fill: Share of a domain's rows that is text, where that is not all: weights are those of
                text, so that of two domains of one weight the one with more padding has more rows.

        Raises:
            ValueError: For a domain that there is not, or has no row, or a mixture without any
                share.
        """
        known = tuple(sizes)
        first = self.weights if self.weights is not None else _given(known, source_weights)
        filled = {name: (fill or {}).get(name, 1.0) for name in known}
        shares = {name: sizes[name] * filled[name] for name in known} if first is None else first
        stages = [MixtureStage(0, self._shares(sizes, shares))]
        for stage in sorted(self.stages, key=lambda stage: stage.from_tokens):
            start = math.ceil(stage.from_tokens / tokens_per_row)
            stages.append(MixtureStage(start, self._shares(sizes, stage.weights)))
        limits = None
        if self.max_epochs is not None:
            limits = [max(1, math.floor(rows * self.max_epochs)) for rows in sizes.values()]
        return Mixture(stages, limits=limits, fill=tuple(filled.values()))

    def _shares(self, sizes: Mapping[str, int], weights: Mapping[str, float]) -> tuple[float, ...]:
        unknown = sorted(set(weights) - set(sizes))
        if unknown:
            raise ValueError(
                f"the mixture gives a weight to {', '.join(map(repr, unknown))}, and the text has "
                f"the domains {', '.join(map(repr, sizes))}; name these"
            )
        positive = {name: weight for name, weight in weights.items() if weight > 0}
        empty = sorted(name for name in positive if not sizes[name])
        if empty:
            raise ValueError(
                f"the mixture gives a weight to {', '.join(map(repr, empty))}, with too little "
                f"text to fill one row; give more of it, a shorter seq_len, or no weight"
            )
        if not positive:
            raise ValueError(
                "the mixture gives no domain a weight above 0; give one to at least one"
            )
        shares = natural_shares(positive, temperature=self.temperature)
        return tuple(shares.get(name, 0.0) for name in sizes)


def _given(
    known: Sequence[str], weights: Mapping[str, float | None] | None
) -> dict[str, float] | None:
    """Return the sources' own weights, or None where none has one."""
    given = {name: weight for name, weight in (weights or {}).items() if weight is not None}
    if not given:
        return None
    missing = sorted(set(known) - set(given))
    if missing:
        raise ValueError(
            f"sources {', '.join(map(repr, sorted(given)))} have a weight and "
            f"{', '.join(map(repr, missing))} have none; give one to each, or to none"
        )
    return given
