"""Rewrites the pattern that splits text for a BPE so that another regex engine reads it alike.

`tokenizers` matches with Oniguruma, tiktoken with Rust's regex. They disagree on what counts as a
letter or a number where they know different versions of Unicode, and on some syntax. So every class
of characters is replaced by the very characters that `tokenizers` finds in it, which takes a
twentieth of a second for each, and a pattern with syntax that may mean something else is refused.
"""

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import Regex
from tokenizers.normalizers import Replace

__all__ = ["GPT2_PATTERN", "portable_pattern"]

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ``ByteLevel(use_regex=True)`` splits by."""

_PARTS = re.compile(
    r"""(?P<plain>\[(?:\\[rnt]|[\ /])+\])
    |(?P<chars>\[(?:\\.|[^\[\]\\&])+\]|\\[pP]\{\^?\w+\}|\\[sS])
    |(?P<open>\((?:\?(?:i:|:|!|=)|(?!\?)))
    |(?P<close>\))
    # not {1,3}+, which is possessive in one and repeats twice in the other
    |(?P<repeat>[?*+][?+]?|\{\d+(?:,\d*)?\}(?![?*+]))
    |(?P<other>\||\\[rnt]|\\[^\w\s]|[^\\\[\](){}?*+|^$.#&~])""",
    re.VERBOSE,
)
# one character, such as U+FB06, may match two letters where case does not matter
_FOLDED_PAIRS = re.compile(r"(?i)ss|st|f[fil]")
_BLOCK = 1 << 11  # surrogates are one
_SURROGATES = range(0xD800, 0xE000)
_END = 0x110000


def portable_pattern(pattern: str) -> str | None:
    r"""Return a pattern for Rust's regex that splits as ``pattern`` does in `tokenizers`.

    None where that is not certain, or where text is left that the pattern does not match.

    Example:
        >>> portable_pattern(r"[ab]+|(?i:x)|[^ab]")  # doctest: +ELLIPSIS
        '[\\x{61}-\\x{62}]+|(?:[\\x{58}-\\x{58}\\x{78}-\\x{78}])|[\\x{0}-\\x{60}...'
        >>> portable_pattern(r"\w+"), portable_pattern("[ab]+") # unknown syntax; leaves text
        (None, None)
    """
    done: list[str] = []
    any_case = [False]
    place = 0
    while place < len(pattern):
        part = _PARTS.match(pattern, place)
        if part is None:
            return None
        text, place = part.group(), part.end()
        if part["open"]:
            any_case.append(any_case[-1] or text == "(?i:")
            text = text.replace("?i:", "?:")
        elif part["close"]:
            any_case.pop()
        elif part["chars"] or (any_case[-1] and text.isalpha()):
            text = _as_ranges(text, any_case[-1])
        done.append(text)
    if "(?i:" in pattern and _FOLDED_PAIRS.search(pattern):
        return None
    return None if _left_by(pattern) else "".join(done)


@lru_cache
def _as_ranges(chars: str, any_case: bool) -> str:
    """Return a class of characters as the ranges of characters that are in it."""
    outside = _left_by(f"(?i:{chars})+" if any_case else f"{chars}+")
    # surrogates are no characters, and lie in no range
    others = np.concatenate([_codes(outside), np.array(_SURROGATES), [-1, _END]])
    others.sort()
    starts, ends = others[:-1] + 1, others[1:] - 1
    some = starts <= ends
    ranges = zip(starts[some].tolist(), ends[some].tolist(), strict=True)
    return "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in ranges) + "]"


def _left_by(pattern: str) -> str:
    """Return all characters of Unicode that no match of ``pattern`` takes away."""
    without = Replace(Regex(pattern), "")
    # in blocks: the library copies what is left at every match
    blocks = (np.arange(first, first + _BLOCK, dtype="<u4") for first in range(0, _END, _BLOCK))
    return "".join(
        without.normalize_str(block.tobytes().decode("utf-32-le"))
        for block in blocks
        if int(block[0]) not in _SURROGATES
    )


def _codes(text: str) -> npt.NDArray[np.int64]:
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
