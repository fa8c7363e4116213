"""``TextData``: prepared once, exactly, wherever the files and the cache lie."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pile_lightning.data import Document, Skipped, TextData
from pile_lightning.data.special_text import SpecialText
from pile_lightning.data.split import content_hash, is_held_out
from tests.data.text_of_numbers import MakeData, Numbers, numbers, texts_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
def test_documents_come_back_split_by_their_content(
    make_data: MakeData, folder: Path, tokenizer: str
) -> None:
    data = make_data(tokenizer=tokenizer)
    texts = [document.text for document in data.documents()]
    held_out = [text for text in texts if is_held_out(content_hash(text.encode()), 0.2)]
    assert list(data.held_out_texts()) == held_out
    assert sorted(texts_of(data, "train") + held_out) == sorted(texts)
    assert 0.1 < len(held_out) / len(texts) < 0.3
    assert data.domains == ("prose", "code")
    assert data.vocab_size == (257 if tokenizer == "byte" else 300)


def test_copies_of_a_document_never_straddle(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i}.txt").write_text(f"text {i % 20}")
    data = TextData(
        str(tmp_path), tokenizer="byte", seq_len=4, val_fraction=0.3, cache_dir=str(tmp_path / "c")
    )
    data.prepare_data()
    assert not set(texts_of(data, "train")) & set(texts_of(data, "val"))


def test_the_tokenizer_learns_from_training_documents_only(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"{i} " + "zebra" * 20)
    secret = next(
        text
        for i in range(1000)
        if is_held_out(content_hash((text := f"{i} " + "quixotic" * 500).encode()), 0.1)
    )
    (tmp_path / "secret.txt").write_text(secret)
    data = TextData(
        str(tmp_path),
        tokenizer="bpe:300",
        seq_len=4,
        val_fraction=0.1,
        cache_dir=str(tmp_path / "c"),
    )
    data.prepare_data()
    assert secret in list(data.held_out_texts())
    assert data.tokenizer.encode_batch(["zebra"])[0].size < 3
    assert data.tokenizer.encode_batch(["quixotic"])[0].size > 6


@pytest.mark.parametrize("count", range(2, 12))
def test_of_few_documents_one_is_held_out(tmp_path: Path, count: int) -> None:
    data = numbers(tmp_path, count=count, val_fraction=0.01)
    data.prepare_data()
    assert len(texts_of(data, "val")) >= 1
    assert len(texts_of(data, "train")) + len(texts_of(data, "val")) == count


def test_nothing_is_held_out_or_everything(tmp_path: Path) -> None:
    data = numbers(tmp_path, count=1, val_fraction=0)
    data.prepare_data()
    assert data.domains == ("text",)
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match=r"val_fraction=0.999999 holds out every one of the 3"):
        numbers(tmp_path, count=3, val_fraction=0.999999).prepare_data()
    with pytest.raises(ValueError, match="hold no text"):
        numbers(tmp_path, count=0).prepare_data()


def test_own_documents_are_known_by_class_and_arguments(tmp_path: Path) -> None:
    assert numbers(tmp_path).store_path == numbers(tmp_path).store_path
    assert numbers(tmp_path, count=50).store_path != numbers(tmp_path).store_path

    assert numbers(tmp_path, batch_size=2, seed=3).store_path == numbers(tmp_path).store_path

    class Others(Numbers):
        def __init__(self, more: int, **kwargs: object):
            super().__init__(tokenizer="byte", cache_dir=str(tmp_path), **kwargs)
            self.more = more

    ways = [Others(1), Others(2), Others(1, count=50), Others(more=1, sources="elsewhere")]
    assert len({data.store_path for data in ways} | {numbers(tmp_path).store_path}) == 5
    assert Others(1).store_path == Others(more=1).store_path


def test_own_documents_of_an_argument_without_a_lasting_form(tmp_path: Path) -> None:
    data = numbers(tmp_path, log=object())
    with pytest.raises(
        TypeError, match=r"argument log=<object object at .*override data_fingerpri"
    ):
        data.prepare_data()


def test_what_cannot_be_read_is_counted_and_told(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text(f"text {i}")
    for i in range(5):
        (tmp_path / f"bad{i}.txt").write_bytes(b"\xff")
    (tmp_path / "c.jsonl").write_text('{"text": "\\ud800"}\n{"text": "fine"}\n{"text": ""}\n')
    data = TextData(str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / "c"))
    with pytest.warns(
        UserWarning, match=r"5 x wrong UTF-8: bad0.txt, byte 0, .*, \.\.\.\n  1 x a lone"
    ):
        data.prepare_data()
    assert data.store.manifest["skipped"] == {
        "wrong UTF-8": 5,
        "a lone surrogate": 1,
        "empty text": 1,
    }
    assert data.store.counts("train").documents + data.store.counts("val").documents == 31


def test_a_tokenizer_that_takes_text_for_its_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"number": 0, "<s>": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))

    class Sneaky(TextData):
        def documents(self) -> Iterator[Document | Skipped]:
            yield from (Document(f"number <s> {i}", "") for i in range(40))

    data = Sneaky(tokenizer=str(tmp_path / "tokenizer.json"), cache_dir=str(tmp_path), num_proc=1)
    monkeypatch.setattr(SpecialText, "keep_out", lambda self, ids, text: ids)
    with pytest.raises(ValueError, match="encoded ordinary text to its start token"):
        data.prepare_data()


def test_bytes_by_document_where_tokens_do_not_tell(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"number": 0, "?": 1}, unk_token="?"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    data = numbers(
        tmp_path, tokenizer=str(tmp_path / "tokenizer.json"), val_fraction=0.3, seq_len=5
    )
    data.prepare_data()
    assert not data.store.exact_bytes
    num_bytes = sum(int(batch["num_bytes"].sum()) for batch in data.val_dataloader())
    assert num_bytes == data.store.counts("val").num_bytes > 0


def test_large_vocabularies_take_four_bytes_a_token(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(70_000)} | {"number": 70_000, "?": 70_001}
    backend = Tokenizer(models.WordLevel(words, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    data = numbers(tmp_path, tokenizer=str(tmp_path / "tokenizer.json"))
    data.prepare_data()
    tokens = data.store.stream("train", 0).read(0, 10**6)
    assert tokens.dtype == "uint32"
    assert 70_000 in tokens


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seq_len": 0}, "seq_len=0 is too small; choose 1 or more"),
        ({"batch_size": 0}, "batch_size=0 is too small"),
        ({"num_workers": -1}, "num_workers=-1 is too small; choose 0"),
        ({"val_stride": 9}, "val_stride=9 is not between 1 and seq_len=8"),
        ({"val_fraction": 1.0}, "val_fraction=1.0 is no share"),
        ({"tokenizer": "bpe:x"}, "a BPE is written 'bpe:N'"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbers(tmp_path, **settings)


def test_nothing_prepared_yet(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no data is prepared at .*call prepare_data\(\) first"):
        numbers(tmp_path).setup("fit")
    assert numbers(tmp_path, tokenizer="bpe:4096").vocab_size == 4096


def test_text_that_fills_no_row(tmp_path: Path) -> None:
    data = numbers(tmp_path, seq_len=100_000)
    data.prepare_data()
    with pytest.raises(ValueError, match="do not fill one row of seq_len=100000"):
        data.setup("fit")


def test_a_summary_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers(tmp_path).prepare_data()
    printed = capsys.readouterr()
    assert printed.out.startswith("prepared 60 documents")
    assert printed.out.count("\n") == 1
    assert printed.err == ""
    numbers(tmp_path).prepare_data()
    assert capsys.readouterr().out == ""
