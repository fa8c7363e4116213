"""``pile prepare`` builds the store that training reads, from the config that training takes."""

import shlex
import sys

import pytest

from pile_lightning.cli import main
from pile_lightning.data import TextData
from pile_lightning.data.store import TokenStore
from tests.conftest import REPOSITORY

QUICKSTART = str(REPOSITORY / "configs" / "quickstart.yaml")

SQUARES = """
from pile_lightning import TextData
from pile_lightning.data import Document

class Squares(TextData):
    def documents(self):
        for n in range(300):
            yield Document(f"{n} squared is {n * n}.", f"number {n}")
"""

CONFIG = """
data:
  class_path: pile_lightning.TextData
  init_args:
    sources: {corpus}
    tokenizer: byte
    {key}: 0.3
model: {{class_path: not.installed.Model, init_args: {{no: such}}}}
trainer: {{accelerator: tpu, max_steps: 5, callbacks: [{{class_path: not.installed}}]}}
my_section: [1, 2]
"""


@pytest.fixture
def prepare(tmp_path, command_line):
    """Run the command."""

    def run(*arguments, fails=False):
        return command_line("pile", "prepare", *arguments, cwd=tmp_path, fails=fails)

    return run


def last_command(printed):
    return shlex.split(printed.strip().splitlines()[-1])


def test_training_goes_on_with_what_it_built(prepare, tmp_path, corpus, cache, command_line):
    own = [f"--data.sources={corpus}", "--data.tokenizer=byte", "--data.val_fraction=0.31"]
    printed = prepare("--config", QUICKSTART, *own).stdout
    data = TextData(str(corpus), tokenizer="byte", val_fraction=0.31, cache_dir=str(cache))
    assert TokenStore.exists(data.store_path)
    assert printed.startswith("prepared ")
    assert str(data.store_path) in printed

    again = prepare("--config", QUICKSTART, *own).stdout
    counts = data.store.counts("train") + data.store.counts("val")
    assert again.startswith(f"prepared before: {counts.documents:,} documents")

    python, script, *command = last_command(again)
    assert (python, script) == ("python", "train.py")
    small = ["--model.compile=false", "--model.network.d_model=32", "--trainer.max_steps=1"]
    done = command_line(*command, *small, "--trainer.limit_val_batches=1", cwd=tmp_path)
    assert "for 1 steps" in done.stdout
    assert "prepared " not in done.stdout


def test_the_rest_of_a_config_is_neither_read_nor_needed(prepare, tmp_path, corpus):
    (tmp_path / "x.yaml").write_text(CONFIG.format(corpus=corpus, key="val_fraction"))
    assert "prepared " in prepare("--config=x.yaml").stdout
    assert not (tmp_path / "runs").exists()


def test_a_module_of_ones_own_and_another_config_on_top(prepare, tmp_path, cache):
    (tmp_path / "mine.py").write_text(SQUARES)
    (tmp_path / "more.yaml").write_text("data: {init_args: {val_fraction: 0.5}}")
    own = ["--config", QUICKSTART, "--data", "mine.Squares", "--data.tokenizer=byte"]
    assert "prepared 300 documents" in prepare(*own, "--config=more.yaml").stdout


def test_of_a_stream_only_what_is_held_out_is_prepared(prepare, corpus):
    own = [f"--data.sources={corpus}", "--data.tokenizer=byte", "--data.val_fraction=0.32"]
    printed = prepare("--config", QUICKSTART, "--data=StreamedText", *own).stdout
    assert printed.startswith("A stream is tokenized as it is trained on; only what is held out")


MISTAKES = {
    "a misspelled key": (["--config=bad.yaml"], "'val_fractoin' is not a setting here; did you"),
    "a misspelled argument": (["--data.seqlen=3"], "'seqlen' is not a setting here; did you mean"),
    "no file": (["--config=none.yaml"], "there is no config none.yaml"),
    "no YAML": (["--config=broken.yaml"], "broken.yaml, line 1: expected"),
    "no settings": (["--config=text.yaml"], "text.yaml holds no settings"),
    "another's argument": (["--model.compile=false"], "'model.compile' does not concern the data"),
    "no class": (["--data=StreamText"], "data: there is no class 'StreamText'; did you mean"),
    "no text": (["--data=other.Images"], "data: other.Images is not derived from TextModule"),
    "neither kind": (["--data=other.Third"], "Third is neither a TextData nor a StreamedText"),
    "no folder": (["--data.sources=nowhere"], "'nowhere' does not exist"),
    "no command's argument": (["--rows=3"], "'rows' is not a setting here"),
}

OTHER = """
from lightning import LightningDataModule
from pile_lightning.data import TextModule

class Images(LightningDataModule):
    pass

class Third(TextModule):
    def fingerprint(self):
        return {}
"""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message(mistake, prepare, tmp_path, corpus):
    (tmp_path / "other.py").write_text(OTHER)
    (tmp_path / "bad.yaml").write_text(CONFIG.format(corpus=corpus, key="val_fractoin"))
    (tmp_path / "broken.yaml").write_text("data: [")
    (tmp_path / "text.yaml").write_text("data")
    arguments, message = MISTAKES[mistake]
    done = prepare(*arguments, fails=True)
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_help_reads_well(command_line, tmp_path):
    told = command_line("pile", "--help", cwd=tmp_path).stdout
    for words in ("prepare  ", "inspect  ", "generate  ", "without training"):
        assert words in told
    told = command_line("pile", "prepare", "--help", cwd=tmp_path).stdout
    for words in ("--config", "--data", "--trainer.max_steps", "What is there already is kept"):
        assert words in " ".join(told.split())
    assert "--rows ROWS" in command_line("pile", "inspect", "--help", cwd=tmp_path).stdout


def test_the_installed_command_finds_modules_where_it_is_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "squares_of_mine.py").write_text(SQUARES)
    monkeypatch.chdir(tmp_path)
    # an installed script has its own folder on the path, and not the one where it is run
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    arguments = ["prepare", "--data=squares_of_mine.Squares", "--data.tokenizer=byte"]
    monkeypatch.setattr(sys, "argv", ["pile", *arguments, f"--data.cache_dir={tmp_path}"])
    main()
    assert "prepared 300 documents" in capsys.readouterr().out
