"""A stream reads the same tokens however they are spread over files."""

import pickle
import random
import resource
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from pile_lightning.data import token_stream
from pile_lightning.data.token_stream import DOCUMENT_DTYPE, Segment, StreamCounts, TokenStream


def write_part(folder: Path, name: str, lengths: list[int], first: int) -> list[int]:
    """Write documents of these lengths, whose tokens count on from ``first``."""
    tokens = list(range(first, first + sum(lengths)))
    (folder / f"{name}.tokens").write_bytes(np.array(tokens, "<u4").tobytes())
    documents = [*np.cumsum(lengths), *(10 * length for length in lengths)]
    (folder / f"{name}.documents").write_bytes(np.array(documents, DOCUMENT_DTYPE).tobytes())
    return tokens


def segment(name: str, lengths: list[int]) -> Segment:
    counts = StreamCounts(documents=len(lengths), tokens=sum(lengths), num_bytes=10 * sum(lengths))
    return Segment(name, len(lengths), 0, 0, counts)


@pytest.fixture
def spread(tmp_path: Path) -> tuple[TokenStream, list[int], list[int]]:
    """A stream over forty files, some of them empty; its tokens, and its documents' lengths."""
    chance = random.Random(0)
    tokens, lengths, segments = [], [], []
    for number in range(40):
        mine = [chance.randrange(1, 9) for _ in range(chance.randrange(0, 5))]
        tokens += write_part(tmp_path, f"p{number}", mine, len(tokens))
        segments.append(segment(f"p{number}", mine))
        lengths += mine
    return TokenStream(folder=tmp_path, dtype="<u4", segments=segments), tokens, lengths


def test_any_range_is_the_same_as_of_one_array(
    spread: tuple[TokenStream, list[int], list[int]],
) -> None:
    stream, tokens, _ = spread
    chance = random.Random(1)
    for _ in range(500):
        start, length = chance.randrange(len(tokens)), chance.randrange(60)
        assert stream.read(start, start + length).tolist() == tokens[start : start + length]
    assert stream.read(len(tokens), len(tokens) + 5).tolist() == []
    assert TokenStream(folder=stream.folder, dtype="<u4", segments=[]).read(0, 5).tolist() == []


def test_documents_and_their_bytes(spread: tuple[TokenStream, list[int], list[int]]) -> None:
    stream, tokens, lengths = spread
    assert stream.ends.tolist() == np.cumsum(lengths).tolist()
    assert stream.num_bytes.tolist() == [10 * length for length in lengths]
    assert [len(ids) + 1 for ids in stream.documents()] == lengths
    chance = random.Random(2)
    for _ in range(200):
        start, end = sorted(chance.choices(range(len(tokens) + 2), k=2))
        inside = (stream.ends - 1 >= start) & (stream.ends - 1 < end)
        assert stream.bytes_ending_in(start, end) == stream.num_bytes[inside].sum()


def test_segments_that_begin_inside_a_part(tmp_path: Path) -> None:
    tokens = write_part(tmp_path, "p", [3, 4, 5], 0)
    counts = StreamCounts(documents=1, tokens=5, num_bytes=50)
    # the ends of a segment count from its own beginning
    ends = np.array([3, 7, 5, 30, 40, 50], DOCUMENT_DTYPE)
    (tmp_path / "p.documents").write_bytes(ends.tobytes())
    stream = TokenStream(folder=tmp_path, dtype="<u4", segments=[Segment("p", 3, 2, 7, counts)])
    assert stream.read(0, 9).tolist() == tokens[7:]
    assert (stream.ends.tolist(), stream.num_bytes.tolist()) == ([5], [50])


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = lru_cache(maxsize=50)(token_stream._OpenFile)
    monkeypatch.setattr(token_stream, "_open_file", few)
    names = [f"p{number}" for number in range(400)]
    for number, name in enumerate(names):
        write_part(tmp_path, name, [2], 2 * number)
    stream = TokenStream(
        folder=tmp_path, dtype="<u4", segments=[segment(name, [2]) for name in names]
    )
    assert stream.read(0, 800).tolist() == list(range(800))
    opened = Path("/proc/self/fd").iterdir()
    assert sum(str(tmp_path) in str(fd.readlink()) for fd in opened if fd.exists()) == 50
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert token_stream._files_open() <= max(64, soft / 4)


def test_a_pickled_stream_holds_no_tokens(
    spread: tuple[TokenStream, list[int], list[int]],
) -> None:
    stream, tokens, _ = spread
    assert stream.ends.size
    copy = pickle.loads(pickle.dumps(stream))
    assert copy.read(0, len(tokens)).tolist() == tokens
    assert len(pickle.dumps(stream)) < 100 * len(stream.segments)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"half")])
def test_a_lost_file_is_no_text(
    spread: tuple[TokenStream, list[int], list[int]], damage: object
) -> None:
    stream, tokens, _ = spread
    named = next(s for s in stream.segments if s.counts.tokens)
    damage(stream.folder / f"{named.part}.tokens")  # type: ignore[operator]
    with pytest.raises(RuntimeError, match=r"prepared data have lost .*\.tokens; call prepare_da"):
        stream.read(0, len(tokens))
