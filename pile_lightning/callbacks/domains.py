"""What each domain gave to training and what it scores: logged on the way, a table at the end."""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer

from pile_lightning.callbacks.text_table import percent, short, table

__all__ = ["DeliveredTokens", "Delivers", "WeighsDomains", "domain_table"]

_ROWS_SHOWN = 40

Delivered = Mapping[str, tuple[int, float | None]]


@runtime_checkable
class Delivers(Protocol):
    """A data module that counts what each domain gave."""

    def delivered(self, num_rows: int | None = None) -> dict[str, tuple[int, float | None]]:
        """Return tokens, and epochs where they are known, by domain.

        Args:
            num_rows: Of the first so many rows; by default of those of the finished steps.
        """


@runtime_checkable
class WeighsDomains(Protocol):
    """A data module that mixes domains."""

    def mixture_weights(self) -> dict[str, float] | None:
        """Return the shares of the domains, None where they are what they are by nature."""


class DeliveredTokens(Callback):
    """Log ``data/<domain>/tokens`` with each validation, where there are several domains.

    It counts from the first step of training, over all ranks and all resumed runs.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the data module, which counts once for all steps since the last time."""
        data = getattr(trainer, "datamodule", None)
        if trainer.state.fn != "fit" or trainer.sanity_checking or not isinstance(data, Delivers):
            return
        tokens = {f"data/{name}/tokens": float(of[0]) for name, of in data.delivered().items()}
        if len(tokens) > 1:
            # equal on all ranks; Lightning warns where it is not told to average
            pl_module.log_dict(tokens, sync_dist=True)


def domain_table(
    delivered: Delivered,
    scores: Mapping[str, float],
    *,
    total: float | None = None,
    weights: Mapping[str, float] | None = None,
) -> list[str]:
    """Return a table of what domains gave and what their held-out text scores.

    Args:
        delivered: Tokens and epochs by domain.
        scores: Bits per byte by domain.
        total: Bits per byte of all held-out text together.
        weights: Shares of a mixture; with them the scores' mean in these shares has a line.

    Example:
        >>> delivered = {"code": (3_000_000, 1.5), "prose": (1_000_000, 0.25)}
        >>> lines = domain_table(delivered, {"code": 1.0, "prose": 2.0}, total=1.9,
        ...                      weights={"code": 0.75, "prose": 0.25})
        >>> for line in lines:
        ...     print(line.strip())
        held-out
        domain                  tokens   share  epochs  bits per byte
        code                       3 M  75.0 %    1.50         1.0000
        prose                      1 M  25.0 %    0.25         2.0000
        all, by held-out bytes     4 M                         1.9000
        all, by the mixture                                    1.2500
    """
    all_tokens = sum(tokens for tokens, _ in delivered.values())
    names = [*delivered, *(name for name in scores if name not in delivered)]
    rows = []
    for name in names[:_ROWS_SHOWN]:
        tokens, epochs = delivered.get(name, (None, None))
        rows.append(
            [
                name,
                "" if tokens is None else short(tokens),
                "" if tokens is None else percent(tokens / max(1, all_tokens)),
                "" if epochs is None else f"{epochs:.2f}",
                _score(scores.get(name)),
            ]
        )
    if len(names) > _ROWS_SHOWN:
        rows.append([f"and {len(names) - _ROWS_SHOWN} more, see metrics.csv", "", "", "", ""])
    rows.append(
        ["all, by held-out bytes", short(all_tokens) if delivered else "", "", "", _score(total)]
    )
    if weights is not None:
        rows += _weighted(scores, weights)
    return table(["domain", "tokens", "share", "epochs", "held-out\nbits per byte"], rows)


def _weighted(scores: Mapping[str, float], weights: Mapping[str, float]) -> list[list[str]]:
    scored = {
        name: weight
        for name, weight in weights.items()
        if weight > 0 and math.isfinite(scores.get(name, math.nan))
    }
    if not scored:
        return []
    mean = sum(weight * scores[name] for name, weight in scored.items()) / sum(scored.values())
    given = sum(weight > 0 for weight in weights.values())
    label = "all, by the mixture"
    if len(scored) < given:
        label += f" ({len(scored)} of {given} domains)"
    return [[label, "", "", "", _score(mean)]]


def _score(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"
