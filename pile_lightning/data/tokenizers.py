"""Text to token ids and back: bytes, or what the `tokenizers` library runs, behind one interface.

Every document opens with one special token, ``start_id``, which also ends the document before it.
It is no text: ordinary text that spells it out encodes to ordinary tokens.
"""

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers.processors import TemplateProcessing

from pile_lightning.data.byte_level import bytes_of_tokens
from pile_lightning.data.encoders import CheckedEncoder, Encoder, LibraryEncoder
from pile_lightning.data.pieces import PIECE_LENGTH, pieces
from pile_lightning.data.special_text import SpecialText
from pile_lightning.data.tiktoken_encoder import TiktokenEncoder, has_tiktoken, ranks_of
from pile_lightning.data.tokenizer_file import check_ids, configured_start, naming, read_spec
from pile_lightning.whole_file import write_file

__all__ = [
    "START_TOKEN",
    "ByteTokenizer",
    "DecodeStream",
    "FastTokenizer",
    "Tokenizer",
]

START_TOKEN = "<|endoftext|>"
"""The token that opens a document, where a tokenizer does not bring its own."""

_OTHER_START_TOKENS = ("<|begin_of_text|>", "<bos>", "<s>", "[CLS]")
_BYTES = "bytes"


class Tokenizer(ABC):
    """What the data path and generation need of a tokenizer."""

    vocab_size: int
    """Number of ids; every id is below."""
    start_id: int
    """The special token that opens a document."""
    token_bytes: list[bytes] | None
    """The bytes behind each id, none behind a special one; None where context decides them."""

    @abstractmethod
    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[Any]]:
        """Return the ids of each text, as ``dtype``, without the start token."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text behind ids; special tokens are left out."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write everything to one JSON file, which ``Tokenizer.load`` reads."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash that is equal for tokenizers that give equal ids."""

    @property
    def encoder_name(self) -> str:
        """What encodes, to be told."""
        return "pile_lightning"

    @property
    def dtype(self) -> npt.DTypeLike:
        """The smallest unsigned type that holds every id."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    @property
    def token_num_bytes(self) -> npt.NDArray[np.int64] | None:
        """UTF-8 bytes behind each id (vocab_size,), or None where that is not exact."""
        if self.token_bytes is None:
            return None
        return np.array([len(token) for token in self.token_bytes], dtype=np.int64)

    def decode_stream(self) -> "DecodeStream":
        """Return a decoder that is given one id at a time."""
        return DecodeStream(self)

    @staticmethod
    def load(path: str | Path) -> "Tokenizer":
        """Read what ``save`` wrote, or any ``tokenizer.json``.

        Raises:
            ValueError: For a file that is none, or has an id that no network has room for.
        """
        spec, text = read_spec(Path(path))
        if spec.get("model") == _BYTES:
            return ByteTokenizer()
        if spec.get("model") == "transformers":
            from pile_lightning.data.python_tokenizer import PythonTokenizer

            with naming(path):
                return PythonTokenizer.of_files(spec["files"])
        start = configured_start(Path(path))
        with naming(path):
            return FastTokenizer(tokenizers.Tokenizer.from_str(text), start_token=start)


class ByteTokenizer(Tokenizer):
    """The bytes of UTF-8 as ids 0 to 255, and 256 as the start.

    Example:
        >>> ids = ByteTokenizer().encode_batch(["hi"])[0]
        >>> ids.tolist(), ByteTokenizer().decode(ids)
        ([104, 105], 'hi')
    """

    vocab_size = 257
    start_id = 256
    token_bytes = [*(bytes([i]) for i in range(256)), b""]

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[Any]]:
        """Return the bytes of each text."""
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text behind ids; bytes that are no UTF-8 become U+FFFD."""
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")

    def save(self, path: str | Path) -> None:
        """Write a JSON file that names the kind."""
        write_file(path, json.dumps({"model": _BYTES}))

    def fingerprint(self) -> str:
        """Return the kind."""
        return _BYTES


class FastTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, as in a ``tokenizer.json``.

    The start token is the one that its own template puts first, else ``start_token``, else
    ``<|endoftext|>`` or its like where the vocabulary has one, else ``<|endoftext|>`` is added.

    Args:
        backend: The tokenizer. It is changed: it neither pads nor cuts, and reads special tokens in
            text as text.
        start_token: What its configuration says opens a document (bos), or ends one (eos).

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))
        >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = FastTokenizer(backend)
        >>> tokenizer.encode_batch(["b a"])[0].tolist(), tokenizer.start_id, tokenizer.vocab_size
        ([1, 0], 3, 4)
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, start_token: str | None = None) -> None:
        check_ids(backend)
        backend.no_padding()
        backend.no_truncation()
        start = _start_token(backend, start_token)
        backend.add_special_tokens([start])
        self.start_id = _id(backend, start)
        template = TemplateProcessing(single=[start, "$A"], special_tokens=[(start, self.start_id)])
        # this way a saved file says how a document opens
        backend.post_processor = template
        backend.encode_special_tokens = True
        self.backend = backend
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.token_bytes = bytes_of_tokens(backend)
        self._special_text = SpecialText(backend, vocab_size=self.vocab_size)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.backend.encode_special_tokens = True  # which a pickle of it forgets

    @property
    def encoder_name(self) -> str:
        """What encodes: tiktoken where that is installed and gives the same ids, or tokenizers."""
        return self._encoder.name

    @cached_property
    def _encoder(self) -> Encoder:
        library = LibraryEncoder(self.backend, self.dtype)
        # where the bytes behind a token depend on context, so does how text is split
        if self.token_bytes is None or not has_tiktoken():
            return library
        ranks = ranks_of(self.backend, self.token_bytes, self.dtype)
        return library if ranks is None else CheckedEncoder(TiktokenEncoder(ranks), library)

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[Any]]:
        """Return the ids of each text, computed on all cores, in a worker process on one.

        Where decoding stays exact, long texts are encoded in pieces: what `tokenizers` returns for
        a token takes a hundred bytes.

        Raises:
            RuntimeError: Where tiktoken encodes as `tokenizers` does at first, but not later.
        """
        if self.token_bytes is None or max(map(len, texts), default=0) <= PIECE_LENGTH:
            found = self._encoder.encode(texts)
        else:
            short = iter(self._encoder.encode([t for t in texts if len(t) <= PIECE_LENGTH]))
            found = [next(short) if len(t) <= PIECE_LENGTH else self._long(t) for t in texts]
        return [self._special_text.keep_out(*each) for each in zip(found, texts, strict=True)]

    def _long(self, text: str) -> npt.NDArray[Any]:
        return np.concatenate([self._encoder.encode([piece])[0] for piece in pieces(text)])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text behind ids; bytes that are no UTF-8 become U+FFFD."""
        if self.token_bytes is None:
            return str(self.backend.decode([int(i) for i in ids], skip_special_tokens=True))
        known = len(self.token_bytes)
        return b"".join(self.token_bytes[i] for i in ids if i < known).decode("utf-8", "replace")

    def save(self, path: str | Path) -> None:
        """Write a ``tokenizer.json``."""
        write_file(path, self.backend.to_str(pretty=True))

    def fingerprint(self) -> str:
        """Return a hash of the ``tokenizer.json``."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()


class DecodeStream:
    """Text from ids that come one at a time, in whole characters only.

    Example:
        >>> stream = DecodeStream(ByteTokenizer())
        >>> [stream.step(i) for i in "h\u00e9".encode()]
        ['h', '', '\u00e9']
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []
        self._shown = ""

    def step(self, token_id: int) -> str:
        """Return the text that ``token_id`` completes; it may be empty."""
        token_bytes = self.tokenizer.token_bytes
        if token_bytes is not None:
            return self._utf8.decode(token_bytes[token_id] if token_id < len(token_bytes) else b"")
        self._ids.append(int(token_id))
        return self._grown(hold="\ufffd")

    def flush(self) -> str:
        """Return what is left at the end; an unfinished character becomes U+FFFD."""
        if self.tokenizer.token_bytes is not None:
            return self._utf8.decode(b"", final=True)
        return self._grown(hold="")

    def _grown(self, *, hold: str) -> str:
        text = self.tokenizer.decode(self._ids)
        if hold and text.endswith(hold):
            return ""
        new, self._shown = text[len(self._shown) :], text
        return new


def _start_token(backend: tokenizers.Tokenizer, configured: str | None) -> str:
    opening: Sequence[int] = backend.encode("", add_special_tokens=True).ids
    if opening:
        return str(backend.id_to_token(opening[0]))
    if configured is not None:
        return configured
    vocabulary = backend.get_vocab(with_added_tokens=True)
    known = [token for token in (START_TOKEN, *_OTHER_START_TOKENS) if token in vocabulary]
    return known[0] if known else START_TOKEN


def _id(backend: tokenizers.Tokenizer, token: str) -> int:
    found = backend.token_to_id(token)
    assert found is not None, token
    return found
