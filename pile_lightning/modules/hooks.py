"""Which of Lightning's hooks a sub-class has of its own, and whether it leaves ours in them."""

import inspect
from collections.abc import Collection, Iterable

from lightning import LightningModule
from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks

__all__ = ["HOOKS", "check_supers", "overridden"]

_STEPS = ("training_step", "validation_step", "test_step", "predict_step", "backward")
_CONFIGURES = ("callbacks", "gradient_clipping", "optimizers")
_OPTIMIZES = ("optimizer_step", "optimizer_zero_grad", "lr_scheduler_step")

HOOKS: tuple[str, ...] = (
    *_STEPS,
    *(f"configure_{name}" for name in _CONFIGURES),
    *_OPTIMIZES,
    *(n for kind in (ModelHooks, DataHooks, CheckpointHooks) for n in vars(kind) if n[0] != "_"),
)
"""What Lightning calls of a module, as it documents it."""


def overridden(kind: type, *, base: type = LightningModule) -> list[str]:
    """Return the hooks that ``kind`` has not from ``base``.

    Example:
        >>> class Mine(LightningModule):
        ...     def on_train_start(self):
        ...         print("started")
        >>> overridden(Mine)
        ['on_train_start']
    """
    return [name for name in HOOKS if getattr(kind, name, None) is not getattr(base, name, None)]


def check_supers(kind: type, *, base: type, hooks: Iterable[str]) -> None:
    """Refuse a sub-class that overrides a hook and does not call what ``base`` does in it.

    Args:
        kind: The sub-class.
        base: Our class.
        hooks: Those that ``base`` cannot do without.

    Raises:
        TypeError: For such a class.
    """
    parents = kind.__mro__[: kind.__mro__.index(base)]
    for hook in hooks:
        for parent in parents:
            own = vars(parent).get(hook)
            if own is not None and hook not in _names(own):
                raise TypeError(
                    f"{parent.__name__}.{hook} leaves out what {base.__name__} does in it; call "
                    f"super().{hook}() in it, with the same arguments, and return what it returns "
                    f"if it returns anything"
                )


def _names(function: object) -> Collection[str]:
    """Return the names that a function mentions; a call of ``super().hook`` mentions the hook."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return HOOKS if code is None else code.co_names  # what is no function cannot be looked into
