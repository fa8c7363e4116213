"""Which metrics a module logs, and which its sub-class logs under the same names."""

__all__ = ["LoggedNames"]


class LoggedNames:
    """Decides between a metric of ours and one of a sub-class with the same name.

    What a sub-class logs in a step replaces ours from then on. Our hooks run before those of the
    sub-class: a name that it logs in the same hook would be averaged with ours, and is refused.
    In any other hook every name is free, and ours goes on.

    Example:
        >>> names = LoggedNames()
        >>> names.begin_step()
        >>> names.log_theirs("val/loss", kind="Mine")
        >>> names.begin_hook()
        >>> names.log_ours("val/loss"), names.log_ours("val/perplexity")
        (False, True)
    """

    def __init__(self) -> None:
        self._in_step = True
        self._theirs: set[str] = set()
        self._ours: set[str] = set()

    def begin_step(self) -> None:
        """Take what is logged from now on as logged in a step."""
        self._in_step = True
        self._ours.clear()

    def begin_hook(self) -> None:
        """Take what is logged from now on as logged in the hook that begins."""
        self._in_step = False
        self._ours.clear()

    def log_ours(self, name: str) -> bool:
        """Return whether we log ``name``, or leave it to the sub-class."""
        if name in self._theirs:
            return False
        if not self._in_step:
            self._ours.add(name)
        return True

    def log_theirs(self, name: str, *, kind: str) -> None:
        """Note that a sub-class logs ``name``.

        Args:
            name: The metric.
            kind: The class, for the error.

        Raises:
            ValueError: If we have logged this name in the same hook.
        """
        if name in self._ours:
            step = "training_step" if name.startswith("train/") else "a validation or test step"
            raise ValueError(
                f"{kind} logs {name!r}, which was logged for it just before in the same hook; "
                f"choose another name, or log it in {step}, where it replaces ours"
            )
        if self._in_step:
            self._theirs.add(name)
