"""Bad input: told once, by reason and place, and too much of it stops."""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pile_lightning.data import Document, FileSource, Skipped, TextData
from pile_lightning.data.policy import BadInput, warn_of_bad_input
from pile_lightning.data.readers import MissingField


def items(num_good: int, num_bad: int) -> Iterator[Document | Skipped]:
    yield from (Skipped("broken", f"bad {i}") for i in range(num_bad))
    yield from (Document("text", f"good {i}") for i in range(num_good))


@pytest.mark.parametrize(
    ("num_good", "num_bad", "fraction", "stops"),
    [
        (40, 10, 0.001, False),  # ten are always borne
        (40, 11, 0.001, True),
        (12_000, 12, 0.001, False),  # 12 of 12,012
        (12_000, 13, 0.001, True),
        (100, 100, 0.5, False),
        (99, 100, 0.5, True),
        (0, 100, 1.0, False),
        (1000, 1, 0.0, True),
    ],
)
def test_more_than_a_fraction_stops(
    num_good: int, num_bad: int, fraction: float, stops: bool
) -> None:
    # counted by two processes and judged at the end, order does not matter
    bad, other = (BadInput(source="x", max_bad_fraction=fraction) for _ in range(2))
    for item in items(num_good, 0):
        bad.count(item)
    for item in items(0, num_bad):
        other.count(item)
    bad.merge(pickle.loads(pickle.dumps(other)))
    assert (bad.num_records, bad.num_bad) == (num_good + num_bad, num_bad)
    if stops:
        with pytest.raises(ValueError, match=r"(?s)broken: bad 0.*max_bad_fraction"):
            bad.judge(at_end=True)
    else:
        bad.judge(at_end=True)


def test_it_stops_as_soon_as_a_thousand_are_read() -> None:
    bad = BadInput(source="x")
    with pytest.raises(ValueError, match=r"(?s)11 of 1000 records of source 'x' .*\n  11 x broken"):
        list(bad.documents(items(5000, 11)))
    assert bad.num_records == 1000


def test_strict_stops_at_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "a"}\nbroken\n' * 9)
    bad = BadInput(source="x", max_bad_fraction=0)
    with pytest.raises(ValueError, match=r"broken JSON: a.jsonl:3, in source 'x'; repair or rem"):
        list(bad.documents(FileSource(tmp_path).documents()))
    assert bad.num_records == 3


def test_what_is_told(recwarn: pytest.WarningsRecorder) -> None:
    one, two, three = (BadInput(source=name) for name in "abc")
    assert len(list(one.documents(items(20, 4)))) == 20
    two.count(Skipped("empty text", "e"))
    three.count(Skipped("other", "here"))
    warn_of_bad_input([one, two, three])
    assert [str(warning.message) for warning in recwarn] == [
        "4 of 24 records of source 'a' are left out:\n"
        "  4 x broken: bad 0, bad 1, bad 2, ...\n"
        "1 of 1 records of source 'c' are left out:\n"
        "  1 x other: here"
    ]


def test_documents_that_are_none() -> None:
    bad = BadInput()
    given = [Document("", "1"), Document("\ud800", "2"), Document("a\0b", "3")]
    assert list(bad.documents(given)) == [Document("a\0b", "3")]
    assert bad.reasons == {"empty text": 1, "a lone surrogate": 1}
    assert bad.num_bad == 1


def test_a_missing_field_is_a_wrong_name_and_not_bad_data() -> None:
    def records() -> Iterator[Document | Skipped]:
        for i in range(5000):
            yield MissingField("no field 'text'", f"a:{i}", ("body", f"id{i % 20}"))

    bad = BadInput(source="x", max_bad_fraction=1.0)
    with pytest.raises(ValueError, match=r"1000 of 1000 .* they have 'body', .*: set text_key"):
        list(bad.documents(records()))
    copy = pickle.loads(pickle.dumps(MissingField("no field", "a", ("b",))))
    assert (copy, copy.keys) == (Skipped("no field", "a"), ("b",))


def test_empty_text_is_not_bad() -> None:
    bad = BadInput(max_bad_fraction=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not list(bad.documents(Skipped("empty text", "a") for _ in range(2000)))
        warn_of_bad_input([bad])


def test_in_a_data_module(tmp_path: Path) -> None:
    lines = ["broken\n"] * 11 + [f'{{"text": "text {i}"}}\n' for i in range(500)]
    (tmp_path / "a.jsonl").write_text("".join(lines))

    def prepare(**settings: float) -> TextData:
        cache = str(tmp_path / "cache")
        data = TextData(str(tmp_path / "a.jsonl"), tokenizer="byte", cache_dir=cache, **settings)
        data.prepare_data()
        return data

    with pytest.raises(ValueError, match=r"11 of 511 records of source 'a' are left out"):
        prepare()
    with pytest.raises(ValueError, match=r"broken JSON: a.jsonl:1, in source 'a'"):
        prepare(max_bad_fraction=0.0)
    with pytest.warns(UserWarning, match=r"11 x broken JSON: a.jsonl:1, a.jsonl:2"):
        assert prepare(max_bad_fraction=0.1).store.manifest["skipped"] == {"broken JSON": 11}
    with pytest.raises(ValueError, match=r"max_bad_fraction=2 is no share of the records"):
        prepare(max_bad_fraction=2)
