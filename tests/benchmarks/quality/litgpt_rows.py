"""Read by litgpt, under the peers' Python: the token file as rows, for ``litgpt pretrain``."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from litgpt.data import DataModule
from litgpt.tokenizer import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset[Tensor]):
    """The stream of tokens, cut into rows that share their outermost token."""

    def __init__(self, path: Path, seq_len: int) -> None:
        self.tokens, self.seq_len = np.fromfile(path, np.uint16).astype(np.int64), seq_len

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.seq_len

    def __getitem__(self, row: int) -> Tensor:
        start = row * self.seq_len
        return torch.from_numpy(self.tokens[start : start + self.seq_len + 1])


@dataclass
class TokenRows(DataModule):
    """Rows of ``train.bin``, shuffled, and of ``val.bin``."""

    folder: str
    """Of the two files."""
    seed: int = 0
    """Of the order."""
    batch_size: int = field(init=False, default=1)
    seq_len: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        super().__init__()

    def connect(
        self,
        tokenizer: Tokenizer | None = None,
        batch_size: int = 1,
        max_seq_length: int | None = None,
    ) -> None:
        """Be told by litgpt what it wants."""
        assert max_seq_length is not None
        self.batch_size, self.seq_len = batch_size, max_seq_length

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Shuffle, for ``train.bin`` is in the order of its documents."""
        return DataLoader(
            Rows(Path(self.folder, "train.bin"), self.seq_len),
            batch_size=self.batch_size,
            shuffle=True,
            drop_last=True,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Give what litgpt looks at once, to see whether a validation would run."""
        rows = Rows(Path(self.folder, "val.bin"), self.seq_len)
        return DataLoader(rows, batch_size=self.batch_size)
