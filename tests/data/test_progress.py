"""One bar over several jobs: in the sources' bytes, never back, and whole at the end."""

import io
import sys

import pytest

from pile_lightning.data.progress import Progress
from pile_lightning.data.workers import Report


def test_text_is_counted_as_the_sources_count_it() -> None:
    progress = Progress([100, 100, 100], quiet=True)
    assert (progress.total, progress.position) == (300, 0)
    progress.report(0, Report(30, 0, 12))
    assert progress.position == 30
    # three bytes of text for each of the file, as when it is compressed: no more than its size
    progress.report(0, Report(300, 0, 120))
    assert progress.position == 100
    progress.finish(0)
    progress.report(1, Report(150, 0, 60))
    assert progress.position == 150
    assert (progress.stored, progress.needed()) == (180, 240)
    # a finished shard says more than an estimate
    progress.report(1, Report(150, 80, 60))
    assert progress.position == 180
    progress.finish(1)
    progress.finish(2)
    assert (progress.position, progress.needed()) == (300, 0)


def test_sources_that_do_not_tell_their_size() -> None:
    progress = Progress([None, 50], quiet=True)
    progress.report(0, Report(70, 0, 1))
    assert (progress.total, progress.position, progress.needed()) == (None, 70, None)
    progress.finish(0)
    assert progress.position == 70


def test_the_bar_shows_speed_and_time_left_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("pile_lightning.data.progress._DELAY", -1.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress([10_000_000, 10_000_000], quiet=False)
    progress.report(0, Report(5_000_000, 0, 1))
    progress.report(0, None)
    progress.finish(0)
    progress.report(1, None)
    progress.close()
    shown = sys.stderr.getvalue().split("\r")  # type: ignore[attr-defined]
    assert any("25%" in line and "5.00M/20.0M" in line for line in shown)
    assert "10.0M/20.0M" in shown[-1]
    assert "B/s]" in shown[-1]
    assert "<" in shown[-1]
