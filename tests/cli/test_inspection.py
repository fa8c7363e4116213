"""``pile inspect`` says what is so: its figures are those of the data module."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from pile_lightning.cli import inspection
from pile_lightning.data import FileSource, MixtureConfig, StageConfig, TextData
from pile_lightning.data.survey import Survey

MIXED = """
data:
  class_path: pile_lightning.{kind}
  init_args:
    sources:
      - class_path: pile_lightning.data.FileSource
        init_args: {{path: "{corpus}/json_*.py", name: json}}
      - class_path: pile_lightning.data.FileSource
        init_args: {{path: "{corpus}/email_*.py", name: email}}
    mixture:
      weights: {{json: 3, email: 1}}
      stages: [{{from_tokens: 16384, weights: {{email: 1}}}}]
    tokenizer: byte
    seq_len: 64
    val_fraction: 0.3
trainer: {{max_steps: 100, default_root_dir: run}}
"""
STREAM = ["--data.num_lanes=2", "--data.batch_size=2", "--read_mb=100"]


@pytest.fixture
def inspect(tmp_path, command_line, corpus):
    """Run the command on a config of two mixed domains."""

    def run(*arguments, kind="TextData", fails=False):
        (tmp_path / "x.yaml").write_text(MIXED.format(kind=kind, corpus=corpus))
        found = command_line(
            "pile", "inspect", "--config=x.yaml", *arguments, cwd=tmp_path, fails=fails
        )
        return found.stderr if fails else found.stdout

    return run


@pytest.fixture
def data(corpus, cache):
    """The data module that the config describes."""
    made = TextData(
        [FileSource(f"{corpus}/{name}_*.py", name=name) for name in ("json", "email")],
        mixture=MixtureConfig(
            weights={"json": 3, "email": 1},
            stages=(StageConfig(from_tokens=16384, weights={"email": 1}),),
        ),
        tokenizer="byte",
        seq_len=64,
        val_fraction=0.3,
        cache_dir=str(cache),
    )
    made.prepare_data()
    return made


def cells(printed, title, name):
    """The cells of a row of the table under a title."""
    part = printed[printed.index(title) :]
    row = re.search(rf"^  {name} (.*)$", part, re.MULTILINE)[1]
    return re.split(r"\s{2,}", row.strip())


def test_its_figures_are_those_of_the_data(inspect, data, tmp_path):
    printed = inspect()
    tokens = data.store.counts("train").tokens
    delivered = data.delivered(100 * 8)
    for number, name in enumerate(data.domains):
        train, held_out = data.store.stream("train", number), data.store.stream("val", number)
        found = cells(printed, "Text to train on", name)
        assert found[0] == str(train.counts.documents)
        assert float(found[1]) == pytest.approx(train.counts.num_bytes / 1e6, abs=0.0051)
        assert float(found[3][:-2]) == pytest.approx(100 * train.counts.tokens / tokens, abs=0.1)
        assert found[4] == {"json": "75.0 %", "email": "25.0 %"}[name]
        assert found[5] == "1.00"
        assert found[6] == str(held_out.counts.documents)
        lengths = np.diff(train.ends, prepend=0)
        found = cells(printed, "Tokens of a document", name)
        assert found[4] == f"{lengths.max():,}"
        assert found[5] == str((lengths > 64).sum())
        found = cells(printed, "In 100 steps of 8 rows of 64", name)
        assert float(found[2]) == pytest.approx(delivered[name][1], abs=0.005)
        assert found[3] == {"json": "0.00 %", "email": "100 %"}[name]  # in the second stage
    assert f"Lost: {data.training_rows.num_dropped} tokens" in printed
    assert re.search(r"share after\n.* 16\.4 k$", printed, re.MULTILINE)
    assert imread(tmp_path / "run/data.png").std() > 0


def test_a_stream_is_read_without_epochs(inspect, data):
    printed = inspect(*STREAM, kind="StreamedText")
    for number, name in enumerate(data.domains):
        found = cells(printed, "Text to train on", name)
        assert found[0] == str(data.store.stream("train", number).counts.documents)
    assert "MB read from all over the sources" in printed
    assert "epochs" not in printed
    assert "Lost" not in printed


def test_the_rows_are_the_first_that_the_model_sees(inspect, data):
    printed = inspect("--rows=10")
    rows = printed.split("The first rows of training:")[1]
    batch = next(iter(data.train_dataloader()))
    domains = [data.domains[i] for i in batch["domain"]]
    shown = re.findall(r"^row (\d+), (\w+)$", rows, re.MULTILINE)
    assert [int(number) for number, _ in shown] == list(range(10))
    assert [name for _, name in shown[:8]] == domains
    ids = batch["input_ids"][0]
    text = data.tokenizer.decode(ids[ids != 256][:20].tolist()).split("\n")[0]
    assert f"  | {text}" in rows


@pytest.mark.parametrize("kind", ["TextData", "StreamedText"])
def test_its_lines_fit_the_screen(inspect, kind):
    printed = inspect(*(STREAM if kind == "StreamedText" else []), kind=kind)
    for line in printed.split("Tokenizer byte")[1].split("\nNext:")[0].splitlines():
        assert len(line) <= 100, line


def test_next_is_to_train_without_what_is_its_own(inspect, tmp_path):
    printed = inspect("--rows", "0", "--picture=a/b.png", "--data.batch_size=4", "--read_mb", "1")
    *_, last = printed.strip().splitlines()
    assert last.strip() == "python train.py fit --config=x.yaml --data.batch_size=4"
    assert "The first rows" not in printed
    assert imread(tmp_path / "a/b.png").std() > 0
    assert not (tmp_path / "run").exists()


def test_a_mixture_that_ends_before_the_run_says_when(inspect):
    printed = inspect("--data.mixture.max_epochs=0.1")
    found = re.search(r"mixture.max_epochs ends the text after (\d+) steps", printed)
    assert 0 < int(found[1]) < 100
    assert f"In {found[1]} steps of 8 rows" in printed
    for name in ("json", "email"):
        assert float(cells(printed, "the model sees", name)[2]) <= 0.1


def test_without_a_last_step_there_are_no_epochs(inspect):
    printed = inspect("--trainer.max_steps=-1", "--rows=0")
    assert "trainer.max_steps is not set" in printed
    assert "the model sees" not in printed


def test_rows_of_one_shuffled_whole_are_expected_in_proportion(data):
    plain = TextData(
        list(data.sources),
        tokenizer="byte",
        seq_len=64,
        val_fraction=0.3,
        cache_dir=str(data.cache_dir),
    )
    plain.prepare_data()
    num_rows = 10 * plain.training_rows.num_rows
    assert inspection.expected_tokens(plain, num_rows) == plain.delivered(num_rows)
    near = inspection.expected_tokens(plain, num_rows + 500)
    for name, (tokens, epochs) in plain.delivered(num_rows + 500).items():
        assert near[name] == (pytest.approx(tokens, rel=0.01), pytest.approx(epochs, rel=0.01))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows=-1"], "rows=-1 and read_mb=4.0 say how much"),
        (["--read_mb=0"], "rows=3 and read_mb=0.0 say how much"),
        (["--data.seq_len=10000000", "--data.mixture=null"], "do not fill one row of seq_len"),
        (["--data.mixture.weights={web: 1}"], "a weight to 'web', and the text has the domains"),
        (["--data.sources=nowhere"], "'nowhere' does not exist"),
    ],
)
def test_a_mistake_gives_one_clear_message(inspect, arguments, message):
    said = inspect(*arguments, fails=True)
    assert message in said
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in said


def test_rows_of_whole_documents_lose_nothing_and_are_padded() -> None:
    found = Survey(domains={}, skipped={}, num_dropped=0, read=None, padding=0.0065)
    assert (
        inspection.loss_lines(found)[0]
        == "Padding: 0.65 % of the rows, which hold whole documents."
    )
