"""One thing at a time beside training."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Background"]


class Background:
    """Runs one function at a time in a thread; a second one waits for the first.

    Example:
        >>> background, done = Background(), []
        >>> background.run(lambda: done.append("saved"))
        >>> background.wait()
        >>> done
        ['saved']
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._running: Future[object] | None = None

    def run(self, function: Callable[[], object]) -> None:
        """Run ``function`` in the thread, when what runs there has ended."""
        self.wait()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running = self._executor.submit(function)

    def wait(self) -> None:
        """Wait until nothing runs."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        self.wait()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
