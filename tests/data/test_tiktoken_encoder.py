"""tiktoken gives the ids of `tokenizers`, for every kind of tokenizer that it is used for."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from pile_lightning.data import FastTokenizer, tiktoken_encoder
from pile_lightning.data import tokenizers as ours
from pile_lightning.data.byte_level import train_bpe
from pile_lightning.data.encoders import PROBES
from pile_lightning.data.tiktoken_encoder import TiktokenEncoder, ranks_of

pytest.importorskip("tiktoken")

CODE = Path(__file__).read_text(encoding="utf-8")
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


def right(tokenizer: FastTokenizer, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)]


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
def test_the_ids_of_this_file_and_of_difficult_texts_are_the_same(tokenizer: FastTokenizer) -> None:
    texts = [CODE, TEXT, *PROBES]
    found = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    assert found == right(tokenizer, texts)


def _no_merge_that_makes(token: str) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        merges = spec["model"]["merges"]
        spec["model"]["merges"] = [pair for pair in merges if "".join(pair) != token]

    return change


def _unlike_whole(spec: dict[str, Any]) -> None:
    """Move a merge to the end: its token is then not what its bytes are merged to."""
    merges = spec["model"]["merges"]
    short = next(i for i, (a, b) in enumerate(merges) if len(a + b) == 3)
    merges.append(merges.pop(short))
    vocabulary = spec["model"]["vocab"]
    token = "".join(merges[-1])
    for k in (1, 2):  # the other way to begin
        if [token[:k], token[k:]] != merges[-1]:
            made = token[:k] if k == 2 else token[k:]
            if made not in vocabulary:
                vocabulary[made] = len(vocabulary)
            merges.insert(0, list(made))


def _unlike_whole_but_found(spec: dict[str, Any]) -> None:
    _unlike_whole(spec)
    spec["model"]["ignore_merges"] = True


def _found_whole_only(spec: dict[str, Any]) -> None:
    like_llama3(spec)
    spec["model"]["vocab"]["zzzz"] = len(spec["model"]["vocab"])


def _apart(spec: dict[str, Any]) -> None:
    all_pairs(spec)
    merges = spec["model"]["merges"]
    last = next(
        i for i in range(len(merges) - 1, 0, -1) if "".join(merges[i]) == "".join(merges[i - 1])
    )
    merges.append(merges.pop(last))
    merges.append(merges.pop(0))


def _two_splits(spec: dict[str, Any]) -> None:
    splits = spec["pre_tokenizer"]["pretokenizers"]
    splits.insert(0, {"type": "Digits", "individual_digits": True})


def _merged(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "MergedWithNext"


def _inverted(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["pretokenizers"][0]["invert"] = True


def _split_again(spec: dict[str, Any]) -> None:
    spec["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = True


def _dropout(spec: dict[str, Any]) -> None:
    spec["model"]["dropout"] = 1e-9


@pytest.mark.parametrize(
    ("change", "added"),
    [
        (_unlike_whole, []),
        (_unlike_whole_but_found, []),
        (_found_whole_only, []),
        (_apart, []),
        (_two_splits, []),
        (_merged, []),
        (_inverted, []),
        (_split_again, []),
        (_dropout, []),
        (split_by(r"\w+|\W+"), []),
        (lambda spec: None, [AddedToken("<a>", single_word=True)]),
        (lambda spec: None, [AddedToken("<a>"), AddedToken("<a>b")]),
        (
            lambda spec: None,
            [AddedToken("<a>", normalized=True), AddedToken("<b>", normalized=False)],
        ),
    ],
)
def test_what_it_may_encode_otherwise_is_left_to_tokenizers(
    change: Callable[[dict[str, Any]], None], added: list[AddedToken]
) -> None:
    tokenizer = built(change, *added)
    assert tokenizer.token_bytes is not None
    assert tokenizer.encoder_name == "tokenizers"
    if change is not _dropout:
        assert [ids.tolist() for ids in tokenizer.encode_batch([TEXT])] == right(tokenizer, [TEXT])


def test_a_token_that_no_merge_makes_is_not_made() -> None:
    token = "".join(spec()["model"]["merges"][-1])
    tokenizer = built(_no_merge_that_makes(token))
    assert tokenizer.encoder_name == "tiktoken"
    text = token.replace("\u0120", " ")
    assert [ids.tolist() for ids in tokenizer.encode_batch([text])] == right(tokenizer, [text])


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
