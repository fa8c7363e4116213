"""Parquet files: a document a row, read group by group; a damaged group costs its own rows."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from pile_lightning.data.readers import (
    MAX_RECORD_BYTES,
    WRONG_UTF8,
    Document,
    Fields,
    MissingField,
    Skipped,
    too_large,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["ranges_of_groups", "read_groups", "rows_of"]

# few: one long text in a column's dictionary is copied for each row that has it. That takes 4.5 us
# a row, where 1024 at once take 1.3, and encoding a line of text takes 15
_ROWS = 8
_LARGE_GROUP = 1 << 30
_BYTES_AT_ONCE = 16 << 20
_PIECE = 1 << 20
# what a damaged group can cost: a footer may claim any number of rows
_MOST_LOST = 1_000_000


def ranges_of_groups(opened: BinaryIO, num_bytes: int) -> list[tuple[int, int, int]]:
    """Return ranges of row groups of about ``num_bytes`` each, with their bytes.

    Only the footer is read; a file without a good one is no range at all.
    """
    parquet = _open(opened)
    ranges: list[tuple[int, int, int]] = []
    if parquet is not None:
        begin = size = 0
        for group in range(parquet.metadata.num_row_groups):
            size += parquet.metadata.row_group(group).total_byte_size
            if size >= num_bytes:
                ranges.append((begin, group + 1, size))
                begin, size = group + 1, 0
        if size:
            ranges.append((begin, parquet.metadata.num_row_groups, size))
    return ranges


def read_groups(
    opened: BinaryIO, name: str, fields: Fields, groups: tuple[int, int] | None, start: int
) -> Iterator[Document | Skipped]:
    """Yield the rows of some row groups, named by their number in the file, from 0.

    Args:
        opened: Can be read anywhere.
        name: Of the file.
        fields: Says which columns are read; ``meta.name`` is a field of a struct.
        groups: First row group and the one behind the last; None for all.
        start: How many rows to leave out; whole groups of them are not read.
    """
    parquet = _open(opened)
    if parquet is None:
        if not start:
            yield Skipped("no readable parquet footer", name)
        return
    metadata = parquet.metadata
    begin, end = groups or (0, metadata.num_row_groups)
    row = sum(metadata.row_group(group).num_rows for group in range(begin))
    for group in range(begin, end):
        num_rows = metadata.row_group(group).num_rows
        if start < num_rows:
            yield from islice(_read_group(parquet, group, row, name, fields), start, None)
        start = max(0, start - num_rows)
        row += num_rows


def rows_of(
    batch: "pa.RecordBatch | pa.Table", max_record_bytes: int = MAX_RECORD_BYTES
) -> Iterator[dict[str, Any] | str]:
    """Yield each row, or why it cannot be one: it is too large, or holds bytes that are no text."""
    if batch.nbytes <= min(_BYTES_AT_ONCE, max_record_bytes):
        try:
            yield from batch.to_pylist()
            return
        except UnicodeDecodeError:  # nothing has been yielded
            pass
    for i in range(batch.num_rows):
        row = batch.slice(i, 1)
        if _num_bytes(row) > max_record_bytes:
            yield too_large(max_record_bytes)
            continue
        try:
            yield row.to_pylist()[0]
        except UnicodeDecodeError:
            yield WRONG_UTF8


def _num_bytes(row: "pa.RecordBatch | pa.Table") -> int:
    """Return the bytes of one row, of a dictionary its own value alone."""
    import pyarrow as pa

    plain = 0
    for column in row.columns:
        if pa.types.is_dictionary(column.type):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            plain += sum(chunk.dictionary_decode().nbytes for chunk in chunks)
        else:
            plain += column.nbytes
    return plain


def _read_group(
    parquet: "pq.ParquetFile", group: int, first: int, name: str, fields: Fields
) -> Iterator[Document | Skipped]:
    """Yield as many items as the footer says that the group has rows, of lost ones a million."""
    num_rows = parquet.metadata.row_group(group).num_rows
    keys = tuple(parquet.schema_arrow.names)
    columns = [column for column in (fields.text_key, fields.domain_key) if column is not None]
    row = 0
    for record in islice(_group_rows(parquet, group, columns, fields), num_rows):
        place = f"{name}, row {first + row}"
        if isinstance(record, str):
            yield Skipped(record, place)
        else:
            item = fields.item(record, place)
            # of the keys that were not read, the schema knows
            yield MissingField(*item, keys) if isinstance(item, MissingField) else item
        row += 1
    for lost in range(row, min(num_rows, row + _MOST_LOST)):
        yield Skipped("damaged parquet row group", f"{name}, row {first + lost}")


def _group_rows(
    parquet: "pq.ParquetFile", group: int, columns: list[str], fields: Fields
) -> Iterator[dict[str, Any] | str]:
    """Yield rows until the end or the first that is damaged."""
    num_rows = 1 if parquet.metadata.row_group(group).total_byte_size > _LARGE_GROUP else _ROWS
    batches = parquet.iter_batches(num_rows, row_groups=[group], columns=columns, use_threads=False)
    while True:
        try:
            yield from rows_of(next(batches), fields.max_record_bytes)
        except StopIteration:
            return
        except (OSError, ValueError, MemoryError, _arrow_error()):
            return


def _open(opened: BinaryIO) -> "pq.ParquetFile | None":
    """Return the file, or None where its footer cannot be read or contradicts itself."""
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(
            opened,
            page_checksum_verification=True,
            # a column is read piece by piece, not as a whole
            pre_buffer=False,
            buffer_size=_PIECE,
        )
        metadata = parquet.metadata
        # its columns are not looked at: a damaged one ends the process (pyarrow 26)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        rows = [group.num_rows for group in groups]
        whole = sum(rows) == metadata.num_rows and all(number >= 0 for number in rows)
        whole = whole and all(group.total_byte_size >= 0 for group in groups)
        parquet.schema_arrow.names  # noqa: B018 (it is read only now)
    except (OSError, ValueError, MemoryError, _arrow_error()):
        return None
    return parquet if whole else None


def _arrow_error() -> type[Exception]:
    import pyarrow as pa

    return pa.ArrowException  # type: ignore[no-any-return]
