"""Networks whose weights are still to come: nobody should compute with what stands for them.

A network that was trained elsewhere is built from what its config says and filled from a file. A
run that goes on, or a checkpoint that is loaded, fills it from the checkpoint, and then the file
may be gone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

__all__ = ["await_weights", "check_weights", "stop_waiting", "weights_follow", "will_follow"]

_FOLLOW = ContextVar("weights_follow", default=False)
_MARK = "awaits_weights"


@contextmanager
def weights_follow() -> Iterator[None]:
    """Read no file of weights meanwhile: a checkpoint brings them, right after."""
    token = _FOLLOW.set(True)
    try:
        yield
    finally:
        _FOLLOW.reset(token)


def will_follow() -> bool:
    """Return whether a checkpoint brings the weights of what is built now."""
    return _FOLLOW.get()


def await_weights(network: nn.Module, why: str) -> None:
    """Mark a network until it is given a ``state_dict``.

    Args:
        network: With weights that mean nothing.
        why: What to say where nobody gives it any.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> await_weights(network, "there is no folder teacher")
        >>> network.load_state_dict(nn.Linear(1, 1).state_dict())
        <All keys matched successfully>
        >>> check_weights(network)
    """
    setattr(network, _MARK, why)
    network.register_load_state_dict_post_hook(_arrived)  # type: ignore[no-untyped-call]


def _arrived(network: nn.Module, missing: Any) -> None:
    stop_waiting(network)


def stop_waiting(module: nn.Module) -> None:
    """Take the weights of all networks in ``module`` as come, in another way, or as not needed."""
    for part in module.modules():
        if hasattr(part, _MARK):
            setattr(part, _MARK, None)


def check_weights(module: nn.Module) -> None:
    """Refuse to go on with a network whose weights never came.

    Raises:
        FileNotFoundError: For one inside ``module``.
    """
    for part in module.modules():
        why = getattr(part, _MARK, None)
        if why is not None:
            raise FileNotFoundError(why)
