"""Whether two tokenizers mean the same by each id."""

from pile_lightning.data.tokenizers import FastTokenizer, Tokenizer

__all__ = ["vocabulary_difference"]


def vocabulary_difference(one: Tokenizer, other: Tokenizer) -> str | None:
    """Say the first id that another tokenizer means otherwise by; None where there is none.

    How they split text may still differ: what an id stands for is what matters to who reads ids.

    Args:
        one: The tokenizer of the text.
        other: That of a model that is to read it.

    Example:
        >>> from pile_lightning.data.tokenizers import ByteTokenizer
        >>> vocabulary_difference(ByteTokenizer(), ByteTokenizer())
    """
    if one.fingerprint() == other.fingerprint():
        return None
    by_bytes = one.token_bytes is not None and other.token_bytes is not None
    its, others = (_meanings(each, by_bytes=by_bytes) for each in (one, other))
    for i in range(max(one.vocab_size, other.vocab_size)):
        if its.get(i) != others.get(i):
            return f"id {i} is {_said(its.get(i))} in the data and {_said(others.get(i))} to it"
    return None


def _meanings(tokenizer: Tokenizer, *, by_bytes: bool) -> dict[int, str | bytes]:
    """Return what ids stand for: bytes, or what the tokenizer itself spells them by."""
    if isinstance(tokenizer, FastTokenizer) and not by_bytes:
        vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
        return {i: token for token, i in vocabulary.items()}
    return dict(enumerate(tokenizer.token_bytes or []))


def _said(meaning: str | bytes | None) -> str:
    return "nothing" if meaning is None else repr(meaning) if meaning else "a special token"
