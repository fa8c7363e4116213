"""Tokenizers that Hugging Face's transformers run in Python, for lack of a fast form."""

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.data.tokenizer_file import START_TOKENS, start_token
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.file_names import check_file_name
from pile_lightning.whole_file import write_file

__all__ = ["PythonTokenizer"]


class PythonTokenizer(Tokenizer):
    """A tokenizer of transformers that has no ``tokenizer.json``, such as ByT5's.

    It encodes one text after another in one process. Its saved form holds the files that it is made
    of.

    Args:
        tokenizer: As ``AutoTokenizer`` returns it.

    Raises:
        ValueError: For a tokenizer without a special token that could open a document.
    """

    def __init__(self, tokenizer: Any) -> None:
        start = start_token({name: getattr(tokenizer, name) for name in START_TOKENS})
        if start is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no bos_token, eos_token or cls_token, one of "
                f"which opens each document; name one in its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.start_id = int(tokenizer.convert_tokens_to_ids(start))
        self.vocab_size = len(tokenizer)
        self.token_bytes = None

    @property
    def encoder_name(self) -> str:
        """What encodes."""
        return f"transformers' {type(self.tokenizer).__name__}, in Python"

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[Any]]:
        """Return the ids of each text; special tokens that it spells are text."""
        encode = self.tokenizer.encode
        found = (encode(t, add_special_tokens=False, split_special_tokens=True) for t in texts)
        return [np.array(ids, dtype=self.dtype) for ids in found]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text behind ids; special tokens are left out."""
        return str(self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))

    def save(self, path: str | Path) -> None:
        """Write a JSON file that holds the files of the tokenizer."""
        write_file(path, json.dumps({"model": "transformers", "files": self._files()}))

    @classmethod
    def of_files(cls, files: dict[str, str]) -> "PythonTokenizer":
        """Return the tokenizer that was saved as these files, each in base64.

        Raises:
            ValueError: For a name that is no plain file name, and files that are no tokenizer.
        """
        from transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder, check_file_name(name, of="a file of a tokenizer"))
                path.write_bytes(base64.b64decode(content))
            return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))

    def fingerprint(self) -> str:
        """Return a hash of the files."""
        return hashlib.sha256(json.dumps(self._files(), sort_keys=True).encode()).hexdigest()

    def _files(self) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            return {
                path.name: base64.b64encode(path.read_bytes()).decode()
                for path in sorted(Path(folder).iterdir())
            }
