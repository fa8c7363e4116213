"""Sources that are Hugging Face datasets: saved in a folder, or loaded by name."""

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pile_lightning.data.folder import walk
from pile_lightning.data.hub_errors import cannot_read, loading
from pile_lightning.data.parquet import rows_of
from pile_lightning.data.readers import Document, Fields, MissingField, Skipped
from pile_lightning.data.source import Shard, ShardedSource
from pile_lightning.file_names import check_file_name

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["DatasetFolder", "HubDataset", "is_saved_dataset"]

_SHARD_BYTES = 64 << 20
_ROWS = 1024
_SAVED_DICT, _SAVED = "dataset_dict.json", ("state.json", "dataset_info.json")


def is_saved_dataset(path: str) -> bool:
    """Return whether a folder holds what ``save_to_disk`` has written."""
    folder = Path(path).expanduser()
    try:
        one = all((folder / name).is_file() for name in _SAVED)
        return one or (folder / _SAVED_DICT).is_file()
    except OSError:  # a name that is too long
        return False


@dataclass(frozen=True, kw_only=True)
class _Rows(Shard):
    """Rows of a dataset that is on this machine."""

    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class _Streamed(Shard):
    """One of the shards that a streamed dataset has itself."""

    index: int
    num_shards: int


@dataclass(frozen=True, kw_only=True)
class _DatasetSource(ShardedSource):
    """What both kinds share: a dataset's rows, each a document."""

    path: str | Path = field(kw_only=False)
    """See the sub-class."""
    name: str = ""
    """The domain; the last part of ``path`` by default."""
    text_key: str = "text"
    """Column of the text; ``content.body`` is ``body`` in ``content``."""
    domain_key: str | None = None
    """Column that names a row's domain, written the same way; None where none does."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        if not self.name:
            object.__setattr__(self, "name", Path(str(self.path)).expanduser().resolve().name)
        super().__post_init__()

    @abstractmethod
    def _load(self) -> "Dataset | IterableDataset":
        """Return the dataset."""

    @abstractmethod
    def _identity(self) -> str:
        """Return what changes when the dataset does."""

    def shards(self) -> Sequence[Shard]:
        """Return ranges of rows of about 64 MiB, or the shards of a streamed dataset."""
        from datasets import IterableDataset

        dataset = self._load()
        identity = json.dumps([self._identity(), self.text_key, self.domain_key])
        if isinstance(dataset, IterableDataset):
            num_shards = dataset.num_shards
            return [
                _Streamed(
                    name=f"shard {i} of {num_shards}",
                    identity=identity,
                    index=i,
                    num_shards=num_shards,
                )
                for i in range(num_shards)
            ]
        num_rows, num_bytes = len(dataset), dataset.data.nbytes
        parts = max(1, min(num_rows, -(-num_bytes // _SHARD_BYTES)))
        borders = [num_rows * part // parts for part in range(parts + 1)]
        return [
            _Rows(
                name=f"rows {begin} to {end}",
                num_bytes=num_bytes * (end - begin) // max(1, num_rows),
                identity=identity,
                begin=begin,
                end=end,
            )
            for begin, end in zip(borders, borders[1:], strict=False)
        ]

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        """Yield the rows of a shard of ``shards()`` from the ``start``-th on, named by number.

        Raises:
            OSError: Where ``datasets`` cannot read on.
        """
        dataset: Any = self._load()
        columns = [key for key in (self.text_key, self.domain_key) if key is not None]
        place, number = f"{self.name}, ", start
        if isinstance(shard, _Streamed):
            place += f"{shard.name}, "
            part = dataset.shard(num_shards=shard.num_shards, index=shard.index)
            rows = iter(part.skip(start))
        else:
            assert isinstance(shard, _Rows), f"{shard.name} is no shard of a {type(self).__name__}"
            number += shard.begin
            rows = _rows_between(dataset, number, shard.end, columns, self.record_limit)
        fields = Fields(text_key=self.text_key, domain_key=self.domain_key)
        keys = tuple(dataset.column_names or ())
        while True:
            name = f"{place}row {number}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:
                raise OSError(cannot_read(f"{self.path} at {name}", error)) from error
            if isinstance(row, str):
                yield Skipped(row, name)
            else:
                item = fields.item(row, name)
                yield MissingField(*item, keys) if keys and isinstance(item, MissingField) else item
            number += 1


@dataclass(frozen=True, kw_only=True)
class DatasetFolder(_DatasetSource):
    """A dataset that was written with ``save_to_disk``.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset
        >>> folder = Path(tempfile.mkdtemp()) / "sayings"
        >>> rows = Dataset.from_dict({"text": ["one", "two"]})
        >>> rows.save_to_disk(folder)
        >>> [document.name for document in DatasetFolder(folder).documents()]
        ['sayings, row 0', 'sayings, row 1']
    """

    path: str | Path = field(kw_only=False)
    """The folder."""
    split: str | None = None
    """Which of several datasets that were saved together; ``train``, or the only one, by
    default."""

    def left_out(self) -> str:
        """Return which other datasets were saved together with this one."""
        others = [name for name in self._splits() if name != self._split()]
        return ", ".join(f"split {name!r}" for name in others)

    def _splits(self) -> list[str]:
        listing = Path(str(self.path)).expanduser() / _SAVED_DICT
        if not listing.is_file():
            return []
        names = json.loads(listing.read_text(encoding="utf-8"))["splits"]
        return [check_file_name(name, of=f"a split in {listing}") for name in names]

    def _split(self) -> str:
        """Return which of several datasets to read."""
        splits = self._splits()
        split = self.split
        if split is None:
            split = splits[0] if len(splits) == 1 else "train"
        if split not in splits:
            raise ValueError(
                f"split={self.split!r} of {str(self.path)!r} does not exist; choose among "
                f"{', '.join(splits)}: DatasetFolder(path, split=...)"
            )
        return split

    def _folder(self) -> Path:
        folder = Path(str(self.path)).expanduser()
        if self._splits():
            return folder / self._split()
        if not (folder / "state.json").is_file():
            raise FileNotFoundError(
                f"{str(folder)!r} holds no dataset that save_to_disk has written; to read files of "
                f"text, jsonl or parquet, use FileSource"
            )
        if self.split is not None:
            raise ValueError(
                f"{str(folder)!r} holds one dataset and no splits; leave split={self.split!r} out"
            )
        return folder

    def _identity(self) -> str:
        return _folder_identity(self._folder())

    def _load(self) -> "Dataset":
        folder = self._folder()
        return _load_folder(str(folder), _folder_identity(folder))


@dataclass(frozen=True, kw_only=True)
class HubDataset(_DatasetSource):
    """A dataset that ``datasets.load_dataset`` loads by name, or from a folder of files.

    Streamed, nothing is kept on the disk, and a run that resumes reads its shards again up to where
    it was. ``datasets`` gives up a whole block of rows at one broken line of JSON, which ends in an
    error here; a ``FileSource`` loses the line only, and reads the same files, also by their URLs.

    Example:
        >>> source = HubDataset("EleutherAI/wikitext_document_level", config="wikitext-2-raw-v1",
        ...                     text_key="page")
        >>> source.name
        'wikitext_document_level'
    """

    path: str | Path = field(kw_only=False)
    """The name, such as ``allenai/c4``, or a folder."""
    config: str | None = None
    """Which of its subsets, such as ``en``."""
    split: str = "train"
    """Which split."""
    data_dir: str | None = None
    """Which of its folders, where they are no subsets."""
    revision: str | None = None
    """Branch, tag or commit. A commit makes sure that a resumed run reads the same documents, and
    that nothing has to be asked to know that."""
    streaming: bool = True
    """Whether to read it from where it lies, instead of downloading all of it first."""

    @property
    def _folder(self) -> Path | None:
        folder = Path(str(self.path)).expanduser()
        return folder if folder.is_dir() else None

    def _commit(self) -> str | None:
        """Return the commit to read; branches and tags move on."""
        if self._folder or (self.revision and re.fullmatch("[0-9a-f]{40}", self.revision)):
            return self.revision
        return _newest_commit(str(self.path), self.config, self.data_dir, self.revision)

    def _identity(self) -> str:
        listing: list[Any] = [self.config, self.data_dir, self.split]
        if self._folder:
            files = sorted(walk(self._folder, lambda name: not name.startswith(".")))
            listing += [[file.name, file.stamp] for file in files]
        else:
            listing += [self.path, self._commit()]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def content_fingerprint(self) -> str:
        """Return what stays when the files of a folder are copied."""
        if not self._folder:
            return self.fingerprint()
        files = sorted(walk(self._folder, lambda name: not name.startswith(".")))
        listing: list[Any] = [self.config, self.data_dir, self.split]
        listing += [self.text_key, self.domain_key]
        listing += [[file.name, file.content_stamp()] for file in files]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def _load(self) -> "Dataset | IterableDataset":
        return _load_dataset(
            self._identity(),
            path=str(self._folder or self.path),
            name=self.config,
            data_dir=self.data_dir,
            revision=self._commit(),
            split=self.split,
            streaming=self.streaming,
        )


def _rows_between(
    dataset: "Dataset", begin: int, end: int, keys: Sequence[str], max_record_bytes: int
) -> Iterator[dict[str, Any] | str]:
    # a field in a column, or a column that is called so itself
    columns = {name for key in keys for name in (key, key.partition(".")[0])}
    if begin < end:
        part = dataset.select(range(begin, end))
        there = [name for name in part.column_names if name in columns]
        if there:  # a table without columns has no rows either
            part = part.select_columns(there)
        for table in part.with_format("arrow").iter(_ROWS):
            yield from rows_of(table, max_record_bytes)


def _folder_identity(folder: Path) -> str:
    # state.json holds the fingerprint that datasets keeps
    files = sorted((file.name, file.size) for file in walk(folder, lambda name: True))
    state = (folder / "state.json").read_text(encoding="utf-8")
    for file in json.loads(state).get("_data_files") or ():
        check_file_name(file.get("filename"), of=f"a file in {folder / 'state.json'}")
    return hashlib.sha256(json.dumps([files, state]).encode()).hexdigest()


@lru_cache(maxsize=16)
def _load_folder(path: str, identity: str) -> "Dataset":
    from datasets import load_from_disk

    return load_from_disk(path)


@lru_cache(maxsize=16)
def _load_dataset(identity: str, **arguments: Any) -> "Dataset | IterableDataset":
    from datasets import load_dataset

    with loading(arguments["path"]):
        return load_dataset(**arguments)


@lru_cache(maxsize=16)
def _newest_commit(
    path: str, config: str | None, data_dir: str | None, revision: str | None
) -> str:
    from datasets import load_dataset_builder

    with loading(path):
        builder = load_dataset_builder(path, config, data_dir=data_dir, revision=revision)
    return str(builder.hash)  # of a dataset on the hub, that is the commit
