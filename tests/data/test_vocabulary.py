"""What an id means is what two tokenizers are compared by."""

import pytest

from pile_lightning import TextData
from pile_lightning.data import ByteTokenizer, FastTokenizer
from pile_lightning.data.byte_level import train_bpe
from pile_lightning.data.vocabulary import vocabulary_difference


def bpe(text, size=260):
    return FastTokenizer(train_bpe([text], vocab_size=size, start_token="<s>", max_bytes=len(text)))


def test_how_text_is_split_does_not_matter():
    one, other = bpe("to be or not to be"), bpe("to be or not to be")
    assert vocabulary_difference(one, other) is None
    other.backend.normalizer = None
    other.backend.decoder = None
    assert one.fingerprint() != other.fingerprint()
    assert vocabulary_difference(one, other) is None


def test_the_first_id_that_differs_is_said():
    one, other = bpe("to be or not to be"), bpe("a rose is a rose is a rose")
    said = vocabulary_difference(one, other)
    assert said.startswith("id 257 is b")
    assert vocabulary_difference(other, one).split(" ")[1] == "257"
    larger = bpe("to be or not to be", 261)
    assert " is nothing in the data and b" in vocabulary_difference(one, larger)
    assert vocabulary_difference(ByteTokenizer(), one) is not None


def test_a_tokenizer_that_spells_by_context_is_compared_by_its_tokens():
    from tokenizers import Tokenizer, models

    def words(**vocabulary):
        return FastTokenizer(Tokenizer(models.WordLevel(vocabulary | {"<unk>": 9}, "<unk>")))

    assert vocabulary_difference(words(a=0, b=1), words(b=1, a=0)) is None
    assert vocabulary_difference(words(a=0, b=1), words(a=1, b=0)) == (
        "id 0 is 'a' in the data and 'b' to it"
    )


def test_data_know_a_saved_tokenizer(corpus, tmp_path):
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    data = TextData(str(corpus), tokenizer="byte")
    assert data.vocabulary_difference(str(tmp_path)) is None
    bpe("to be or not to be").save(tmp_path / "tokenizer.json")
    assert "in the data and" in data.vocabulary_difference(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no such tokenizer\.json"):
        data.vocabulary_difference(str(tmp_path / "no.json"))
