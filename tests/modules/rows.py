"""Rows of random tokens that predict very different numbers of them, and data made of them."""

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from pile_lightning.batch import IGNORE_INDEX

VOCAB, SEQ = 31, 12


def make_rows(count, seed=0, *, ignored=True):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (count, SEQ + 1), generator=generator)
    labels = ids[:, 1:].clone()
    if ignored:  # rows that predict very different numbers of tokens
        for row in range(count):
            labels[row, : (row * 5) % SEQ] = IGNORE_INDEX
    return {
        "input_ids": ids[:, :-1],
        "labels": labels,
        "position_ids": torch.arange(SEQ).expand(count, -1).contiguous(),
        "document_ids": torch.zeros(count, SEQ, dtype=torch.long),
        "domain": torch.arange(count) % 2,
        "num_bytes": 3 * (labels != IGNORE_INDEX).sum(dim=1),
    }


def take(batch, rows):
    return {name: value[rows] for name, value in batch.items()}


class Batches(IterableDataset):
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class ToyData(LightningDataModule):
    domains = ("even", "odd")

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def train_dataloader(self):
        return DataLoader(Batches(self.batches), batch_size=None)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader
