"""Which tokenizer a string means: bytes, a BPE to train, a file, or a Hugging Face name."""

from pathlib import Path

from pile_lightning.data.python_tokenizer import PythonTokenizer
from pile_lightning.data.tokenizer_file import START_TOKENS, start_token
from pile_lightning.data.tokenizers import ByteTokenizer, FastTokenizer, Tokenizer

__all__ = ["bpe_vocab_size", "load_tokenizer"]

_KINDS = (
    "'byte', 'bpe:4096' (trained on the training documents), the path of a tokenizer.json, or the "
    "name of a Hugging Face tokenizer"
)
_SMALLEST_BPE = 257


def bpe_vocab_size(spec: str) -> int | None:
    """Return the size of the BPE that ``spec`` asks to train; None where it asks for another kind.

    Raises:
        ValueError: For a size that is no number or holds less than the bytes and the start token.

    Example:
        >>> bpe_vocab_size("bpe:4096"), bpe_vocab_size("byte")
        (4096, None)
    """
    kind, colon, size = spec.partition(":")
    if kind != "bpe":
        return None
    if not colon or not size.isdecimal() or int(size) < _SMALLEST_BPE:
        raise ValueError(
            f"tokenizer={spec!r}: a BPE is written 'bpe:N' with a vocabulary of N >= "
            f"{_SMALLEST_BPE} (256 bytes and the start of a document), for example 'bpe:4096'"
        )
    return int(size)


def load_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer that ``spec`` names and that needs no training.

    Raises:
        FileNotFoundError: For a path that does not exist.
        ValueError: For a name that neither this machine nor Hugging Face knows.
    """
    if spec == "byte":
        return ByteTokenizer()
    path = Path(spec).expanduser()
    if path.is_file():
        return Tokenizer.load(path)
    if (path / "tokenizer.json").is_file():
        return Tokenizer.load(path / "tokenizer.json")
    if path.is_dir() and any(path.iterdir()):  # vocab.json and merges.txt, for example
        return _from_hugging_face(str(path))
    if path.suffix == ".json" or path.is_dir():
        raise FileNotFoundError(
            f"tokenizer={spec!r}: there is no such tokenizer.json; a tokenizer is {_KINDS}"
        )
    return _from_hugging_face(spec)


def _from_hugging_face(name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer={name!r} is no file and could not be loaded "
            f"{'as a folder of one' if Path(name).is_dir() else 'from Hugging Face'}; "
            f"a tokenizer is {_KINDS}"
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return PythonTokenizer(tokenizer)
    tokens = {name: getattr(tokenizer, name) for name in START_TOKENS}
    return FastTokenizer(backend, start_token=start_token(tokens))
