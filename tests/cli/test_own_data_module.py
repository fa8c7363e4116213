"""A user's own data module, which is no text of ours, from the command line."""

import pytest

MINE = """
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        ids = torch.randint(256, (33,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids[:-1], "labels": ids[1:]}


class Unsized(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Rows(), batch_size=4)

    def val_dataloader(self):
        return DataLoader(Rows(), batch_size=4)


class Sized(Unsized):
    vocab_size = 256
    seq_len = 32
"""
RUN = [
    "--model=CausalLM",
    "--model.network=DecoderConfig",
    "--model.network.d_model=32",
    "--model.network.num_layers=1",
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.default_root_dir=run",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_it_trains_and_goes_on(folder, command_line):
    arguments = ["fit", "--data=mine.Sized", *RUN, "--best_checkpoint.monitor=val/loss"]
    said = command_line(*arguments, cwd=folder).stdout
    assert "Held-out loss: 5." in said
    assert "pile generate" not in said  # there is no tokenizer
    assert (folder / "run/checkpoints/best.ckpt").exists()
    again = command_line(*arguments, "--trainer.max_steps=6", "--ckpt_path=last", cwd=folder)
    assert "2 steps" in again.stdout
    failed = command_line("pile", "generate", "run", "--prompt=hi", cwd=folder, fails=True).stderr
    assert failed.startswith("error: run/tokenizer.json is not there")
    assert failed.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=mine.Unsized"], "the attribute vocab_size of the data module"),
        (["--data=mine.Unsized", "--model.vocab_size=256"], "the attribute seq_len of the data"),
        (["--data=mine.Sized"], "set best_checkpoint.monitor: val/loss"),
    ],
)
def test_what_it_lacks_is_one_line(folder, command_line, arguments, message):
    failed = command_line("fit", *RUN, *arguments, cwd=folder, fails=True).stderr
    assert message in failed.splitlines()[-1]
    assert failed.splitlines()[-1].startswith("error: ")


def test_a_command_for_text_says_so(folder, command_line):
    failed = command_line("pile", "inspect", "--data=mine.Sized", cwd=folder, fails=True).stderr
    assert failed == "error: data: mine.Sized is not derived from TextModule\n"
