"""Tokenizers: text comes back, bytes add up, and no text is taken for the start of a document."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from pile_lightning.data import ByteTokenizer, FastTokenizer, Tokenizer
from pile_lightning.data.byte_level import _cut_runs, train_bpe
from pile_lightning.data.tokenizer_specs import bpe_vocab_size, load_tokenizer

TEXT = "def f(x):\n    return x  # caf\u00e9 \u4e2d\u6587 \U0001f600\r\n\n\tdon't 123 <|endoftext|>"


def bpe(vocab_size: int = 400) -> FastTokenizer:
    texts = [TEXT * 3, "to be or not to be " * 9]
    backend = train_bpe(texts, vocab_size=vocab_size, start_token="<|endoftext|>", max_bytes=10_000)
    return FastTokenizer(backend)


def word_level(**settings: object) -> Backend:
    words = {word: i for i, word in enumerate(["<unk>", "a", "b", "\u00e9"])}
    backend = Backend(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


BYTE_LEVEL = {"byte": ByteTokenizer(), "bpe": bpe()}


@pytest.mark.parametrize("tokenizer", BYTE_LEVEL.values(), ids=BYTE_LEVEL)
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.just(TEXT), max_size=4)
)
def test_text_comes_back_and_its_bytes_add_up(tokenizer: Tokenizer, texts: list[str]) -> None:
    num_bytes = tokenizer.token_num_bytes
    assert num_bytes is not None
    assert num_bytes[tokenizer.start_id] == 0
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text
        assert num_bytes[ids].sum() == len(text.encode())
        assert tokenizer.start_id not in ids
        assert ids.dtype == np.uint16
        stream = tokenizer.decode_stream()
        pieces = [stream.step(int(i)) for i in ids]
        assert "".join(pieces) + stream.flush() == text
        assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@pytest.mark.parametrize("tokenizer", BYTE_LEVEL.values(), ids=BYTE_LEVEL)
def test_saved_and_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode_batch([TEXT])[0].tolist() == tokenizer.encode_batch([TEXT])[0].tolist()
    assert loaded.start_id == tokenizer.start_id
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.fingerprint() == tokenizer.fingerprint()


def test_an_unfinished_character_ends_as_a_replacement() -> None:
    stream = ByteTokenizer().decode_stream()
    assert [stream.step(i) for i in (0x61, 0xE4, 0xB8)] == ["a", "", ""]
    assert stream.flush() == "\ufffd"


def test_the_start_token_decodes_to_nothing() -> None:
    for tokenizer in BYTE_LEVEL.values():
        ids = [tokenizer.start_id, *tokenizer.encode_batch(["hi"])[0].tolist(), tokenizer.start_id]
        assert tokenizer.decode(ids) == "hi"


def test_ids_of_merges_that_were_not_found_decode_to_nothing() -> None:
    tokenizer = bpe(4096)
    assert tokenizer.vocab_size < 4096
    assert tokenizer.decode([4095]) == ""
    assert tokenizer.decode_stream().step(4095) == ""


def test_training_is_deterministic_and_stops_at_its_limit() -> None:
    assert bpe().fingerprint() == bpe().fingerprint()
    read = []

    def texts() -> object:
        for i in range(100):
            read.append(i)
            yield "x" * 10

    train_bpe(texts(), vocab_size=300, start_token="<s>", max_bytes=35)  # type: ignore[arg-type]
    assert len(read) == 4


@pytest.mark.parametrize("start", ["<s>", "[CLS]"])
def test_a_tokenizer_brings_its_own_start(tmp_path: Path, start: str) -> None:
    backend = word_level()
    backend.add_special_tokens([start])
    tokenizer = FastTokenizer(backend)
    assert tokenizer.start_id == backend.token_to_id(start)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").start_id == tokenizer.start_id


def test_a_start_is_added_where_there_is_none() -> None:
    tokenizer = FastTokenizer(word_level())
    assert (tokenizer.start_id, tokenizer.vocab_size) == (4, 5)
    assert 4 not in tokenizer.encode_batch(["a <|endoftext|> b"])[0]


def _lowercase(backend: Backend) -> None:
    backend.normalizer = normalizers.Lowercase()


def _prefix(backend: Backend) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _whitespace(backend: Backend) -> None:
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _removed(backend: Backend) -> None:
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _not_byte_level(backend: Backend) -> None:
    backend.pre_tokenizer = pre_tokenizers.Digits()


@pytest.mark.parametrize("change", [_lowercase, _prefix, _whitespace, _removed, _not_byte_level])
def test_no_table_of_bytes_where_it_would_not_be_exact(change: Callable[[Backend], None]) -> None:
    backend = bpe().backend
    change(backend)
    assert FastTokenizer(backend).token_num_bytes is None


def test_a_tokenizer_that_depends_on_context_streams_whole_characters() -> None:
    backend = word_level()
    tokenizer = FastTokenizer(backend)
    ids = tokenizer.encode_batch(["a b \u00e9"])[0].tolist()
    stream = tokenizer.decode_stream()
    assert "".join(stream.step(i) for i in ids) + stream.flush() == tokenizer.decode(ids)


def test_padding_and_cutting_of_a_file_are_undone() -> None:
    backend = bpe().backend
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    assert FastTokenizer(backend).encode_batch(["to be or not to be"])[0].tolist() == (
        bpe().encode_batch(["to be or not to be"])[0].tolist()
    )


def test_specs(tmp_path: Path) -> None:
    bpe().save(tmp_path / "tokenizer.json")
    assert load_tokenizer("byte").vocab_size == 257
    for spec in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(str(spec)).fingerprint() == bpe().fingerprint()
    assert bpe_vocab_size("bpe:1000") == 1000
    assert bpe_vocab_size("bert-base-uncased") is None


@pytest.mark.parametrize("spec", ["bpe", "bpe:", "bpe:many", "bpe:256", "bpe:-5"])
def test_a_wrong_bpe(spec: str) -> None:
    with pytest.raises(ValueError, match=f"tokenizer='{spec}': a BPE is written 'bpe:N'"):
        bpe_vocab_size(spec)


def test_a_missing_file(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "other.json"):
        with pytest.raises(FileNotFoundError, match=r"there is no such tokenizer.json"):
            load_tokenizer(str(missing))


def test_a_folder_of_vocabulary_and_merges(tmp_path: Path) -> None:
    words = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["ab", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    tokenizer = load_tokenizer(str(tmp_path))
    (ids,) = tokenizer.encode_batch(["abba"])
    assert tokenizer.decode(ids) == "abba"
    assert len(ids) == 3


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    def fail(name: str, *, trust_remote_code: bool) -> None:
        raise OSError(name)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(ValueError, match="'nobody/nothing' is no file and could not be loaded"):
        load_tokenizer("nobody/nothing")


def test_a_hugging_face_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    def made(name: str, *, trust_remote_code: bool) -> PreTrainedTokenizerFast:
        assert not trust_remote_code
        return PreTrainedTokenizerFast(tokenizer_object=bpe().backend)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", made)
    assert load_tokenizer("some/name").fingerprint() == bpe().fingerprint()


def test_a_real_layout_of_gpt2() -> None:
    spec = json.loads(bpe().backend.to_str())
    spec["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    spec["post_processor"] = spec["decoder"] = spec["pre_tokenizer"]
    tokenizer = FastTokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)))
    assert tokenizer.start_id == 0
    assert tokenizer.token_num_bytes is not None
    assert tokenizer.decode(tokenizer.encode_batch([TEXT])[0]) == TEXT


@pytest.mark.parametrize("unit", [" ", "ab", "-", "ACGT", "\x00", "\u3000", "\u00e9"])
def test_a_bpe_is_trained_on_a_long_run_in_parts(unit):
    parts = list(_cut_runs(f"words before {unit * 50_000} words after"))
    assert "".join(parts) == f"words before {unit * 50_000} words after"
    assert max(map(len, parts)) <= 2 * 2048  # a merge reads the whole of a word


@pytest.mark.parametrize("text", ["", "x", " " * 2000, "ab " * 9000, "a" * 2000 + " " + "b" * 2000])
def test_ordinary_text_is_not_cut(text):
    assert list(_cut_runs(text)) == [text]
