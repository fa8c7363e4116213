"""tiktoken as the encoder of a byte-level BPE: the same ids, five to seven times as fast.

tiktoken joins whatever two neighbours make the token that comes first in the order of merges, and
looks a whole word up before it joins anything. `tokenizers` joins the listed pairs only. The two
are the same where each token is what its own bytes are merged to, which is checked for all of them,
or where every pair that makes it is listed.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from pile_lightning.data.cores import num_encoding_threads
from pile_lightning.data.split_pattern import GPT2_PATTERN, portable_pattern

if TYPE_CHECKING:
    pass

__all__ = ["Ranks", "TiktokenEncoder", "has_tiktoken", "ranks_of"]

_LEAST_FOR_THREADS = 1 << 16
_GROUPS_A_THREAD = 4
# tiktoken without any special token looks for the empty string at every position, which halves its
# speed; text that spells this one out is still text
_NO_TOKEN = "\x00\x01pile_lightning: no token\x02\x00"


class Ranks(NamedTuple):
    """A byte-level BPE in the words of tiktoken."""

    pattern: str
    """Splits text, in the syntax of Rust's regex."""
    tokens: list[bytes]
    """The single bytes, then what merges make, in the order of merges."""
    added: list[str]
    """Tokens that are cut out of the text before it is split."""
    ids: npt.NDArray[Any]
    """Id of each token, and then of each added one, as they are to be returned."""


class TiktokenEncoder:
    """Encodes with tiktoken; pickled, it is built again where it arrives."""

    name = "tiktoken"

    def __init__(self, ranks: Ranks) -> None:
        import tiktoken

        self.ranks = ranks
        added = ranks.added or [_NO_TOKEN]
        first = len(ranks.tokens)
        self._encoding: tiktoken.Encoding = tiktoken.Encoding(
            "pile_lightning",
            pat_str=ranks.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(ranks.tokens)},
            special_tokens={token: first + i for i, token in enumerate(added)},
        )
        self._added = frozenset(ranks.added)

    def __reduce__(self) -> tuple[type["TiktokenEncoder"], tuple[Ranks]]:
        return TiktokenEncoder, (self.ranks,)

    def encode(self, texts: list[str], /) -> list[npt.NDArray[Any]]:
        """Return the ids of each text, computed on all cores, in a worker on one."""
        threads = num_encoding_threads()
        if threads == 1 or sum(map(len, texts)) < _LEAST_FOR_THREADS:
            return [self._encode(text) for text in texts]
        # not kept: a pool does not survive a fork
        with ThreadPoolExecutor(threads) as pool:
            size = -(-len(texts) // (threads * _GROUPS_A_THREAD))
            groups = [texts[i : i + size] for i in range(0, len(texts), size)]
            found = pool.map(lambda group: [self._encode(text) for text in group], groups)
            return [ids for group in found for ids in group]

    def _encode(self, text: str) -> npt.NDArray[Any]:
        ranks = self._encoding.encode_to_numpy(
            text, allowed_special=self._added, disallowed_special=()
        )
        return self.ranks.ids.take(ranks)


def has_tiktoken() -> bool:
    """Return whether tiktoken is installed, in a version (0.9) that gives arrays."""
    try:
        import tiktoken
    except ImportError:
        return False
    return hasattr(tiktoken.Encoding, "encode_to_numpy")


def ranks_of(
    backend: tokenizers.Tokenizer, token_bytes: list[bytes], dtype: npt.DTypeLike
) -> Ranks | None:
    """Return what tiktoken needs to encode as ``backend`` does, or None where it cannot.

    Args:
        backend: A byte-level BPE.
        token_bytes: The bytes behind each of its ids.
        dtype: Of the ids.
    """
    spec = json.loads(backend.to_str())
    model, added = spec["model"], _added(spec["added_tokens"])
    if added is None or not _is_plain(model):
        return None
    tokens = _tokens(model, token_bytes)
    if tokens is None or not _is_made_of_its_merges(spec, tokens, token_bytes):
        return None
    pattern = _pattern(spec["pre_tokenizer"])
    pattern = pattern and portable_pattern(pattern)
    if pattern is None:
        return None
    ids = [*tokens.values(), *added.values()]
    return Ranks(pattern, list(tokens), list(added), np.array(ids, dtype))


def _pattern(splitter: dict[str, Any]) -> str | None:
    """Return the one pattern that a pre-tokenizer splits by."""
    splitters = splitter.get("pretokenizers", [splitter])
    kinds = [part["type"] for part in splitters]
    if kinds == ["ByteLevel"] and splitters[0]["use_regex"]:
        return GPT2_PATTERN
    if kinds != ["Split", "ByteLevel"] or splitters[1]["use_regex"]:
        return None
    split = splitters[0]
    if split["behavior"] != "Isolated" or split["invert"]:
        return None
    regex: str | None = split["pattern"].get("Regex")
    return regex


def _added(tokens: list[dict[str, Any]]) -> dict[str, int] | None:
    """Return the tokens that text is searched for; None where the order of searching matters."""
    searched = [token for token in tokens if not token["special"]]
    names = [token["content"] for token in searched]
    if any(token["single_word"] or token["lstrip"] or token["rstrip"] for token in searched):
        return None
    if len({token["normalized"] for token in searched}) > 1:
        return None
    if any(a in b for a in names for b in names if a is not b):
        return None
    return {token["content"]: token["id"] for token in searched}


def _is_plain(model: dict[str, Any]) -> bool:
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    return not any(model.get(name) for name in odd)


def _tokens(model: dict[str, Any], token_bytes: list[bytes]) -> dict[bytes, int] | None:
    """Return the ids of all tokens that text can become, by their bytes, in the order of merges."""
    vocabulary: dict[str, int] = model["vocab"]
    single = {i for i in vocabulary.values() if len(token_bytes[i]) == 1}
    tokens = {token_bytes[i]: i for i in sorted(single, key=token_bytes.__getitem__)}
    last = None
    for left, right in model["merges"]:
        made = vocabulary[left + right]
        token = token_bytes[made]
        if token in tokens and made != last:
            return None  # the pairs that make it stand apart, with others between
        if token != token_bytes[vocabulary[left]] + token_bytes[vocabulary[right]]:
            return None  # a special token is among them
        tokens[token], last = made, made
    if model["ignore_merges"] and any(
        token_bytes[i] and token_bytes[i] not in tokens for i in vocabulary.values()
    ):
        return None  # found as a whole word only
    return tokens


def _is_made_of_its_merges(
    spec: dict[str, Any], tokens: dict[bytes, int], token_bytes: list[bytes]
) -> bool:
    """Return whether each token is what its bytes are merged to, or all pairs that make it are."""
    model = spec["model"]
    merged = tokenizers.Tokenizer.from_str(
        json.dumps({**spec, "model": {**model, "ignore_merges": False}})
    ).model
    name_of = {i: name for name, i in model["vocab"].items()}
    others = [i for i in tokens.values() if [t.id for t in merged.tokenize(name_of[i])] != [i]]
    if not others:
        return True
    if not model["ignore_merges"]:
        return False
    pairs = {(token_bytes[a], token_bytes[b]) for a, b in _pairs(model)}
    return all(
        (whole[:k], whole[k:]) in pairs
        for whole in (token_bytes[i] for i in others)
        for k in range(1, len(whole))
        if whole[:k] in tokens and whole[k:] in tokens
    )


def _pairs(model: dict[str, Any]) -> list[tuple[int, int]]:
    id_of: Callable[[str], int] = model["vocab"].__getitem__
    return [(id_of(left), id_of(right)) for left, right in model["merges"]]
