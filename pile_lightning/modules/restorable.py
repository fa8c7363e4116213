"""Modules whose hyper-parameters are the arguments of their constructor, as plain data.

Lightning collects the arguments of all constructors of a class and its bases, which is what
``self.hparams`` is read for. A sub-class that makes its own network would be given it a second time
when it is loaded. So the arguments of the outermost constructor are noted before it runs, and what
else is among the hyper-parameters is marked as the class's own. What would not come back from a
checkpoint as it is, is refused as soon as the module is made.
"""

import inspect
import sys
from abc import ABCMeta
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Self, cast

from lightning import LightningModule

from pile_lightning.checkpoint_settings import SET_BY_CLASS, arguments_of
from pile_lightning.config import check_plain, from_plain, to_plain
from pile_lightning.modules.loading import load_module
from pile_lightning.nn import will_follow

__all__ = ["RestorableModule", "read_back"]


class _NotesArguments(ABCMeta):
    """Notes what a module is made with before its constructor can change it."""

    @property
    def __signature__(cls) -> inspect.Signature:
        init = inspect.signature(cls.__init__)  # type: ignore[misc]
        return init.replace(parameters=list(init.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if will_follow():
            kwargs = cast(Any, cls).read_arguments(kwargs)
        given, left_open = _given(cls, args, kwargs)
        noted = {name: _plain(name, value) for name, value in (given | left_open).items()}
        # what is trained is what a checkpoint will give, also where numpy's numbers become Python's
        given = {name: _read_back(noted[name], value) for name, value in given.items()}
        module = super().__call__(**given)
        module.keep_arguments(given | left_open, noted)
        return module


class RestorableModule(LightningModule, metaclass=_NotesArguments):
    """A module that a checkpoint of it makes again.

    Raises:
        TypeError: For an argument that cannot be stored.
        ValueError: For an argument that would come back as another.
    """

    kept_plain: tuple[str, ...] = ()
    """Arguments that the constructor takes as plain data."""

    def __init__(self) -> None:
        super().__init__()
        self._of_base: dict[str, tuple[Any, Any]] = {}

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path | IO[bytes], *settings: Any, **more: Any
    ) -> Self:
        """Load a checkpoint of any strategy, as data: a file, a sharded one's folder, or a URL.

        Args:
            checkpoint_path: The file, the folder, or the URL of a file.
            settings: As Lightning's ``load_from_checkpoint`` takes them.
            more: As Lightning's; also arguments in the place of those in the checkpoint.

        Raises:
            ValueError: For a checkpoint that is damaged, holds more than data, or names what is
                not imported.
        """
        return load_module(cls, checkpoint_path, *settings, **more)

    @classmethod
    def read_arguments(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments for the constructor, made of those in a checkpoint."""
        return {
            name: value if name in cls.kept_plain else from_plain(value)
            for name, value in arguments_of(stored).items()
        }

    def store_as(self, name: str, given: Any, plain: Any) -> None:
        """Say how an argument is stored, also where a sub-class hands it on.

        Args:
            name: Its name.
            given: What it was.
            plain: What a checkpoint holds in its place.
        """
        self._of_base[name] = given, plain
        self.hparams[name] = plain

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: str | Iterable[str] | None = None,
        frame: Any = None,
        logger: bool = True,
    ) -> None:
        """Add hyper-parameters, or leave arguments out; those of the constructor are there already.

        Args:
            args: As Lightning's takes them.
            ignore: Arguments to leave out, which ``load_from_checkpoint`` is then to be given.
            frame: As Lightning's takes it.
            logger: Whether loggers are told.
        """
        left_out = [ignore] if isinstance(ignore, str) else list(ignore or ())
        self.__dict__.setdefault("_left_out", set()).update(left_out)
        self.__dict__["_to_logger"] = logger
        frame = frame or sys._getframe(1)
        super().save_hyperparameters(*args, ignore=left_out, frame=frame, logger=logger)
        if "_arguments" in self.__dict__:  # the constructor has ended
            self._settle()

    def keep_arguments(self, given: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
        """Make the arguments of the constructor the hyper-parameters.

        Args:
            given: The arguments.
            noted: Their plain form, or the error where there is none.
        """
        left_out = self.__dict__.get("_left_out", set())
        arguments = {}
        for name, plain in noted.items():
            if name in left_out:
                continue
            if name in self._of_base and self._of_base[name][0] is given[name]:
                arguments[name] = self._of_base[name][1]
            else:
                arguments[name] = self.check_argument(name, plain)
        self.__dict__["_arguments"] = arguments
        self._of_base.clear()
        self._settle()

    @classmethod
    def check_argument(cls, name: str, plain: Any) -> Any:
        """Return the plain form of an argument, if it comes back.

        Raises:
            TypeError: For one that has none.
            ValueError: For one that comes back as another.
        """
        try:
            if isinstance(plain, Exception):
                raise plain
            check_plain(plain, of=name)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{cls.__name__} could not be loaded from its checkpoint: {error}, or leave it out "
                f"by save_hyperparameters(ignore=[{name!r}]) and give it to load_from_checkpoint"
            ) from None
        return plain

    def _settle(self) -> None:
        arguments = self.__dict__["_arguments"]
        known = {n: _plain(n, value, exact=False) for n, value in self.hparams.items()}
        taken = {*arguments, *self.__dict__.get("_left_out", ()), SET_BY_CLASS}
        own = {
            name: value
            for name, value in known.items()
            if not isinstance(value, Exception) and name not in taken
        }
        settled = {**own, **arguments}
        if own:
            settled[SET_BY_CLASS] = sorted(own)
        self.hparams.clear()
        outermost = sys._getframe()
        while outermost.f_back is not None:  # where Lightning finds no constructor
            outermost = outermost.f_back
        logger = self.__dict__.get("_to_logger", True)
        super().save_hyperparameters(settled, frame=outermost, logger=logger)


def _given(
    kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments by name, and the defaults of those that are left out.

    Raises:
        TypeError: For arguments that there are not, that a checkpoint cannot name, or does not
            hold.
    """
    signature = inspect.signature(kind)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        hint = "; --help, or help() in Python, lists what it takes"
        if will_follow():
            hint = (
                "; give load_from_checkpoint what save_hyperparameters has left out, or load the "
                "checkpoint with the version of the class that made it"
            )
        raise TypeError(f"{kind.__name__}: {error}{hint}") from None
    given: dict[str, Any] = {}
    left_open: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name in bound.arguments:
            value = bound.arguments[name]
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise TypeError(
                    f"{kind.__name__} takes {name!r} by position alone, and a checkpoint stores "
                    f"arguments by name; let its constructor take it by name"
                )
            given |= value if parameter.kind is parameter.VAR_KEYWORD else {name: value}
        elif parameter.default is not parameter.empty:
            left_open[name] = parameter.default
    # what a default is need not be stored, where it cannot be
    return given, {n: v for n, v in left_open.items() if not isinstance(_plain(n, v), Exception)}


def read_back(value: Any) -> Any:
    """Return a setting as a checkpoint gives it, or as it is where it has no plain form.

    Example:
        >>> import numpy as np
        >>> read_back({"lr": np.float64(0.5)})
        {'lr': 0.5}
    """
    return _read_back(_plain("", value), value)


def _read_back(plain: Any, value: Any) -> Any:
    try:
        return value if isinstance(plain, Exception) else from_plain(plain)
    except (AttributeError, KeyError, TypeError, ValueError):
        return value  # it is refused later, if it is not left out


def _plain(name: str, value: Any, *, exact: bool = True) -> Any:
    try:
        return to_plain(value, of=name, exact=exact)
    except TypeError as error:
        return error
