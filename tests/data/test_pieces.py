"""Long texts in pieces: nothing is lost, and no token changes where text is as it mostly is."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pile_lightning.data import FastTokenizer
from pile_lightning.data.byte_level import train_bpe
from pile_lightning.data.pieces import PIECE_LENGTH, pieces

CODE = (Path(sysconfig.get_paths()["stdlib"]) / "typing.py").read_text(encoding="utf-8")


@given(text=st.text(alphabet="a \n\u00e9\U0001f600", max_size=60), length=st.integers(1, 12))
def test_pieces_are_the_text(text: str, length: int) -> None:
    cut = list(pieces(text, length))
    assert "".join(cut) == text
    assert all(len(piece) <= length for piece in cut)


def test_real_text_has_the_same_tokens_in_pieces() -> None:
    backend = train_bpe([CODE], vocab_size=500, start_token="<s>", max_bytes=10**6)
    tokenizer = FastTokenizer(backend)
    cut = list(pieces(CODE, 3000))
    assert len(cut) > 20
    whole = tokenizer.encode_batch([CODE])[0]
    assert np.array_equal(np.concatenate(tokenizer.encode_batch(cut)), whole)


@pytest.mark.parametrize(
    "text", [CODE * 12, "z" * (2 * PIECE_LENGTH + 5), "\u00e9t\u00e9 " * 600_000]
)
def test_a_long_document_comes_back(text: str) -> None:
    backend = train_bpe([CODE[:9999]], vocab_size=400, start_token="<s>", max_bytes=10**6)
    tokenizer = FastTokenizer(backend)
    long, short = tokenizer.encode_batch([text, "short"])
    assert tokenizer.decode(long) == text
    assert tokenizer.decode(short) == "short"
    assert tokenizer.token_num_bytes is not None
    assert tokenizer.token_num_bytes[long].sum() == len(text.encode())
