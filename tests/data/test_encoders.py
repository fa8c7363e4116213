"""A faster encoder is compared with the right one: replaced if it differs, and an error later."""

import pickle
import warnings

import numpy as np
import pytest

from pile_lightning.data import encoders
from pile_lightning.data.encoders import PROBES, CheckedEncoder


class Lengths:
    """Encodes a text as its length, but some texts wrongly."""

    def __init__(self, name, *, wrong=()):
        self.name, self.wrong, self.encoded = name, wrong, []

    def encode(self, texts):
        self.encoded += texts
        return [np.array([-1 if text in self.wrong else len(text)]) for text in texts]


def checked(*, wrong=()):
    return CheckedEncoder(Lengths("quick", wrong=wrong), Lengths("slow"), probes=("", "probe"))


def values(found):
    return [int(ids[0]) for ids in found]


def test_the_fast_one_is_used_where_both_agree():
    encoder = checked()
    assert encoder.name == "quick"
    assert values(encoder.encode(["a", "bc", ""])) == [1, 2, 0]
    assert encoder.reference.encoded == ["", "probe", "a", "bc", "", "a"]  # and the first of many


def test_a_difference_in_the_probes_is_said_once_and_the_right_one_used():
    with pytest.warns(UserWarning, match="quick encodes 'probe' unlike slow, so that slow is used"):
        encoder = checked(wrong=["probe"])
    assert encoder.name == "slow"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert values(encoder.encode(["probe"])) == [5]


def test_a_difference_in_the_first_texts_is_found_before_any_is_used(monkeypatch):
    monkeypatch.setattr(encoders, "_CHARACTERS_COMPARED", 100)
    encoder = checked(wrong=["odd"])
    assert values(encoder.encode(["x" * 90])) == [90]
    with pytest.warns(UserWarning, match="quick encodes 'odd' unlike slow"):
        found = encoder.encode(["y" * 9, "odd", "z"])
    assert values(found) == [9, 3, 1]
    assert encoder.name == "slow"


def test_a_difference_later_is_an_error_that_shows_the_text(monkeypatch):
    monkeypatch.setattr(encoders, "_CHARACTERS_COMPARED", 10)
    monkeypatch.setattr(encoders, "_TEXTS_BETWEEN_CHECKS", 5)
    encoder = checked(wrong=["odd", "seldom"])
    encoder.encode(["x" * 10, "b", "seldom", "d"])  # numbers 0 to 3: not looked at again
    assert values(encoder.encode(["e"])) == [1]
    with pytest.raises(RuntimeError, match=r"quick and slow .* begins with 'odd'. Uninstall quick"):
        encoder.encode(["odd"])


def test_texts_are_checked_at_the_same_distance_however_they_are_batched(monkeypatch):
    monkeypatch.setattr(encoders, "_CHARACTERS_COMPARED", 0)
    monkeypatch.setattr(encoders, "_TEXTS_BETWEEN_CHECKS", 7)
    texts = [str(i) for i in range(40)]
    for size in (1, 3, 7, 40):
        encoder = checked()
        for i in range(0, 40, size):
            encoder.encode(texts[i : i + size])
        assert encoder.reference.encoded[2:] == texts[::7]


def test_nothing_is_compared_again_after_it_was_sent_to_another_process():
    encoder = checked()
    encoder.encode(["x" * (1 << 16)])
    encoder.reference.encoded.clear()
    sent = pickle.loads(pickle.dumps(encoder))
    sent.encode(["a", "b"])
    assert sent.reference.encoded == []


def test_the_probes_hold_what_encoders_differ_in():
    joined = "".join(PROBES)
    assert "" in PROBES
    assert set(joined.encode()) >= {*range(0xC0), *range(0xC2, 0xF5)}
    assert " " * 1000 in joined
    assert "\r\n" * 1000 in joined
    assert "<|endoftext|>" in joined
