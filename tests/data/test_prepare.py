"""Preparing: what is there is used, what is missing is made, and nothing half-made is believed."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from pile_lightning.data import Document
from pile_lightning.data.source import Source
from pile_lightning.data.split import content_hash, is_held_out
from pile_lightning.data.store import SPLITS
from tests.data.numbers import Numbers, files, numbers, part_files, prepare, texts

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.mark.parametrize("num_proc", [1, 2, 5])
def test_the_store_does_not_depend_on_the_processes(tmp_path: Path, num_proc: int) -> None:
    store = prepare(tmp_path / str(num_proc), Numbers(), num_proc=num_proc)
    alone = prepare(tmp_path / "1", Numbers(), num_proc=1)
    assert texts(store) == texts(alone)
    assert store.fingerprint == alone.fingerprint
    in_order = [f"number {i}" for i in range(60)]
    held_out = [text for text in in_order if is_held_out(content_hash(text.encode()), 0.2)]
    assert texts(store, "val") == held_out
    assert texts(store, "train") == [text for text in in_order if text not in held_out]
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == [
        "parts",
        "store",
        "store.lock",
    ]


def test_the_content_is_the_same_in_parts_of_another_size(tmp_path: Path) -> None:
    large = prepare(tmp_path / "large", Numbers(size=1 << 25))
    small = prepare(tmp_path / "small", Numbers(size=1000))
    assert len(large.manifest["parts"]) == 6
    assert len(small.manifest["parts"]) < 6
    assert large.fingerprint == small.fingerprint
    assert texts(large) == texts(small)
    assert prepare(tmp_path / "other", Numbers(count=5)).fingerprint != large.fingerprint


def test_files_that_are_added_cost_no_more_than_themselves(tmp_path: Path) -> None:
    log = tmp_path / "log"
    prepare(tmp_path, Numbers(count=5), name="first")
    before = part_files(tmp_path)
    store = prepare(tmp_path, Numbers(count=7, log=str(log)), name="second")
    assert sorted(texts(store)) == numbers(70)
    after = part_files(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 6
    # of the shards that were there only the beginning is read, for the first that is held out
    read = {int(line) for line in log.read_text().split()}
    assert set(range(50, 70)) <= read
    assert not set(range(20, 50)) & read


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    source = files(tmp_path / "text", *(f"{i}.txt" for i in range(9)), size=700_000)
    old = prepare(tmp_path / "c", source, name="old")
    (tmp_path / "text/4.txt").write_text("changed")
    new = prepare(tmp_path / "c", source, name="new")
    assert ("changed" in texts(new), "changed" in texts(old)) == (True, False)
    kept = {part[0] for part in old.manifest["parts"]} & {part[0] for part in new.manifest["parts"]}
    assert len(kept) >= len(old.manifest["parts"]) - 2


def test_a_bpe_is_kept_when_files_are_only_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bpe = {"tokenizer": "bpe:300", "quiet": False, "val_fraction": 0.1}
    source = files(tmp_path / "text", *(f"{i}.txt" for i in range(20)))
    first = prepare(tmp_path / "c", source, name="first", **bpe)
    files(tmp_path / "text", *(f"more/{i}.txt" for i in range(10)), size=3000)
    capsys.readouterr()
    second = prepare(tmp_path / "c", source, name="second", **bpe)
    printed = capsys.readouterr().out.splitlines()
    assert f"files were only added, so the tokenizer of {tmp_path}/c/first is kept" in printed[0]
    assert len(printed) == 2
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    assert sorted(texts(second)) == sorted(d.text for d in source.documents())  # type: ignore[union-attr]

    (tmp_path / "text/3.txt").write_text("something else " * 300)
    third = prepare(tmp_path / "c", source, name="third", **bpe)
    assert "only added" not in capsys.readouterr().out
    assert third.tokenizer.fingerprint() != first.tokenizer.fingerprint()


def test_a_bpe_of_a_small_sample_is_not_kept(tmp_path: Path) -> None:
    bpe = {"tokenizer": "bpe:300", "val_fraction": 0}
    source = files(tmp_path / "text", *(f"{i}.txt" for i in range(4)))
    first = prepare(tmp_path / "c", source, name="first", **bpe)
    files(tmp_path / "text", *(f"more/{i}.txt" for i in range(30)), size=3000)
    second = prepare(tmp_path / "c", source, name="second", **bpe)
    assert second.tokenizer.fingerprint() != first.tokenizer.fingerprint()


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_error_of_a_source_is_the_one_it_was(tmp_path: Path, num_proc: int) -> None:
    with pytest.raises(FileNotFoundError, match="number 57 is gone"):
        prepare(tmp_path, Numbers(fail="57"), num_proc=num_proc)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "store.partial").exists()
    assert len(texts(prepare(tmp_path, Numbers()))) == 60


def test_bad_input_is_judged_over_all_parts(tmp_path: Path) -> None:
    # twelve bad ones of 120: too many together, and too few in any part
    with pytest.raises(ValueError, match=r"12 of 120 records of source 'numbers' are left out"):
        prepare(tmp_path, Numbers(count=12, bad=1))
    for _ in range(2):  # made, then found
        name = f"store{_}"
        with pytest.warns(UserWarning, match=r"12 x broken: 0, 10, 20, \.\.\."):
            store = prepare(tmp_path, Numbers(count=12, bad=1), name=name, max_bad_fraction=0.5)
        assert store.manifest["skipped"] == {"broken": 12}
    with pytest.raises(ValueError, match="broken: 0, in source 'numbers'"):
        prepare(tmp_path, Numbers(bad=1), name="strict", max_bad_fraction=0)


def test_documents_name_their_domains(tmp_path: Path) -> None:
    def odd(number: int) -> str | None:
        return {0: None, 1: "odd", 2: "a"}[number % 3]

    one = Numbers(name="one", domain_of=odd, version="1")
    two = Numbers(name="two", count=3, domain_of=lambda number: "odd", version="2")
    three = Numbers(name="three", count=1)
    store = prepare(tmp_path, one, two, three)
    assert store.domains == ("a", "odd", "one", "three")

    def of(domain: int) -> list[int]:
        streams = [store.stream(split, domain) for split in SPLITS]
        return sorted(
            int(store.tokenizer.decode(ids).split()[1]) for s in streams for ids in s.documents()
        )

    assert of(0) == [i for i in range(60) if i % 3 == 2]
    assert of(1) == sorted([i for i in range(60) if i % 3 == 1] + list(range(30)))
    assert of(2) == [i for i in range(60) if i % 3 == 0]
    assert of(3) == list(range(10))


def test_a_source_is_not_called_like_a_domain_of_another(tmp_path: Path) -> None:
    named = Numbers(name="one", domain_of=lambda number: "two", version="1")
    with pytest.raises(ValueError, match=r"'two' is a domain of two sources, 'one' and 'two', and"):
        prepare(tmp_path, named, Numbers(name="two"))


def test_the_same_text_twice_is_prepared_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = prepare(tmp_path / "c", Numbers(log=str(log)), Numbers(name="again", log=str(log)))
    assert store.domains == ("numbers", "again")
    assert len(texts(store)) == 120
    assert len(log.read_text().split()) < 120


def test_held_out_documents_alone(tmp_path: Path) -> None:
    whole = prepare(tmp_path, Numbers())
    store = prepare(tmp_path, Numbers(), name="val", train=False)
    assert texts(store, "val") == texts(whole, "val")
    assert texts(store, "train") == []
    assert store.domains == ("numbers",)


def test_reading_stops_when_enough_is_held_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    whole = prepare(tmp_path, Numbers(count=50), Numbers(name="again", count=50))
    endless = Numbers(count=50, log=str(log), fail="400")
    store = prepare(
        tmp_path, endless, Numbers(name="again"), name="val", train=False, held_out_bytes=120
    )
    for domain in range(2):
        counts = store.stream("val", domain).counts
        assert 60 <= counts.num_bytes < 60 + len("number 999")
        ids = store.stream("val", domain).read(0, counts.tokens)
        assert ids.tolist() == whole.stream("val", domain).read(0, counts.tokens).tolist()
    assert max(map(int, log.read_text().split())) < 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out_bytes": 5}, "held_out_bytes=5 limits a store of held-out documents alone"),
        ({"held_out_bytes": 0, "train": False}, "give at least 1"),
        ({"train": False, "val_fraction": 0.0}, "val_fraction=0 holds out none"),
        ({"num_proc": 0}, "num_proc=0 is too small; choose 1 or more"),
    ],
)
def test_settings_that_do_not_fit(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, Numbers(), **settings)


def test_one_document_is_cut(tmp_path: Path) -> None:
    class One(Source):
        def documents(self) -> Iterator[Document]:
            yield Document("one\ntwo\nall there is\n", "one")

        def fingerprint(self) -> str:
            return "one"

    store = prepare(tmp_path, One(name="one"), train=False)
    assert (store.counts("train").documents, store.counts("val").documents) == (0, 1)
    assert "one document alone" in store.remarks()[0]


def test_the_manifest_holds_no_place(tmp_path: Path) -> None:
    prepare(tmp_path, files(tmp_path / "text", "a.txt", "b.txt"), tokenizer="bpe:300")
    for path in tmp_path.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
    assert json.loads((tmp_path / "store/manifest.json").read_text())["domains"] == ["files"]
