"""Byte-level BPEs of every layout that is in use, small."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from pile_lightning.data import FastTokenizer
from pile_lightning.data import tokenizers as some_module
from pile_lightning.data.byte_level import train_bpe

CODE = Path(some_module.__file__).read_text(encoding="utf-8")
TEXT = CODE + "caf\u00e9 \u4e2d\u6587 \U0001f600\r\n\r\n don't WE'LL 123 <|endoftext|> \u0661"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def spec(vocab_size: int = 700) -> dict[str, Any]:
    backend = train_bpe(
        [TEXT], vocab_size=vocab_size, start_token="<|endoftext|>", max_bytes=1 << 20
    )
    return dict(json.loads(backend.to_str()))


def built(
    change: Callable[[dict[str, Any]], None] = lambda spec: None,
    *added: AddedToken,
) -> FastTokenizer:
    changed = spec()
    change(changed)
    backend = tokenizers.Tokenizer.from_str(json.dumps(changed))
    backend.add_tokens(list(added))
    return FastTokenizer(backend)


def split_by(pattern: str) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern

    return change


def like_gpt2(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"] = BYTE_LEVEL | {"use_regex": True}


def other_ids(spec: dict[str, Any]) -> None:
    """Number the tokens backwards: no order of merges can be read from the ids."""
    vocabulary = spec["model"]["vocab"]
    spec["model"]["vocab"] = {token: len(vocabulary) - 1 - i for token, i in vocabulary.items()}
    for token in spec["added_tokens"]:
        token["id"] = spec["model"]["vocab"][token["content"]]


def all_pairs(spec: dict[str, Any]) -> None:
    """List every pair that makes a token, as files do that come from tiktoken."""
    like_llama3(spec)
    vocabulary = spec["model"]["vocab"]
    spec["model"]["merges"] = [
        [token[:k], token[k:]]
        for left, right in spec["model"]["merges"]
        for token in [left + right]
        for k in range(1, len(token))
        if token[:k] in vocabulary and token[k:] in vocabulary
    ]


def like_llama3(spec: dict[str, Any]) -> None:
    split_by(LLAMA3)(spec)
    spec["model"]["ignore_merges"] = True


def right(tokenizer: FastTokenizer, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)]
