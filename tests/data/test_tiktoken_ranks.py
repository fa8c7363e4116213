"""tiktoken is left alone wherever it could join tokens or split text otherwise."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken

from tests.data.bpes import TEXT, all_pairs, built, like_llama3, right, spec, split_by

pytest.importorskip("tiktoken")


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
