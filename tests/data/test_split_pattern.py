"""The pattern for another engine: the same characters in every class, or none at all."""

import re

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from pile_lightning.data.split_pattern import portable_pattern


def members(chars: str) -> set[int]:
    """Characters of Unicode that `tokenizers` counts in a class."""
    every = "".join(chr(i) for i in range(0x30000) if not 0xD800 <= i < 0xE000)
    outside = Split(Regex(f"{chars}+"), "removed").pre_tokenize_str(every)
    return set(map(ord, every)) - {ord(c) for piece, _ in outside for c in piece}


@pytest.mark.parametrize("chars", [r"\p{L}", r"\S", r"[^\s\p{L}\p{N}]", "[A-Fx]", r"\P{N}"])
def test_a_class_becomes_the_characters_that_the_library_finds_in_it(chars: str) -> None:
    made = portable_pattern(rf"{chars}|\s|\S")
    assert made is not None
    first = made[: made.index("]") + 1]
    ranges = re.findall(r"\\x\{(\w+)\}-\\x\{(\w+)\}", first)
    found = {i for a, b in ranges for i in range(int(a, 16), int(b, 16) + 1) if i < 0x30000}
    assert found == members(chars)


def test_case_is_told_apart_outside_a_group_only() -> None:
    made = portable_pattern(r"(?i:'s)|'s|\s|\S")
    assert made is not None
    s = r"\x{53}-\x{53}\x{73}-\x{73}\x{17f}-\x{17f}"  # the long s, too
    assert made.startswith(rf"(?:'[{s}])|'s|")


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+|\W",
        r".+|\s",
        r"^a|\s|\S",
        r"a$|\s|\S",
        r"(?i)a|\s|\S",
        r"(?<!a)b|\s|\S",
        r"\p{N}{1,3}+|\s|\S",
        r"\bx|\s|\S",
        r"[[:alpha:]]|\s|\S",
        r"[\p{L}&&[^a]]|\s|\S",
        r"(a)\1|\s|\S",
        r"(?i:st)|\s|\S",
        r"\p{L}+|\p{N}+|\s+",
        "a",
    ],
)
def test_what_another_engine_may_read_otherwise_is_refused(pattern: str) -> None:
    assert portable_pattern(pattern) is None
