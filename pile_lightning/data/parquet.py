"""Parquet files: a document a row, read group by group; a damaged group costs its own rows."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from pile_lightning.data.readers import WRONG_UTF8, Document, Fields, MissingField, Skipped

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["ranges_of_groups", "read_groups", "rows_of"]

_ROWS = 1024


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


def rows_of(batch: "pa.RecordBatch | pa.Table") -> Iterator[dict[str, Any] | None]:
    """Yield each row, or None for one that holds bytes that are no text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # nothing has been yielded
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _read_group(
    parquet: "pq.ParquetFile", group: int, first: int, name: str, fields: Fields
) -> Iterator[Document | Skipped]:
    """Yield exactly as many items as the footer says that the group has rows."""
    num_rows = parquet.metadata.row_group(group).num_rows
    keys = tuple(parquet.schema_arrow.names)
    columns = [column for column in (fields.text_key, fields.domain_key) if column is not None]
    row = 0
    for record in islice(_group_rows(parquet, group, columns), num_rows):
        place = f"{name}, row {first + row}"
        if record is None:
            yield Skipped(WRONG_UTF8, place)
        else:
            item = fields.item(record, place)
            # of the keys that were not read, the schema knows
            yield MissingField(*item, keys) if isinstance(item, MissingField) else item
        row += 1
    for lost in range(row, num_rows):
        yield Skipped("damaged parquet row group", f"{name}, row {first + lost}")


def _group_rows(
    parquet: "pq.ParquetFile", group: int, columns: list[str]
) -> Iterator[dict[str, Any] | None]:
    """Yield rows until the end or the first that is damaged."""
    batches = parquet.iter_batches(_ROWS, row_groups=[group], columns=columns, use_threads=False)
    while True:
        try:
            rows = list(rows_of(next(batches)))
        except StopIteration:
            return
        except (OSError, ValueError, MemoryError, _arrow_error()):
            return
        yield from rows


def _open(opened: BinaryIO) -> "pq.ParquetFile | None":
    """Return the file, or None where its footer cannot be read or contradicts itself."""
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        metadata = parquet.metadata
        # its columns are not looked at: a damaged one ends the process (pyarrow 26)
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        whole = sum(rows) == metadata.num_rows and all(number >= 0 for number in rows)
        parquet.schema_arrow.names  # noqa: B018 (it is read only now)
    except (OSError, ValueError, MemoryError, _arrow_error()):
        return None
    return parquet if whole else None


def _arrow_error() -> type[Exception]:
    import pyarrow as pa

    return pa.ArrowException  # type: ignore[no-any-return]
