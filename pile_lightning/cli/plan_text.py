"""What a planned run takes of its text, if that is prepared."""

from pile_lightning.cli.inspection import run_lines
from pile_lightning.cli.plan_run import Run
from pile_lightning.data import StreamedText, TextData
from pile_lightning.data.store import TokenStore

__all__ = ["text_lines"]

_LATER = "pile prepare and pile inspect tell tokens and epochs by domain"


def text_lines(run: Run) -> list[str]:
    """Return tokens and epochs by domain of the planned steps; nothing is prepared for it."""
    data = run.data
    if not isinstance(data, TextData | StreamedText):
        return []
    try:
        prepared = TokenStore.find(data.store_path) is not None
        if not prepared:
            return [f"Text: not prepared yet; {_LATER}."]
        data.setup("fit")
        return ["Text:", *run_lines(data, run.max_steps)]
    except (OSError, ValueError, RuntimeError) as error:
        # a plan is of use before the text is at hand
        return [f"Text: {error}", f"({_LATER}, once it is there.)"]
