"""Standard output and error that may be gone: a closed pipe or a full disk must not end a run."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, cast

__all__ = ["output_lost", "steady_streams"]


class _SteadyStream:
    """A text stream that, once it cannot be written to, takes everything and drops it."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream or io.StringIO(), name
        closed = OSError(errno.EBADF, os.strerror(errno.EBADF))
        self.lost: OSError | None = closed if stream is None else None

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        if self.lost is None:
            try:
                return cast(int, self._stream.write(text))
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def writelines(self, lines: Any) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        with contextlib.suppress(OSError, ValueError):
            # also for what other code writes, and for what is still in a buffer
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        if error.errno != errno.EPIPE:  # who closes a pipe has read enough
            print(
                f"{self._name} cannot be written ({error.strerror}), and what is printed from here "
                f"on is lost; send it to a file on another disk, or to /dev/null",
                file=sys.stderr,
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def steady_streams() -> Iterator[None]:
    """Let nothing that is printed fail, and keep files off the numbers of closed streams."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # `>&-`: the next file would get the number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    names = "standard output", "standard error"
    steady = [_SteadyStream(stream, name) for stream, name in zip(before, names, strict=True)]
    sys.stdout, sys.stderr = cast(list[Any], steady)
    try:
        yield
    finally:
        for stream in steady:
            stream.flush()
        # what is lost stays so: Python flushes once more when it ends
        if not any(stream.lost for stream in steady):
            sys.stdout, sys.stderr = before


def output_lost() -> OSError | None:
    """Return why standard output cannot be written to any more, or None."""
    sys.stdout.flush()
    lost: OSError | None = getattr(sys.stdout, "lost", None)
    return lost
