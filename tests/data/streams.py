"""Streams of made-up documents, and what rows of whole documents have to hold."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import numpy as np
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.data.token_stream import DOCUMENT_DTYPE, Segment, StreamCounts, TokenStream

START = 0
BYTES = np.array([0, *range(1, 40)])

Documents = list[list[int]]
Pieces = Counter[tuple[tuple[int, ...], tuple[int, ...]]]
FOLDER = tempfile.TemporaryDirectory()
NUMBERS = count()


def stream(texts: Documents, *, bytes_more: int = 0) -> TokenStream:
    """Write documents as the parts of a stream, three to a part."""
    folder, segments = Path(FOLDER.name), []
    for first in range(0, len(texts), 3):
        part = texts[first : first + 3]
        name = f"part{next(NUMBERS)}"
        tokens = np.array([token for text in part for token in [START, *text]], dtype="<u2")
        ends = np.cumsum([len(text) + 1 for text in part])
        sizes = [BYTES[text].sum() + bytes_more for text in part]
        (folder / f"{name}.tokens").write_bytes(tokens.tobytes())
        (folder / f"{name}.documents").write_bytes(
            np.concatenate([ends, sizes]).astype(DOCUMENT_DTYPE).tobytes()
        )
        counts = StreamCounts(documents=len(part), tokens=len(tokens), num_bytes=sum(sizes))
        segments.append(Segment(name, len(part), 0, 0, counts))
    return TokenStream(folder=folder, dtype="<u2", segments=segments)


def all_tokens(stream: TokenStream) -> np.ndarray:
    return stream.read(0, stream.counts.tokens)


def expected_pieces(texts: Documents, seq_len: int, *, start: int = 256) -> Pieces:
    """Return the pieces, as tokens and labels, that documents are in where rows keep them whole."""
    pieces: Pieces = Counter()
    for text in texts:
        tokens = [start, *text, start]
        for first in range(0, len(tokens) - 1, seq_len):
            end = min(first + seq_len, len(tokens) - 1)
            pieces[tuple(tokens[first:end]), tuple(tokens[first + 1 : end + 1])] += 1
    return pieces


def pieces_of(batch: Mapping[str, Tensor]) -> Pieces:
    """Return the pieces of a batch, told apart by document ids; padding is one of its row."""
    pieces: Pieces = Counter()
    columns = (batch[key].tolist() for key in ("input_ids", "labels", "document_ids"))
    for row, (ids, labels, numbers) in enumerate(zip(*columns, strict=True)):
        assert numbers == sorted(numbers)
        for number in set(numbers):
            here = [t for t, one in enumerate(numbers) if one == number]
            assert batch["position_ids"][row, here].tolist() == list(range(len(here)))
            its_labels = tuple(labels[t] for t in here)
            if set(its_labels) == {IGNORE_INDEX}:
                assert here[-1] == len(ids) - 1
                continue
            assert IGNORE_INDEX not in its_labels
            pieces[tuple(ids[t] for t in here), its_labels] += 1
    return pieces
