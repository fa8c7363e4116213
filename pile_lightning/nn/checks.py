"""Checks that several configs and networks share: each says the value, the rule and the remedy."""

from collections.abc import Collection

__all__ = [
    "check_length",
    "check_name",
    "check_positive",
    "check_share",
    "check_size",
    "check_weight",
]


def check_length(length: int, max_seq_len: int | None) -> None:
    """Raise a ValueError where a sequence of ``length`` tokens is too long; ``None`` takes any."""
    if max_seq_len is not None and length > max_seq_len:
        raise ValueError(
            f"a sequence of {length} tokens is longer than max_seq_len={max_seq_len}; shorten it, "
            f"or build the network with a larger max_seq_len"
        )


def check_size(**sizes: int) -> None:
    """Raise a ValueError where a named count or width is not positive."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} is not positive; choose at least 1")


def check_positive(**bounds: float) -> None:
    """Raise a ValueError where a named bound is not above 0."""
    for name, bound in bounds.items():
        if not bound > 0:
            raise ValueError(f"{name}={bound} is not above 0; choose e.g. 15, or null for none")


def check_weight(**weights: float) -> None:
    """Raise a ValueError where the named weight of a part of the loss is negative."""
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name}={weight} is negative; choose e.g. 1e-4, or 0 for none")


def check_share(**shares: float) -> None:
    """Raise a ValueError where a named share is not at least 0 and below 1."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(
                f"{name}={share} is a share and must be at least 0 and below 1; 0 turns it off"
            )


def check_name(known: Collection[str], **names: str) -> None:
    """Raise a ValueError where a named choice is not among the ``known`` ones."""
    for field, name in names.items():
        if name not in known:
            listed = ", ".join(repr(one) for one in sorted(known))
            raise ValueError(f"{field}={name!r} is unknown; choose one of {listed}")
