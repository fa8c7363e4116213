"""Text that spells a special token stays text, also where the vocabulary has it as a word.

The option ``encode_special_tokens`` of the `tokenizers` library is not enough: Unigram, WordPiece,
WordLevel, and BPE with ``ignore_merges`` also look up whole words in their vocabulary.
"""

import copy
import json
import re
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import Regex, models, pre_tokenizers

__all__ = ["SpecialText"]


class SpecialText:
    """Encodes a text again, in other pieces, where its ids hold a special token.

    Args:
        backend: The tokenizer, which is not changed.
        vocab_size: Number of ids; every id is below.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> words = {"<unk>": 0, "<s>": 1, "<": 2, "s>": 3, "a": 4}
        >>> backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        >>> backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> backend.encode_special_tokens = True
        >>> backend.add_special_tokens(["<unk>", "<s>"])
        2
        >>> ids = np.array(backend.encode("a <s>").ids)
        >>> ids.tolist(), SpecialText(backend, vocab_size=5).keep_out(ids, "a <s>").tolist()
        ([4, 1], [4, 2, 3])
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, vocab_size: int) -> None:
        self.backend = backend
        added = backend.get_added_tokens_decoder()
        unknown = _unknown_token(backend)  # which text may become
        self._spelled = {
            number: token.content
            for number, token in added.items()
            if token.special and token.content != unknown
        }
        self._is_special = np.zeros(vocab_size, dtype=bool)
        self._is_special[list(self._spelled)] = True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_splitting"}

    def keep_out(self, ids: npt.NDArray[Any], text: str) -> npt.NDArray[Any]:
        """Return the ids of ``text``, without special tokens.

        Args:
            ids: What the text was encoded to.
            text: The text.

        Raises:
            ValueError: For text that cannot be encoded without one.
        """
        if not self._holds_special(ids):
            return ids
        found = self._splitting.encode(text, add_special_tokens=False).ids
        again = np.array(found, dtype=ids.dtype)
        if self._holds_special(again):
            token = next(self._spelled[i] for i in found if i in self._spelled)
            raise ValueError(
                f"a text spells the special token {token!r}, and the tokenizer knows no other "
                f"pieces for it; leave the text out, or choose another tokenizer. The text begins "
                f"with {text[:60]!r}"
            )
        return again

    def _holds_special(self, ids: npt.NDArray[Any]) -> bool:
        return bool(self._is_special[ids].any())

    @cached_property
    def _splitting(self) -> tokenizers.Tokenizer:
        """The tokenizer, which also splits within what spells a special token."""
        backend = copy.deepcopy(self.backend)
        backend.encode_special_tokens = True  # which a copy forgets
        splits = [
            pre_tokenizers.Split(Regex(f"{re.escape(first)}(?={re.escape(rest)})"), "isolated")
            for first, rest in ((word[0], word[1:]) for word in self._spelled.values())
            if rest
        ]
        before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence([*before, *splits])
        return backend


def _unknown_token(backend: tokenizers.Tokenizer) -> str | None:
    if not isinstance(backend.model, models.Unigram):
        unknown: str | None = getattr(backend.model, "unk_token", None)
        return unknown
    model = json.loads(backend.to_str())["model"]  # which alone says it of a Unigram
    return None if model["unk_id"] is None else str(model["vocab"][model["unk_id"]][0])
