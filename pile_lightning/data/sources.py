"""All kinds of sources, and how a user names them."""

from collections.abc import Sequence

from pile_lightning.data.files import FileSource, StandardLibrary
from pile_lightning.data.hub import DatasetFolder, HubDataset, is_saved_dataset
from pile_lightning.data.source import Shard, ShardedSource, Source

__all__ = [
    "DatasetFolder",
    "FileSource",
    "HubDataset",
    "Shard",
    "ShardedSource",
    "Source",
    "StandardLibrary",
    "as_sources",
]


def as_sources(sources: str | Source | Sequence[str | Source]) -> tuple[Source, ...]:
    """Return what a user gave as sources of different names.

    Raises:
        ValueError: For no source, or two of one name.
    """
    given = [sources] if isinstance(sources, str | Source) else list(sources or [])
    if not given:
        raise ValueError(
            f"sources={sources!r} names no text; give a file, a folder, a glob, or 'stdlib'"
        )
    made = tuple(_as_source(source) for source in given)
    names = [source.name for source in made]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} sources are named {name!r}, and metrics are kept by name; "
                f"give them names of their own: FileSource(path, name=...)"
            )
    return made


def _as_source(source: str | Source) -> Source:
    if isinstance(source, Source):
        return source
    if source == "stdlib":
        return StandardLibrary()
    return DatasetFolder(source) if is_saved_dataset(source) else FileSource(source)
