"""Text as batches: sources, tokenizers, the prepared store, order, packing, data modules."""

from pile_lightning.data.mixing import MixtureConfig, StageConfig
from pile_lightning.data.module import TextModule
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.short_rows import ShortRowsConfig
from pile_lightning.data.sources import (
    DatasetFolder,
    FileSource,
    HubDataset,
    Shard,
    ShardedSource,
    Source,
    StandardLibrary,
)
from pile_lightning.data.streamed import StreamedText
from pile_lightning.data.text import TextData
from pile_lightning.data.tokenizers import ByteTokenizer, DecodeStream, FastTokenizer, Tokenizer

__all__ = [
    "ByteTokenizer",
    "DatasetFolder",
    "DecodeStream",
    "Document",
    "FastTokenizer",
    "FileSource",
    "HubDataset",
    "MixtureConfig",
    "Shard",
    "ShortRowsConfig",
    "ShardedSource",
    "Skipped",
    "Source",
    "StageConfig",
    "StandardLibrary",
    "StreamedText",
    "TextData",
    "TextModule",
    "Tokenizer",
]
