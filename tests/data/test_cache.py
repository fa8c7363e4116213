"""The folder of prepared data: full, read-only, gone, damaged; each mended or explained."""

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pile_lightning.data import Document
from pile_lightning.data.prepare import Preparation
from pile_lightning.data.source import Shard, ShardedSource, Source
from pile_lightning.data.store import SPLITS, TokenStore


@dataclass(frozen=True, kw_only=True)
class Shelf(ShardedSource):
    """Books of one document, each as large as to be a part of its own."""

    name: str = "shelf"
    count: int = 6
    size: int = 40

    def shards(self) -> Sequence[Shard]:
        names = (f"{i:02d}" for i in range(self.count))
        return [Shard(name=name, num_bytes=1 << 25, identity=str(self.size)) for name in names]

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document]:
        yield Document((f"book {shard.name} " * self.size)[: self.size], shard.name)


def prepare(cache: Path, *sources: Source, name: str = "store", **settings: Any) -> TokenStore:
    defaults = {"tokenizer": "byte", "val_fraction": 0.2, "num_proc": 2}
    return Preparation(sources=sources, path=cache / name, **(defaults | settings)).run(quiet=True)


def texts(store: TokenStore) -> list[str]:
    return [
        store.tokenizer.decode(ids)
        for split in SPLITS
        for stream in store.streams(split)
        for ids in stream.documents()
    ]


def damages() -> Iterator[tuple[str, Callable[[Path], Any]]]:
    def a_part(cache: Path, end: str) -> Path:
        return sorted((cache / "parts").glob(f"*.{end}"))[2]

    yield "no manifest", lambda cache: (cache / "store/manifest.json").unlink()
    yield "half a manifest", lambda cache: os.truncate(cache / "store/manifest.json", 99)
    yield "another manifest", lambda cache: _write(cache / "store/manifest.json", '{"format": 3}')
    yield "no tokenizer", lambda cache: (cache / "store/tokenizer.json").unlink()
    yield "no cache", shutil.rmtree
    yield "no parts", lambda cache: shutil.rmtree(cache / "parts")
    yield "no store", lambda cache: shutil.rmtree(cache / "store")
    for end in ("tokens", "documents"):
        yield f"no {end}", lambda cache, end=end: a_part(cache, end).unlink()
        yield f"half of {end}", lambda cache, end=end: os.truncate(a_part(cache, end), 8)
        yield f"a bit of {end}", lambda cache, end=end: _flip(a_part(cache, end))
        yield f"zeros in {end}", lambda cache, end=end: _zero(a_part(cache, end))
        yield f"{end} swapped", lambda cache, end=end: _swap(cache, end)
    yield "parts swapped", lambda cache: _swap(cache, "tokens", "documents", "json")
    for name in ("store/manifest.json", "store/tokenizer.json"):
        yield f"a bit of {name}", lambda cache, name=name: _flip(cache / name)
        yield f"{name} emptied", lambda cache, name=name: os.truncate(cache / name, 0)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _zero(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:2] + bytes(len(content) - 2))


def _swap(cache: Path, *ends: str) -> None:
    """Exchange files of two parts, whose tokens are as long as each other's if there are two."""
    by_size = sorted((cache / "parts").glob("*.tokens"), key=lambda path: path.stat().st_size)
    pairs = zip(by_size, by_size[1:], strict=False)
    two = min(pairs, key=lambda pair: pair[1].stat().st_size - pair[0].stat().st_size)
    for end in ends:
        one, other = (path.with_suffix(f".{end}") for path in two)
        first = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(first)


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
@pytest.mark.filterwarnings("ignore:.*is damaged .* is made again")
@pytest.mark.parametrize(("name", "damage"), list(damages()), ids=lambda value: str(value)[:20])
def test_a_damaged_cache_is_mended(
    tmp_path: Path, name: str, damage: Callable[[Path], None], tokenizer: str
) -> None:
    cache = tmp_path / "c"
    settings: dict[str, Any] = {"tokenizer": tokenizer, "num_proc": 1, "val_fraction": 0.3}
    before = prepare(cache, Shelf(), **settings)
    expected = texts(before)
    damage(cache)
    after = prepare(cache, Shelf(), **settings)
    assert texts(after) == expected
    assert after.fingerprint == before.fingerprint
    assert after.tokenizer.fingerprint() == before.tokenizer.fingerprint()


