"""Cuts a long text where a byte-level tokenizer would cut it anyway, if there is such a place."""

import re
from collections.abc import Iterator

__all__ = ["PIECE_LENGTH", "pieces"]

PIECE_LENGTH = 1 << 20
"""Characters of a piece, at most."""

_SEARCHED = 1 << 16
# Between a line end and what follows it, or a word and the space before the next. The patterns in
# use (GPT-2's, its followers' and ours) all begin a new token there, if the mark stands alone.
_PLACES = (re.compile(r"\S\n(?=\S)"), re.compile(r"\S(?= \S)"))


def pieces(text: str, length: int = PIECE_LENGTH) -> Iterator[str]:
    r"""Yield a text in pieces of at most ``length`` characters, cut at line ends, else at spaces.

    Example:
        >>> list(pieces("one\ntwo three", 6)), list(pieces("onetwothree", 6))
        (['one\n', 'two', ' three'], ['onetwo', 'three'])
    """
    start = 0
    while len(text) - start > length:
        end = _last_place(text, start, start + length)
        yield text[start:end]
        start = end
    yield text[start:]


def _last_place(text: str, start: int, end: int) -> int:
    near = max(start, end - _SEARCHED)
    for place in _PLACES:
        # what may follow is looked at, too
        found = [m.end() for m in place.finditer(text, near, end + 2) if m.end() <= end]
        if found:
            return found[-1]
    return end
