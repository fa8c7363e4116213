"""A row as text: nothing is shown that is not in it, and every border is where it is."""

import numpy as np
import pytest

from pile_lightning.cli.show_rows import show_row
from pile_lightning.data import ByteTokenizer
from pile_lightning.data.assemble import assemble

CODEC = ByteTokenizer()
START = CODEC.start_id


def lines_of(tokens, *, length=None):
    """Show a row of these tokens, the last of which is the one behind it."""
    length = len(tokens) - 1 if length is None else length
    batch = assemble(
        np.array([tokens]),
        domain=np.zeros(1, np.int64),
        length=np.array([length]),
        context=np.zeros(1, np.int64),
        start_id=START,
        num_bytes=np.zeros(1, np.int64),
    )
    return show_row(batch, 0, tokenizer=CODEC)


def ids(*texts):
    """Documents after one another; "" stands for a border."""
    return [i for text in texts for i in ([START] if text == "" else text.encode())]


def test_borders_are_where_documents_begin_and_end():
    assert lines_of(ids("tail", "", "whole\ntext", "", "hea", "d")) == [
        "  [goes on from the row before]",
        "  | tail",
        "  [a document begins]",
        "  | whole",
        "  | text",
        "  [a document begins]",
        "  | hea",
        "  [goes on in the next row]",
    ]


def test_a_row_that_a_document_opens_and_another_ends_goes_nowhere():
    assert lines_of(ids("", "one", "")) == ["  [a document begins]", "  | one"]


def test_padding_is_counted_and_not_shown():
    shown = lines_of([*ids("", "one", ""), *ids("garbage")], length=4)
    assert shown == ["  [a document begins]", "  | one", "  [7 positions of padding]"]


def test_long_documents_are_cut_and_many_counted():
    shown = lines_of(ids("", "\n".join(f"line {i}" for i in range(50)), ""))
    assert shown[1:5] == [f"  | line {i}" for i in range(4)]
    assert shown[5:] == ["  | ... 45 lines ...", "  | line 49"]
    shown = lines_of(ids(*["", "x"] * 9, ""))
    assert shown[-1] == "  ... and 4 more documents"
    assert shown.count("  [a document begins]") == 5


@pytest.mark.parametrize("text", ["x" * 300, "\u4e2d" * 150, "\x1b[31m" * 60, "a\tb" * 60])
def test_lines_fit_and_leave_the_screen_alone(text):
    for line in lines_of(ids("", text, "")):
        columns = len(line) + sum(c == "\u4e2d" for c in line)
        assert columns <= 100
        assert line.isprintable()


def test_everything_short_is_shown_whole():
    text = "x" * 96 + "y" * 96 + "z"
    assert [line[4:] for line in lines_of(ids("", text, ""))[1:]] == ["x" * 96, "y" * 96, "z"]
