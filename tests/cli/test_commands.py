import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pile_lightning.cli.commands import COMMANDS
from pile_lightning.shipped_configs import FOLDER, config_names, find_config

REPOSITORY = Path(__file__).parents[2]


def imported_by(*words):
    """Run a command in a fresh process; return what it printed and the modules it imported."""
    code = (
        "import sys; from pile_lightning.cli import main\n"
        f"sys.argv = ['pile', *{words!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('IMPORTED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed, _, modules = done.stdout.partition("IMPORTED")
    return printed, set(modules.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["config"], ["config", "minute"]])
def test_what_needs_no_network_imports_no_torch(words):
    printed, modules = imported_by(*words)
    assert printed
    assert not {"torch", "lightning", "transformers"} & modules


@pytest.fixture
def pile(command_line, tmp_path):
    """Run ``pile`` in a folder of its own; return what it printed."""
    return lambda *words, fails=False: command_line("pile", *words, cwd=tmp_path, fails=fails)


def test_every_command_is_listed_and_has_help(pile):
    listed = pile("--help").stdout
    for name in [*COMMANDS, "fit", "validate", "test", "predict"]:
        assert f"  {name} " in listed
    for name in COMMANDS:
        assert f"usage: pile {name}" in pile(name, "--help").stdout


def test_a_command_that_there_is_not_names_the_nearest(pile):
    assert "did you mean generate?" in pile("genrate", "x", fails=True).stderr


def test_a_shipped_config_is_found_by_name_and_a_file_of_ones_own_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.yaml", "configs/quickstart.yaml"):
        assert find_config(name) == FOLDER / "quickstart.yaml"
    Path("quickstart").write_text("seed_everything: 1\n")
    assert find_config("quickstart") == Path("quickstart")
    with pytest.raises(FileNotFoundError, match="no config quickstrat.*such as quickstart"):
        find_config("quickstrat")
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    with pytest.raises(ValueError, match="is a folder.*did you mean run/config.yaml"):
        find_config("run")


def test_config_lists_prints_and_copies(pile, tmp_path):
    assert list(json.loads(pile("config", "--json").stdout)) == config_names()
    assert (
        pile("config", "environment/sweep").stdout
        == (FOLDER / "environment/sweep.yaml").read_text()
    )
    pile("config", "minute", "--output", "my.yaml")
    assert (tmp_path / "my.yaml").read_text() == (FOLDER / "minute.yaml").read_text()
    assert "my.yaml exists" in pile("config", "minute", "--output", "my.yaml", fails=True).stderr


def test_fit_takes_the_name_of_a_config(pile):
    printed = pile("fit", "--config", "minute", "--print_config").stdout
    assert "default_root_dir: runs/minute" in printed


def test_the_config_of_a_run_means_the_run_where_it_lies(pile, tmp_path):
    (tmp_path / "copy/checkpoints").mkdir(parents=True)
    (tmp_path / "copy/config.yaml").write_text("trainer: {default_root_dir: runs/gone}\n")
    here = ("fit", "--config", "copy/config.yaml")
    assert "default_root_dir: copy\n" in pile(*here, "--print_config").stdout
    other = pile(*here, "--trainer.default_root_dir", "runs/other", "--print_config").stdout
    assert "default_root_dir: runs/other\n" in other
    (tmp_path / "copy/mine.yaml").write_text("trainer: {default_root_dir: runs/gone}\n")
    own = pile("fit", "--config", "copy/mine.yaml", "--print_config").stdout
    assert "default_root_dir: runs/gone\n" in own


@pytest.mark.parametrize("text", ["# A title\n\nSome *text*.\n", "", "- 1\n- 2\n", "a: [1,\n"])
def test_a_file_that_is_no_config_is_one_line(pile, tmp_path, text):
    (tmp_path / "notes.md").write_text(text)
    error = pile("fit", "--config", "notes.md", fails=True).stderr.strip()
    assert error.startswith("error: notes.md")
    assert error.count("\n") == 0


def test_configs_are_shipped_with_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "configs/**/*" in project["tool"]["setuptools"]["package-data"]["pile_lightning"]
    assert (REPOSITORY / "pile_lightning/configs").resolve() == REPOSITORY / "configs"
