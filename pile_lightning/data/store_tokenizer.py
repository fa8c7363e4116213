"""Which tokenizer a store gets: one that is given, that of the store it extends, or a new one.

Beside each store lies what it was made of, a hash for each shard. With ``bpe:N`` a store whose
shards are all still there unchanged, where others were only added, hands its tokenizer on: so the
parts that exist stay good.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from pile_lightning.data.byte_level import train_bpe
from pile_lightning.data.part_job import Text
from pile_lightning.data.part_plan import shard_key
from pile_lightning.data.progress import make_bar
from pile_lightning.data.source import Shard, Source
from pile_lightning.data.tokenizers import START_TOKEN, FastTokenizer, Tokenizer
from pile_lightning.data.verified_files import publish, read_json, write_json

__all__ = ["TRAINING_BYTES", "MadeOf", "own_tokenizer", "save_tokenizer"]

TRAINING_BYTES = 100 << 20
"""How much text a tokenizer is trained on, at most."""

_MADE_OF, _TOKENIZER = "made_of.json", "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class MadeOf:
    """What a store with a tokenizer of its own was made of."""

    tokenizer: str
    """Which tokenizer was asked for."""
    bound: str
    """Hashes below were held out, and not trained on."""
    trained_on: int | None
    """About how many bytes there were when the tokenizer was trained, if known."""
    sources: tuple[tuple[str, tuple[str, ...]], ...]
    """Each source's name and its shards' hashes."""
    fingerprint: str = ""
    """The tokenizer's, once there is one."""

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        shards: Sequence[Sequence[Shard]],
        *,
        spec: str,
        bound: float,
    ) -> "MadeOf":
        """Describe what a store is to be made of."""
        sizes = [shard.num_bytes for its_shards in shards for shard in its_shards]
        known = [size for size in sizes if size is not None]
        return cls(
            tokenizer=spec,
            bound=repr(bound),
            trained_on=sum(known) if len(known) == len(sizes) else None,
            sources=tuple(
                (source.name, tuple(shard_key(source, shard) for shard in its_shards))
                for source, its_shards in zip(sources, shards, strict=True)
            ),
        )

    @classmethod
    def load(cls, store: Path) -> "MadeOf | None":
        """Read what a store was made of; None where that is not told."""
        try:
            plain = read_json(store / _MADE_OF)
            sources = tuple((name, tuple(keys)) for name, keys in plain.pop("sources"))
            return cls(sources=sources, **plain)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def is_extended_by(self, other: "MadeOf") -> bool:
        """Return whether the other is this with shards added, and its tokenizer's text enough."""
        if (self.tokenizer, self.bound) != (other.tokenizer, other.bound):
            return False
        if [name for name, _ in self.sources] != [name for name, _ in other.sources]:
            return False
        seen, now = self.trained_on, other.trained_on
        # a tokenizer that saw a small sample only should not stay for good
        if seen is not None and now is not None and seen < min(TRAINING_BYTES, now // 2):
            return False
        pairs = zip(self.sources, other.sources, strict=True)
        return all(set(ours) <= set(theirs) for (_, ours), (_, theirs) in pairs)

    @property
    def num_shards(self) -> int:
        """Number of shards of all sources."""
        return sum(len(keys) for _, keys in self.sources)


def own_tokenizer(
    made_of: MadeOf, texts: Iterable[Text], *, vocab_size: int, store: Path, quiet: bool
) -> tuple[Tokenizer, MadeOf]:
    """Return the tokenizer of a store that is extended, else one trained on some texts.

    Args:
        made_of: What the store is to be made of.
        texts: The documents to learn from, read only where a tokenizer is trained.
        vocab_size: Number of ids.
        store: Folder of the store; others lie beside it.
        quiet: Whether to say nothing.
    """
    extended = _extended(made_of, store.parent)
    if extended is not None:
        earlier, trained_on, tokenizer = extended
        if not quiet and earlier != store:
            print(
                f"files were only added, so the tokenizer of {earlier} is kept (remove that folder "
                f"and this one, {store}, to train a new one)",
                flush=True,
            )
        return tokenizer, replace(
            made_of, trained_on=trained_on, fingerprint=tokenizer.fingerprint()
        )
    total = None if made_of.trained_on is None else min(TRAINING_BYTES, made_of.trained_on)
    with make_bar("training the tokenizer", total, quiet) as bar:
        backend = train_bpe(
            _watched(texts, bar),
            vocab_size=vocab_size,
            start_token=START_TOKEN,
            max_bytes=TRAINING_BYTES,
        )
    tokenizer = FastTokenizer(backend)
    return tokenizer, replace(made_of, fingerprint=tokenizer.fingerprint())


def _extended(made_of: MadeOf, cache: Path) -> tuple[Path, int | None, Tokenizer] | None:
    """Return the largest store that is extended, its tokenizer and what that was trained on."""
    found = []
    for path in sorted(cache.glob(f"*/{_MADE_OF}")):
        earlier = MadeOf.load(path.parent)
        if earlier is not None and earlier.is_extended_by(made_of):
            found.append((path.parent, earlier))
    for store, earlier in sorted(found, key=lambda pair: -pair[1].num_shards):
        try:
            tokenizer = Tokenizer.load(store / _TOKENIZER)
        except (OSError, ValueError):
            continue  # damaged
        if tokenizer.fingerprint() == earlier.fingerprint:
            return store, earlier.trained_on, tokenizer
    return None


def _watched(texts: Iterable[Text], bar: "tqdm[NoReturn]") -> Iterator[str]:
    for text in texts:
        bar.update(text.num_bytes)
        yield text.text


def save_tokenizer(
    tokenizer: Tokenizer, made_of: MadeOf | None, *, unfinished: Path, store: Path
) -> None:
    """Put a tokenizer into the folder of a store that is still to be made."""
    files = [unfinished / _TOKENIZER]
    tokenizer.save(files[0])
    if made_of is not None:
        files.append(unfinished / _MADE_OF)
        write_json(files[1], asdict(made_of))
    store.mkdir(exist_ok=True)
    publish(files, store)
