"""Rows of a batch as text, with the borders of their documents."""

import unicodedata
from collections.abc import Iterator, Sequence

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.callbacks.text_table import COLUMNS
from pile_lightning.data import Tokenizer

__all__ = ["show_row"]

_INDENT = "  | "
_LINES_OF_A_PART = 6
_PARTS_OF_A_ROW = 5


def show_row(batch: TokenBatch, row: int, *, tokenizer: Tokenizer) -> list[str]:
    """Return the lines that show a row: its documents, and where each begins and ends.

    Args:
        batch: A batch of training rows.
        row: Which of its rows.
        tokenizer: What made the tokens.
    """
    ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
    documents = [0] * len(ids)
    if batch["document_ids"] is not None:
        documents = batch["document_ids"][row].tolist()
    length = len(ids)
    while length and labels[length - 1] == IGNORE_INDEX:
        length -= 1
    starts = [i for i in range(length) if i == 0 or documents[i] != documents[i - 1]]
    ends = [*starts[1:], length]
    lines = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if number == _PARTS_OF_A_ROW:
            lines.append(f"  ... and {len(starts) - number} more documents")
            break
        opens = ids[start] == tokenizer.start_id
        lines.append("  [a document begins]" if opens else "  [goes on from the row before]")
        lines += [_INDENT + line for line in _excerpt(tokenizer.decode(ids[start + opens : end]))]
    else:
        if length and labels[length - 1] != tokenizer.start_id:
            lines.append("  [goes on in the next row]")
    if length < len(ids):
        lines.append(f"  [{len(ids) - length} positions of padding]")
    return lines


def _excerpt(text: str) -> list[str]:
    """Return the first lines of a text and its last."""
    lines = [piece for line in text.split("\n") for piece in _wrapped(line)]
    if len(lines) <= _LINES_OF_A_PART:
        return lines
    left_out = len(lines) - _LINES_OF_A_PART + 1
    return [*lines[: _LINES_OF_A_PART - 2], f"... {left_out} lines ...", lines[-1]]


def _wrapped(line: str) -> Iterator[str]:
    """Yield a line in pieces that fit the screen, whatever characters it has."""
    piece, width = "", 0
    for symbol in _visible(line):
        size = sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in symbol)
        if width + size > COLUMNS - len(_INDENT):
            yield piece
            piece, width = "", 0
        piece, width = piece + symbol, width + size
    yield piece


def _visible(line: str) -> Sequence[str]:
    """Return the characters of a line; what would move the cursor or colour the screen is named."""
    return [
        c if c.isprintable() else "    " if c == "\t" else c.encode("unicode_escape").decode()
        for c in line
    ]
