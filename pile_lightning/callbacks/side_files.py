"""Files that a run writes besides its checkpoints: a full disk must not end the run."""

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

__all__ = ["SideFiles"]


class SideFiles:
    """Write files that training can do without; what fails is named and tried again.

    Example:
        >>> import tempfile
        >>> from pile_lightning.whole_file import write_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     SideFiles().write(path, lambda: write_file(path, "text"))
        ...     path.read_text()
        'text'
    """

    def __init__(self) -> None:
        self._waiting: dict[Path, Callable[[], object]] = {}

    def write(self, path: Path, write: Callable[[], object]) -> None:
        """Write a file, and those that could not be written before.

        Args:
            path: Which one, for the warning; a later call for the same path replaces an earlier.
            write: Writes it; it may raise an ``OSError``.
        """
        self._waiting.pop(path, None)
        self._waiting[path] = write
        self.retry()

    def retry(self) -> None:
        """Write what could not be written before."""
        for path, write in list(self._waiting.items()):
            try:
                write()
            except OSError as error:
                rank_zero_warn(
                    f"{path} was not written: {error.strerror or error}. What was there is "
                    f"untouched; training needs none of it, and tries again as it goes on."
                )
            else:
                del self._waiting[path]
