"""Packs: which documents of a store share a row, computed once and mapped into memory.

A pack is a folder in a store's: ``starts`` and ``lengths`` say which stretch of its domain's stream
each piece is, row by row, and ``row_ends`` how many pieces there are up to the end of each row. The
domains follow one another. ``pack.json`` comes last; a folder without it is no pack. Documents are
packed a million at a time, so that memory stays flat.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.checksum import Checksum, SummingFile
from pile_lightning.data.best_fit import best_fit, cut_documents
from pile_lightning.data.build_lock import building
from pile_lightning.data.cache_errors import writing_to
from pile_lightning.data.store import TokenStore
from pile_lightning.data.token_stream import TokenStream
from pile_lightning.data.verified_files import (
    find_damage,
    publish,
    read_json,
    warn_of_damage,
    write_json,
)

__all__ = ["Pack", "make_pack", "open_pack", "write_pack"]

Ints = npt.NDArray[np.int64]

_FORMAT = 2
_MANIFEST = "pack.json"
_FILES = {"starts": "<i8", "lengths": "<i4", "row_ends": "<i8"}
_PIECES_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A finished pack; each process maps its files when it first reads."""

    path: Path
    rows_by_domain: tuple[int, ...]
    """Number of rows of each domain."""
    num_pieces: int
    checksums: Mapping[str, Checksum]
    """What was written to each file."""

    @cached_property
    def starts(self) -> npt.NDArray[Any]:
        """First position of each piece in its domain's stream (pieces,)."""
        return self._map("starts", self.num_pieces)

    @cached_property
    def lengths(self) -> npt.NDArray[Any]:
        """Tokens of each piece (pieces,)."""
        return self._map("lengths", self.num_pieces)

    @cached_property
    def row_ends(self) -> npt.NDArray[Any]:
        """Pieces up to the end of each row (rows,)."""
        return self._map("row_ends", sum(self.rows_by_domain))

    def _map(self, name: str, size: int) -> npt.NDArray[Any]:
        if not size:  # nothing cannot be mapped
            return np.empty(0, _FILES[name])
        # as a plain array: the class that maps costs 5 us wherever it is indexed
        return np.asarray(np.memmap(self.path / name, _FILES[name], mode="r", shape=(size,)))

    def check_length(self) -> None:
        """Raise RuntimeError where a file was cut: reading a map past its end kills the process."""
        for name, expected in self.checksums.items():
            if (self.path / name).stat().st_size < expected.size:
                raise RuntimeError(
                    f"the prepared data have lost the end of {self.path / name}; call "
                    f"prepare_data() (a Trainer does when it starts), which makes it again"
                )

    def __getstate__(self) -> dict[str, Any]:
        names = ("path", "rows_by_domain", "num_pieces", "checksums")
        return {name: self.__dict__[name] for name in names}


def open_pack(store: TokenStore, *, seq_len: int) -> Pack:
    """Return the pack of a store's training documents.

    Raises:
        RuntimeError: Where there is none.
    """
    pack = _find(store, seq_len)
    if pack is None:
        raise RuntimeError(
            f"no pack for rows of {seq_len} is at {_folder(store, seq_len)}; call prepare_data() "
            f"first (a Trainer does)"
        )
    return pack


def make_pack(store: TokenStore, *, seq_len: int, quiet: bool = False) -> Pack:
    """Return the pack of a store's training documents, after making it where there is none.

    Raises:
        CacheError: Where the store's folder cannot be written.
    """
    folder = _folder(store, seq_len)

    def find(quiet: bool) -> Pack | None:
        pack = _find(store, seq_len)
        if pack is None:
            return None
        files = {folder / name: checksum for name, checksum in pack.checksums.items()}
        return None if find_damage(files, quiet=quiet) else pack

    pack = find(quiet)
    if pack is None:
        with building(
            folder, is_ready=lambda: find(quiet=True) is not None, quiet=quiet
        ) as is_mine:
            if is_mine:
                with writing_to(store.path.parent):
                    _build(store, folder, seq_len, quiet)
        pack = open_pack(store, seq_len=seq_len)
    return pack


def _folder(store: TokenStore, seq_len: int) -> Path:
    return store.path / f"best_fit-{seq_len}"


def _find(store: TokenStore, seq_len: int) -> Pack | None:
    folder = _folder(store, seq_len)
    try:
        plain = read_json(folder / _MANIFEST)
        if plain["made_of"] != _made_of(store):
            return None
        pack = Pack(
            path=folder,
            rows_by_domain=tuple(plain["rows_by_domain"]),
            num_pieces=plain["num_pieces"],
            checksums={name: Checksum(*plain["checksums"][name]) for name in _FILES},
        )
        for name, checksum in pack.checksums.items():
            if (folder / name).stat().st_size != checksum.size:
                return None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        warn_of_damage(folder / _MANIFEST, "it is not what was written")
        return None
    return pack


def _made_of(store: TokenStore) -> dict[str, Any]:
    return {"format": _FORMAT, "content": store.fingerprint["content"]}


def _build(store: TokenStore, folder: Path, seq_len: int, quiet: bool) -> None:
    began = time.monotonic()
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed builder
    unfinished.mkdir()
    try:
        pack = write_pack(store.streams("train"), unfinished, seq_len=seq_len)
        manifest = {
            "made_of": _made_of(store),
            "rows_by_domain": pack.rows_by_domain,
            "num_pieces": pack.num_pieces,
            "checksums": pack.checksums,
        }
        write_json(unfinished / _MANIFEST, manifest)
        folder.mkdir(exist_ok=True)
        publish([unfinished / name for name in (*_FILES, _MANIFEST)], folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if not quiet:
        counts, num_rows = store.counts("train"), sum(pack.rows_by_domain)
        positions = num_rows * seq_len
        print(
            f"packed {counts.documents:,} documents into {num_rows:,} rows of {seq_len} "
            f"({1 - counts.tokens / max(1, positions):.2%} padding) in "
            f"{time.monotonic() - began:.1f} s",
            flush=True,
        )


def write_pack(streams: Sequence[TokenStream], folder: Path, *, seq_len: int) -> Pack:
    """Pack the documents of each domain, write the files and return the pack."""
    rows_by_domain, num_pieces = [0] * len(streams), 0
    with ExitStack() as stack:
        files = [SummingFile(stack.enter_context((folder / name).open("wb"))) for name in _FILES]
        for domain, stream in enumerate(streams):
            for starts, lengths in _pieces(stream, seq_len):
                items, row_ends = best_fit(lengths, capacity=seq_len)
                columns = starts[items], lengths[items], num_pieces + row_ends
                for file, dtype, column in zip(files, _FILES.values(), columns, strict=True):
                    file.write(column.astype(dtype).data)
                rows_by_domain[domain] += len(row_ends)
                num_pieces += len(items)
        checksums = {name: file.sync() for name, file in zip(_FILES, files, strict=True)}
    return Pack(
        path=folder,
        rows_by_domain=tuple(rows_by_domain),
        num_pieces=num_pieces,
        checksums=checksums,
    )


def _pieces(stream: TokenStream, seq_len: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield starts and lengths of what is packed together."""
    waiting: list[tuple[Ints, Ints]] = []
    start = size = 0
    for ends in filter(len, stream.ends_by_segment()):
        starts = np.concatenate([[start], ends[:-1]])
        waiting.append(cut_documents(starts, ends - starts, seq_len=seq_len))
        start = int(ends[-1])
        size += len(waiting[-1][0])
        if size >= _PIECES_AT_ONCE:
            yield _joined(waiting)
            waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    starts, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
    return starts, lengths
