"""Which lane reads what: parts of its own where the source can be cut, and every record once."""

import json
from collections import Counter
from pathlib import Path

from pile_lightning.data import FileSource
from pile_lightning.data.deal import Deal, pieces_for
from pile_lightning.data.readers import Document


class Counted(FileSource):
    """Counts the records that are read."""

    read_records = 0

    def read(self, shard, start=0):
        for item in super().read(shard, start):
            type(self).read_records += 1
            yield item


def write(path: Path, num_records: int) -> None:
    path.write_text("".join(json.dumps({"text": f"{i} " * 500}) + "\n" for i in range(num_records)))


def read_by_lanes(source: FileSource, num_lanes: int) -> list[list[str]]:
    deal = Deal(shards=pieces_for(source, num_lanes), num_lanes=num_lanes, seed=0)
    lanes = []
    for units in deal.units(0):
        texts = []
        for unit in units:
            for number, item in enumerate(source.read(deal.shards[unit.shard])):
                if number % unit.num_stripes == unit.stripe:
                    assert isinstance(item, Document)
                    texts.append(item.text)
        lanes.append(texts)
    return lanes


def test_lanes_of_one_file_read_every_record_once_and_no_other(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1000)
    source = Counted(tmp_path)
    lanes = read_by_lanes(source, num_lanes=4)
    expected = Counter(document.text for document in FileSource(tmp_path).documents())
    assert Counter(text for texts in lanes for text in texts) == expected
    assert Counted.read_records == 1000
    shares = [sum(map(len, texts)) for texts in lanes]
    assert max(shares) < 1.2 * min(shares)


def test_parts_are_not_so_small_that_most_hold_no_record(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 100)
    source = FileSource(tmp_path)
    assert len(pieces_for(source, 64)) == 3  # of 64 KiB
    lanes = read_by_lanes(source, num_lanes=64)
    assert sum(map(len, lanes)) == 100
    assert sum(bool(texts) for texts in lanes) > 48


def test_large_shards_and_shards_of_unknown_size_stay_whole(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"{name}.jsonl", 40)
    source = FileSource(tmp_path)
    assert pieces_for(source, 1) == source.shards()

    class Unknown(FileSource):
        def shards(self):
            return [type(s)(**{**vars(s), "num_bytes": None}) for s in super().shards()]

    assert len(pieces_for(Unknown(tmp_path), 64)) == 4
