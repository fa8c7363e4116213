"""A path given as a source is a path, whatever the file that it names holds."""

import pytest

from pile_lightning.cli.data_config import make_data
from pile_lightning.cli.prepare import prepare_parser
from tests.conftest import REPOSITORY

QUICKSTART = f"--config={REPOSITORY / 'configs' / 'quickstart.yaml'}"
EVIL = "class_path: pile_lightning.data.StandardLibrary\n"
YAML = "data: {{class_path: pile_lightning.{}, init_args: {{sources: {}}}}}"


def sources_of(*arguments):
    parser = prepare_parser()
    return make_data(parser, parser.parse_args(list(arguments))).sources


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.txt").write_text(EVIL)
    (tmp_path / "poem.txt").write_text("first line\nsecond line\n")
    (tmp_path / "long.txt").write_text("a word " * 10_000)
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    (tmp_path / "[x] y.txt").write_text("odd")


@pytest.mark.parametrize("path", ["evil.txt", "poem.txt", "long.txt", "a.jsonl", "[x] y.txt"])
@pytest.mark.parametrize("kind", ["TextData", "StreamedText"])
def test_on_the_command_line(path, kind):
    own = [f"--data=pile_lightning.{kind}", f"--data.sources={path}"]
    assert [source.path for source in sources_of(QUICKSTART, *own)] == [path]


@pytest.mark.parametrize("kind", ["TextData", "StreamedText"])
def test_in_a_config(tmp_path, kind):
    for value in ("evil.txt", "[evil.txt]", "[evil.txt, poem.txt]"):
        (tmp_path / "a.yaml").write_text(YAML.format(kind, value))
        paths = [source.path for source in sources_of("--config=a.yaml")]
        assert paths == value.strip("[]").split(", ")


def test_other_settings_may_still_be_files(tmp_path):
    (tmp_path / "mix.yaml").write_text("temperature: 2.0")
    parser = prepare_parser()
    own = ["--data.sources=poem.txt", "--data.mixture=mix.yaml"]
    data = make_data(parser, parser.parse_args([QUICKSTART, *own]))
    assert data.mixture_config.temperature == 2


def test_training_takes_one_file(command_line, tmp_path):
    (tmp_path / "one.txt").write_text("".join(f"line {i} of a text\n" for i in range(500)))
    own = ["--data.sources=one.txt", "--data.tokenizer=byte", "--trainer.max_steps=2"]
    run = ["--trainer.default_root_dir=run", "--data.seq_len=32", "--data.val_stride=32"]
    said = command_line("fit", *own, *run, cwd=tmp_path).stdout
    assert "one document alone: the last 5" in said