@pytest.mark.parametrize("end", ["tokens", "documents", "json"])
def test_what_is_damaged_is_named_and_made_again_alone(tmp_path: Path, end: str) -> None:
    prepare(tmp_path, Shelf(), num_proc=1)
    damaged = sorted((tmp_path / "parts").glob(f"*.{end}"))[2]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/*")}
    _flip(damaged)
    if end == "json":  # which is read when parts are looked for
        (tmp_path / "store/manifest.json").unlink()
    with pytest.warns(UserWarning, match=f"{damaged.name} is damaged .*is made again"):
        prepare(tmp_path, Shelf(), num_proc=1)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("parts/*")}
    changed = {path.stem for path in after if after[path] != before[path]}
    assert changed == {damaged.stem}


@pytest.mark.filterwarnings("ignore:.*is damaged .* is made again")
def test_a_stream_reads_what_was_made_again(tmp_path: Path) -> None:
    """A process that has the damaged file open reads the new one."""
    store = prepare(tmp_path, Shelf(), num_proc=1)
    expected = texts(store)
    for path in (tmp_path / "parts").glob("*.tokens"):
        _flip(path)
    assert texts(store) != expected
    assert texts(prepare(tmp_path, Shelf(), num_proc=1)) == expected


def test_a_store_is_compared_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pile_lightning.data import verified_files

    read: list[Path] = []
    real = verified_files._sum
    monkeypatch.setattr(verified_files, "_sum", lambda path: read.append(path) or real(path))
    for _ in range(3):
        prepare(tmp_path, Shelf(), num_proc=1)
    assert len(read) == len(set(read)) == 13  # two files a part, and the tokenizer


@pytest.mark.filterwarnings("ignore:.*is damaged .* is made again")
def test_a_tokenizer_of_an_earlier_store_is_not_taken_damaged(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tokenizer": "bpe:300", "num_proc": 1, "val_fraction": 0.3}
    prepare(tmp_path, Shelf(), name="earlier", **settings)
    path = tmp_path / "earlier/tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|endoftexs|>"))
    later = prepare(tmp_path, Shelf(count=7), name="later", **settings)
    assert "<|endoftexs|>" not in (later.path / "tokenizer.json").read_text()


def test_a_damaged_manifest_says_so(tmp_path: Path) -> None:
    prepare(tmp_path, Shelf())
    os.truncate(tmp_path / "store/manifest.json", 50)
    with pytest.raises(RuntimeError, match=r"manifest.json is damaged; call prepare_data\(\)"):
        TokenStore(tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_keeps_what_is_made(small_disk: Path) -> None:
    source = Shelf(size=100_000)
    with pytest.raises(OSError, match="is full") as caught:
        prepare(small_disk / "c", source)
    message = str(caught.value)
    assert f"the disk of {small_disk}/c is full" in message
    assert "set data.cache_dir, or the environment variable PILE_CACHE, to a folder on" in message
    assert list(small_disk.glob("c/*.partial")) == []
    kept = len(list(small_disk.glob("c/parts/*.json")))
    assert 2 <= kept < 6
    assert f"{kept} finished parts ({0.2 * kept:.1f} MB) are kept and will be used" in message
    assert multiprocessing.active_children() == []
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    before = {path: path.stat().st_mtime_ns for path in small_disk.glob("c/parts/*")}
    assert len(texts(prepare(small_disk / "c", source))) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_what_a_full_disk_still_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk that is full at the third part says it, without one."""
    from pile_lightning.data import part_writer

    publish = part_writer.publish

    def full(paths: Sequence[Path], folder: Path) -> None:
        if len(list(folder.glob("*.json"))) == 2:
            raise OSError(28, "No space left on device")
        publish(paths, folder)

    monkeypatch.setattr(part_writer, "publish", full)
    told = r"2 finished parts \(0.4 MB\) are kept and will be used, about 0.8 MB more are needed"
    with pytest.raises(OSError, match=told):
        prepare(tmp_path, Shelf(size=100_000), num_proc=1)


def test_a_part_that_is_finished_as_the_disk_fills_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process ends a part, and the other's error is heard before that."""
    from pile_lightning.data import part_writer

    publish = part_writer.publish

    def full(paths: Sequence[Path], folder: Path) -> None:
        try:
            (tmp_path / "taken").mkdir()
        except FileExistsError:
            while not list(folder.glob("*.json")):
                time.sleep(0.01)
            raise OSError(28, "No space left on device") from None
        publish(paths, folder)
        time.sleep(600)

    monkeypatch.setattr(part_writer, "publish", full)
    with pytest.raises(OSError, match=r"1 finished parts \(0.2 MB\) are kept"):
        prepare(tmp_path / "c", Shelf(size=100_000), num_proc=2)


def test_a_full_disk_elsewhere_is_not_the_cache(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Full(Shelf):
        def read(self, shard: Shard, start: int = 0) -> Iterator[Document]:
            yield from super().read(shard)
            raise OSError(28, "No space left on device", "/elsewhere")

    with pytest.raises(OSError, match=r"No space left on device: '/elsewhere'"):
        prepare(tmp_path, Full(name="full"))


def test_a_cache_that_is_read_only(small_disk: Path) -> None:
    prepare(small_disk, Shelf())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert len(texts(prepare(small_disk, Shelf()))) == 6
    for cache in (small_disk, small_disk / "new"):
        with pytest.raises(OSError, match=r"cannot be written to .*Read-only .*set data.cache_dir"):
            prepare(cache, Shelf(count=7), name="other")


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(OSError, match=r"cannot be written to .*set data.cache_dir"):
        prepare(tmp_path / "c/deeper", Shelf())
