"""What loader workers make of a signal that tells training to leave: nothing."""

import signal

__all__ = ["outlive_signals"]


def outlive_signals(worker: int) -> None:
    """Ignore SIGTERM and SIGUSR1 in a worker of a loader.

    Clusters send them to all processes of a job. The one that trains wants to finish its step, and
    takes the death of a worker for an error. Workers end when it tells them to, or is gone.

    Args:
        worker: Its number, which ``DataLoader`` passes.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
