"""A survey says what the text is: counted here from the documents themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pile_lightning.data import Document, FileSource, StreamedText, TextData
from pile_lightning.data.split import content_hash, is_held_out
from pile_lightning.data.survey import survey

from .conftest import maker


def texts(data: TextData | StreamedText, source: int) -> tuple[list[bytes], list[bytes]]:
    """The documents of a source to learn from, and those held out."""
    read = [item for item in data.sources[source].documents() if isinstance(item, Document)]
    split: tuple[list[bytes], list[bytes]] = ([], [])
    for text in (document.text.encode() for document in read):
        split[is_held_out(content_hash(text), data.store.held_out_below)].append(text)
    return split


def test_a_store_is_what_its_documents_are(make_data: Callable[..., TextData]) -> None:
    data = make_data()
    found = survey(data)
    for number, (name, domain) in enumerate(found.domains.items()):
        train, held_out = texts(data, number)
        assert name == ("prose", "code")[number]
        assert sorted(domain.lengths.tolist()) == sorted(len(text) + 1 for text in train)
        assert domain.train.documents == len(train)
        assert domain.train.num_bytes == sum(map(len, train))
        assert domain.held_out.documents == len(held_out)
        assert domain.held_out.num_bytes == sum(map(len, held_out))
        assert domain.natural == domain.train.tokens / found.train.tokens
    assert found.num_dropped == found.train.tokens - data.training_rows.num_rows * 16
    assert found.read is None


def test_a_stream_that_is_read_whole_is_what_its_store_is(
    make_data: Callable[..., TextData], folder: Path, cache: Path
) -> None:
    streamed: StreamedText = maker(StreamedText, folder, cache)()
    found, whole = survey(streamed, read_bytes=10**9), survey(make_data())
    assert found.read == found.train == whole.train
    assert found.num_dropped is None
    for name, domain in whole.domains.items():
        assert sorted(found.domains[name].lengths) == sorted(domain.lengths)
        assert found.domains[name].held_out == domain.held_out
        assert found.domains[name].natural == pytest.approx(domain.natural, abs=0.05)


def test_of_a_stream_an_equal_part_of_each_source_is_read(folder: Path, cache: Path) -> None:
    found = survey(maker(StreamedText, folder, cache)(), read_bytes=6000)
    for domain in found.domains.values():
        assert 1500 < domain.train.num_bytes < 3400  # some of what was read is held out


def test_what_is_read_of_a_stream_is_from_all_over_it(tmp_path: Path) -> None:
    for number in range(50):
        path = tmp_path / "text" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x" * (number + 1) * 10)
    data = StreamedText(
        str(tmp_path / "text"), tokenizer="byte", cache_dir=str(tmp_path), val_fraction=0.1
    )
    data.prepare_data()
    lengths = survey(data, read_bytes=3000).domains["text"].lengths
    assert lengths.min() < 200
    assert lengths.max() > 300
    assert len(lengths) < 40


def test_no_large_file_is_all_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for number, letter in enumerate("ab", start=1):
        texts = [f"{i:03d}" + letter * 47 * number for i in range(100)]
        path = tmp_path / "text" / f"{letter}.jsonl"
        path.write_text("\n".join(f'{{"text": "{text}"}}' for text in texts))
    data = StreamedText(
        str(tmp_path / "text"), tokenizer="byte", cache_dir=str(tmp_path), val_fraction=0.1
    )
    data.prepare_data()
    lengths = survey(data, read_bytes=2000).domains["text"].lengths
    assert set(lengths.tolist()) == {51, 98}


@pytest.mark.parametrize("kind", [TextData, StreamedText])
def test_what_is_skipped_is_counted_by_reason(
    kind: type[TextData] | type[StreamedText], tmp_path: Path
) -> None:
    good = [f'{{"text": "number {i}"}}' for i in range(60)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*good, '{"text": ""}', '{"text": 5}', '{"tex', '{"te']))
    data = kind(FileSource(path), tokenizer="byte", cache_dir=str(tmp_path), val_fraction=0.1)
    with pytest.warns(UserWarning, match="3 of 64 records"):
        data.prepare_data()
    assert survey(data).skipped == {
        "empty text": 1,
        "field 'text' is not a string": 1,
        "broken JSON": 2,
    }
