"""What turns text into ids: `tokenizers`, or something faster that has to agree with it.

A faster encoder is never taken at its word. Before its first ids are used, both encode a list of
difficult texts and the beginning of the text at hand; from then on both encode one text in a
thousand, which costs less than a hundredth of the time.
"""

import warnings
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

__all__ = ["PROBES", "CheckedEncoder", "Encoder", "LibraryEncoder"]

_CHARACTERS_COMPARED = 1 << 16
_TEXTS_BETWEEN_CHECKS = 1000
_SHOWN = 60

_RUNS = (1, 2, 3, 4, 7, 31, 130, 1030)
_UNITS = (" ", "\n", "\r\n", "\t", " \n", "\n ", "0", "12", "a", "ab", "-", "=", "...", "\u00a0")
_EVERYWHERE = "".join(map(chr, (*range(0x300), *range(0x300, 0xD800, 61), *range(0xE000, 1 << 16))))
PROBES: tuple[str, ...] = (
    "",
    *map(chr, range(256)),
    _EVERYWHERE,
    " ".join(_EVERYWHERE[::3]),
    "".join(map(chr, range(0x10000, 0x110000, 997))),
    *(unit * run for unit in _UNITS for run in _RUNS),
    *(f"x{unit * run}y {unit * run}" for unit in _UNITS for run in _RUNS[:5]),
    "I'm you're WE'LL they'd it'S don\u2019t 'tis rock'n'roll '\u017f '\u212a 's's 'LL",
    "e\u0301 \u0915\u094d\u0937\u093f \u0e01\u0e33 a\u0300\u0301\u0302 \u200b\u200d\ufeff\u2028",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f466 \u2764\ufe0f 1\ufe0f",
    "\u4e2d\u6587\uff0c\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8\ud55c\uad6d\uc5b4 abc\u4e2d1",
    "\u0661\u0662\u0663 \u00bd\u00b2 \u216b 1,000.50 3.14e-10 0x1F 2026-11-25 10:00:00",
    "<|endoftext|> <|im_start|>user\n<s>[INST]</s>[CLS]<bos><pad><|fim_prefix|><tool_call>",
    "def f(x):\n    if x:\n\n\n        return {'a': [1, 2]}  # done\r\n\r\n\tpass\n \n  \n\t \n",
)
"""Difficult texts: every byte, long runs, contractions, marks, scripts, numbers, special tokens."""


class Encoder(Protocol):
    """Something that turns texts into ids."""

    @property
    def name(self) -> str:
        """What it is, to be told."""

    def encode(self, texts: list[str], /) -> list[npt.NDArray[Any]]:
        """Return the ids of each text, without the start token."""


class LibraryEncoder:
    """`tokenizers` itself, which defines what is right, on all cores.

    Args:
        backend: The tokenizer.
        dtype: Of the ids.
    """

    name = "tokenizers"

    def __init__(self, backend: tokenizers.Tokenizer, dtype: npt.DTypeLike) -> None:
        self.backend, self.dtype = backend, dtype

    def encode(self, texts: list[str], /) -> list[npt.NDArray[Any]]:
        """Return the ids of each text."""
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=self.dtype) for encoding in encodings]


class CheckedEncoder:
    """A fast encoder that is compared with another, and replaced by it if they differ at first.

    Where they differ later, ids that were given before may be wrong, too: that is an error.

    Args:
        fast: What encodes.
        reference: What is right.
        probes: Difficult texts.
    """

    def __init__(
        self, fast: Encoder, reference: Encoder, *, probes: tuple[str, ...] = PROBES
    ) -> None:
        self.fast: Encoder | None = fast
        self.reference = reference
        self._to_compare = _CHARACTERS_COMPARED
        self._num_texts = 0
        self._compare(list(probes))

    @property
    def name(self) -> str:
        """The encoder in use."""
        return self.reference.name if self.fast is None else self.fast.name

    def encode(self, texts: list[str], /) -> list[npt.NDArray[Any]]:
        """Return the ids of each text.

        Raises:
            RuntimeError: Where the encoders differ after they agreed at first.
        """
        if self.fast is not None and self._to_compare > 0:
            self._compare_first(texts)
        if self.fast is None:
            return self.reference.encode(texts)
        found = self.fast.encode(texts)
        before = self._num_texts
        self._num_texts += len(texts)
        for number in range(-before % _TEXTS_BETWEEN_CHECKS, len(texts), _TEXTS_BETWEEN_CHECKS):
            (right,) = self.reference.encode([texts[number]])
            if not np.array_equal(found[number], right):
                raise RuntimeError(
                    f"{self.fast.name} and {self.reference.name} encode a text differently after "
                    f"they agreed on others; it begins with {texts[number][:_SHOWN]!r}. Uninstall "
                    f"{self.fast.name}, and remove stores that were prepared with it from the cache"
                )
        return found

    def _compare_first(self, texts: list[str]) -> None:
        """Compare the first texts until there were enough; none is used before it was compared."""
        first = []
        for text in texts:
            first.append(text)
            self._to_compare -= len(text)
            if self._to_compare <= 0:
                break
        self._compare(first)

    def _compare(self, texts: list[str]) -> None:
        assert self.fast is not None
        pairs = zip(self.fast.encode(texts), self.reference.encode(texts), strict=True)
        for text, (found, right) in zip(texts, pairs, strict=True):
            if not np.array_equal(found, right):
                warnings.warn(
                    f"{self.fast.name} encodes {text[:_SHOWN]!r} unlike {self.reference.name}, so "
                    f"that {self.reference.name} is used, which is slower",
                    stacklevel=2,
                )
                self.fast = None
                return
