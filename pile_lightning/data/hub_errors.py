"""What a user is told where ``datasets`` cannot load or read: its own errors end deep inside it."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["cannot_read", "loading"]


def cannot_read(what: str, error: BaseException) -> str:
    """Say that a dataset is broken, and what reads the rest of it."""
    return (
        f"datasets cannot read {what}: {error!r}; it gives up a whole block of rows for one that "
        f"is broken: where the files are text, jsonl or parquet, FileSource reads the others"
    )


@contextmanager
def loading(path: str) -> Iterator[None]:
    """Turn an error of loading ``path`` into an OSError that says what to do.

    Raises:
        OSError: Where the dataset is not there, cannot be reached, or is broken.
    """
    from datasets.exceptions import DatasetGenerationError

    try:
        yield
    except DatasetGenerationError as error:
        raise OSError(cannot_read(path, error.__cause__ or error)) from error
    except (OSError, ValueError) as error:
        raise OSError(
            f"datasets cannot load {path!r}: {' '.join(str(error).split())}; check path, config, "
            f"split and the network, or give a folder on this machine"
        ) from error
