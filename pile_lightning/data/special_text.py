"""Text that spells a special token stays text, also where the vocabulary has it as a word.

`tokenizers` can be told not to look for special tokens in text. Its model may find one all the
same: Unigram, WordPiece, WordLevel, and BPE with ``ignore_merges`` look whole words up.
"""

import copy
import json
import re
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import Regex, pre_tokenizers

__all__ = ["SpecialText"]


class SpecialText:
    """Encodes a text again, in other pieces, where its ids hold a special token.

    Args:
        backend: The tokenizer, which is not changed.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> words = {"<unk>": 0, "<s>": 1, "<": 2, "s>": 3, "a": 4}
        >>> backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        >>> backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> backend.encode_special_tokens = True
        >>> backend.add_special_tokens(["<unk>", "<s>"])
        2
        >>> ids = np.array(backend.encode("a <s>").ids)
        >>> ids.tolist(), SpecialText(backend).keep_out(ids, "a <s>").tolist()
        ([4, 1], [4, 2, 3])
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        added = backend.get_added_tokens_decoder()
        unknown = _unknown_token(backend)  # which text may become
        self._spelled = {
            number: token.content
            for number, token in added.items()
            if token.special and token.content != unknown
        }
        self._is_special = np.zeros(max(self._spelled, default=-1) + 1, dtype=bool)
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
        table = self._is_special
        if not len(table) or not len(ids):
            return False
        return bool(table[ids[ids < len(table)]].any())

    @cached_property
    def _splitting(self) -> tokenizers.Tokenizer:
        """The tokenizer, which also splits within what spells a special token."""
        backend = copy.deepcopy(self.backend)
        backend.encode_special_tokens = True  # which a copy forgets
        splits = [
            pre_tokenizers.Split(Regex(f"{_quote(word[0])}(?={_quote(word[1:])})"), "isolated")
            for word in self._spelled.values()
            if len(word) > 1
        ]
        before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence([*before, *splits])
        return backend


def _quote(text: str) -> str:
    """Quote what a regex means otherwise; Oniguruma takes a backslash before any punctuation."""
    return re.sub(r"([^\w\s])", r"\\\1", text, flags=re.ASCII)


def _unknown_token(backend: tokenizers.Tokenizer) -> str | None:
    model = json.loads(backend.to_str())["model"]
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    unknown: str | None = model.get("unk_token")
    return unknown
