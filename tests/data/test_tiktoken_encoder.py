"""tiktoken gives the ids of `tokenizers`, for every kind of tokenizer that it is used for."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from pile_lightning.data import FastTokenizer, tiktoken_encoder
from pile_lightning.data import tokenizers as ours
from pile_lightning.data.encoders import PROBES
from pile_lightning.data.tiktoken_encoder import TiktokenEncoder, ranks_of
from tests.data.bpes import (
    CODE,
    O200K,
    TEXT,
    all_pairs,
    built,
    like_gpt2,
    like_llama3,
    other_ids,
    right,
    split_by,
)

pytest.importorskip("tiktoken")

KINDS = {
    "ours": built(),
    "gpt2": built(like_gpt2),
    "llama3": built(like_llama3),
    "o200k": built(split_by(O200K)),
    "other ids": built(other_ids),
    "all pairs": built(all_pairs),
    "added": built(
        lambda spec: None,
        AddedToken("<tool>", normalized=False),
        AddedToken("\u4e2d", normalized=False),
    ),
}
SOME = st.sampled_from(
    [*" \n\r\t'a0-", "  ", "\r\n", "'s", "'LL", "don't", "123", "\u4e2d", "\u0301", "\u00a0"]
    + [
        "<tool>",
        "<|endoftext|>",
        "\U0001f600",
        "\u017f",
        "def ",
        "return",
        "self",
        "\u1e9e",
        "\x00",
    ]
)
TEXTS = st.lists(SOME | st.characters(exclude_categories=["Cs"]), max_size=30).map("".join)


@pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_the_ids_are_the_same(tokenizer: FastTokenizer, text: str) -> None:
    assert tokenizer.encoder_name == "tiktoken"
    (ids,) = _fast(tokenizer).encode([text])
    assert [ids.tolist()] == right(tokenizer, [text])
    assert ids.dtype == tokenizer.dtype


def _fast(tokenizer: FastTokenizer) -> TiktokenEncoder:
    fast = tokenizer._encoder.fast  # type: ignore[attr-defined]
    assert isinstance(fast, TiktokenEncoder)
    return fast


@pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
def test_the_ids_of_code_and_of_difficult_texts_are_the_same(tokenizer: FastTokenizer) -> None:
    texts = [CODE, TEXT, *PROBES]
    found = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    assert found == right(tokenizer, texts)


def test_wrong_merges_are_found_before_any_id_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> Any:
        ranks = ranks_of(*arguments)
        assert ranks is not None
        swapped = ranks.ids.copy()
        swapped[[300, 301]] = swapped[[301, 300]]
        return ranks._replace(ids=swapped)

    monkeypatch.setattr(ours, "ranks_of", wrong)
    tokenizer = built()
    with pytest.warns(UserWarning, match=r"tiktoken encodes .* unlike tokenizers"):
        found = tokenizer.encode_batch([TEXT])
    assert tokenizer.encoder_name == "tokenizers"
    assert [ids.tolist() for ids in found] == right(tokenizer, [TEXT])


@pytest.mark.parametrize("module", [None, SimpleNamespace(Encoding=object)], ids=["none", "old"])
def test_without_a_tiktoken_of_use(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    tokenizer = built()
    assert tokenizer.encoder_name == "tokenizers"
    assert [ids.tolist() for ids in tokenizer.encode_batch([TEXT])] == right(tokenizer, [TEXT])


def test_the_encoder_changes_no_fingerprint() -> None:
    tokenizer = built()
    before = tokenizer.fingerprint()
    assert tokenizer.encoder_name == "tiktoken"
    assert tokenizer.fingerprint() == before


def test_threads_give_the_same_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken_encoder, "num_encoding_threads", lambda: 3)
    used: list[Any] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            used.append(threads)
            super().__init__(threads)

        def map(self, *arguments: Any) -> Any:  # type: ignore[override]
            used.append("map")
            return super().map(*arguments)

    monkeypatch.setattr(tiktoken_encoder, "ThreadPoolExecutor", Pool)
    texts = [CODE[i * 50 :] for i in range(50)]
    found = _fast(KINDS["ours"]).encode(texts)
    assert used == [3, "map"]
    assert [ids.tolist() for ids in found] == right(KINDS["ours"], texts)
    assert len(_fast(KINDS["ours"]).encode(["a", "b"])) == 2
    assert used == [3, "map"]


def test_it_is_built_again_where_a_pickle_arrives() -> None:
    for tokenizer in (built(), KINDS["added"]):
        sent = pickle.loads(pickle.dumps(tokenizer))
        assert sent.encoder_name == "tiktoken"
        for one, other in zip(
            sent.encode_batch([TEXT, ""]), tokenizer.encode_batch([TEXT, ""]), strict=True
        ):
            assert np.array_equal(one, other)


@pytest.mark.slow
def test_a_new_process_encodes_alike(tmp_path: Path) -> None:
    (tmp_path / "pickled").write_bytes(pickle.dumps(KINDS["llama3"]))
    program = (
        "import pickle, sys; from pathlib import Path; "
        "t = pickle.loads(Path(sys.argv[1]).read_bytes()); "
        "print(t.encoder_name, t.encode_batch(['def f(x): pass'])[0].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "pickled")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    (ids,) = KINDS["llama3"].encode_batch(["def f(x): pass"])
    assert done.stdout.strip() == f"tiktoken {ids.tolist()}"
