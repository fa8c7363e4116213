"""Pictures as files."""

from pathlib import Path
from typing import TYPE_CHECKING

from pile_lightning.whole_file import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_png"]


def write_png(figure: "Figure", path: str | Path) -> None:
    """Draw a figure without a screen and write it as a whole PNG.

    Args:
        figure: What to draw.
        path: Where to; folders that are missing are made.

    Raises:
        OSError: If it cannot be written; what was there is untouched.
    """
    # an import of a second that only a picture should cost
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replace_file(path) as file:
        FigureCanvasAgg(figure).print_figure(file, dpi=110, format="png")
