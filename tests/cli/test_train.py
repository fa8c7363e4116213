"""``train.py`` and ``pile`` from the outside, as a new user runs them."""

import csv
import json

import pytest
import torch

from pile_lightning.callbacks import read_metrics
from tests.cli.killing import kill_after_a_save
from tests.conftest import REPOSITORY

QUICKSTART = str(REPOSITORY / "configs" / "quickstart.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpus, command_line, small):
    """A finished run of six steps: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = command_line(
        "fit",
        *small,
        f"--data.sources={corpus}",
        "--trainer.max_steps=6",
        "--trainer.val_check_interval=3",
        cwd=folder,
    )
    return folder, done


def test_a_run_leaves_what_it_promises(trained):
    folder, done = trained
    run = folder / "run"
    for name in (
        "config.yaml",
        "tokenizer.json",
        "metrics.csv",
        "curves.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "samples/step-000003.txt",
        "samples/step-000006.txt",
    ):
        assert (run / name).stat().st_size > 0, name
    for words in ("bits per byte", "this model, step 6", "xz -9e", "gzip -9", "A sample:", "Next:"):
        assert words in done.stdout
    rows = read_metrics(run / "metrics.csv")
    assert {row["step"] for row in rows} == {2, 3, 4, 6}
    logged = set().union(*rows)
    assert {"train/loss", "train/lr", "val/bits_per_byte", "val/perplexity"} <= logged
    assert {"throughput/tokens_per_second", "throughput/tokens", "throughput/tflops"} <= logged


def test_nothing_clutters_the_screen(trained):
    _, done = trained
    for noise in ("Warning", "warn", "Tip", "TPU", "workers", "tensorboard", "Seed set"):
        assert noise not in done.stdout + done.stderr, noise


def test_generate_is_a_function_of_its_seed(trained, command_line):
    folder, _ = trained
    run = ["pile", "generate", "run", "--prompt=def ", "--max_new_tokens=30"]
    run += ["--temperature=2", "--top_p=0.9"]  # so young a model is sure of its spaces
    texts = [command_line(*run, f"--seed={seed}", cwd=folder).stdout for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("def ")


def test_a_second_run_keeps_the_first(trained, command_line, small, corpus):
    folder, _ = trained
    before = (folder / "run" / "checkpoints" / "last.ckpt").read_bytes()
    done = command_line(
        "fit",
        *small,
        f"--data.sources={corpus}",
        "--trainer.max_steps=1",
        "--trainer.default_root_dir=run",
        cwd=folder,
    )
    assert "run.1" in done.stdout + done.stderr
    assert (folder / "run.1" / "checkpoints" / "last.ckpt").read_bytes() == before
    (folder / "run").rename(folder / "run.2")
    (folder / "run.1").rename(folder / "run")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_other_commands_leave_the_run_alone(trained, command_line, small, corpus, command):
    folder, _ = trained
    run = folder / "run"
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    done = command_line(command, "--config=run/config.yaml", "--ckpt_path=best", cwd=folder)
    for path, content in before.items():
        assert path.read_bytes() == content, path
    if command == "predict":
        text = (run / "predictions.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert len(lines) >= 8
        assert all(0 < sum(line["probabilities"]) <= 1 + 1e-5 for line in lines)
        assert all(len(line["tokens"]) == len(line["ids"]) == 5 for line in lines)
        (run / "predictions.jsonl").unlink()
    else:
        assert "bits_per_byte" in done.stdout


MISTAKES = {
    "a misspelled argument": (["--model.network.dmodel=8"], "did you mean 'd_model'"),
    "a misspelled trainer argument": (["--trainer.max_stepz=8"], "'trainer.max_steps'"),
    "a wrong type": (["--model.network.d_model=abc"], "d_model: expected int, got abc"),
    "an unknown class": (["--model.optimizer=Adam"], "did you mean 'AdamWConfig'"),
    "an unknown activation": (
        ["--model.network.feed_forward.activation=swish"],
        "activation='swish' is unknown; choose one of",
    ),
    "heads that do not divide the width": (
        ["--model.network.attention.num_heads=3"],
        "is not a multiple of num_heads=3",
    ),
    "a missing folder": (["--data.sources=nowhere"], "'nowhere' does not exist"),
    "an empty folder": (["--data.sources=empty"], "empty"),
    "a missing checkpoint": (
        ["--ckpt_path=best", "--trainer.default_root_dir=none"],
        "there is no checkpoint",
    ),
    "a batch that cannot be shared": (
        ["--data.batch_size=7", "--trainer.accumulate_grad_batches=2", "--data.sources={corpus}"],
        "choose a multiple of 2",
    ),
    "validation inside a step": (
        ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"],
        "val_check_interval=3",
    ),
    "a missing config": (["--config=nope.yaml"], "nope.yaml"),
    "no last step": (["--trainer.max_steps=-1", "--data.sources={corpus}"], "trainer.max_steps=-1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message(mistake, tmp_path, corpus, command_line, small):
    (tmp_path / "empty").mkdir()
    arguments, message = MISTAKES[mistake]
    arguments = [argument.format(corpus=corpus) for argument in arguments]
    done = command_line("fit", *small, *arguments, cwd=tmp_path, fails=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_generate_refuses_what_it_cannot_do(trained, command_line):
    folder, _ = trained
    for arguments, message in (
        (["nowhere"], "nowhere is not the folder of a run"),
        (["run", "--prompt=" + "x" * 80], "80|81"),
        (["run", "--temperature=-1"], "temperature=-1"),
        (["run", "--checkpoint=nope"], "there is no checkpoint"),
    ):
        done = command_line("pile", "generate", *arguments, cwd=folder, fails=True)
        assert "error: " in done.stderr
        assert any(part in done.stderr for part in message.split("|")), done.stderr
        assert "Traceback" not in done.stderr


def test_help_and_print_config_read_well(tmp_path, command_line):
    told = command_line("fit", "--help", cwd=tmp_path).stdout
    assert "--data" in told
    assert "--last_checkpoint.every_n_steps" in told
    printed = command_line("fit", "--config", QUICKSTART, "--print_config", cwd=tmp_path).stdout
    assert "d_model: 128" in printed
    assert "vocab_size" not in printed


@pytest.mark.parametrize("word", ["null", "None"])
def test_null_on_the_command_line_reaches_every_setting(tmp_path, command_line, word):
    parts = ["tables", "logit_cap", "attention.qk_norm"]
    nothing = [f"--model.network.{part}={word}" for part in parts] + [f"--data.val_stride={word}"]
    command = ["fit", "--config", QUICKSTART, *nothing, "--print_config"]
    printed = command_line(*command, cwd=tmp_path).stdout
    for part in (*parts, "val_stride"):
        assert f" {part.rpartition('.')[2]}: null\n" in printed


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


STREAM = ["--data=pile_lightning.StreamedText", "--data.num_lanes=8"]
RESUMES = [
    pytest.param(0, 1, [], id="alone", marks=pytest.mark.slow),  # see test_moments.py
    pytest.param(2, 2, [], id="workers-and-accumulation", marks=pytest.mark.slow),
    pytest.param(0, 4, [], id="accumulation", marks=pytest.mark.slow),
    pytest.param(2, 1, [], id="workers", marks=pytest.mark.slow),
    pytest.param(0, 1, STREAM, id="stream", marks=pytest.mark.slow),
    pytest.param(2, 2, STREAM, id="stream-workers-accumulation", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("workers", "accumulate", "data"), RESUMES)
def test_killed_and_resumed_is_uninterrupted(
    workers, accumulate, data, tmp_path, corpus, cache, command_line, small
):
    run = [
        "fit",
        *small,
        f"--data.sources={corpus}",
        *data,
        f"--data.num_workers={workers}",
        f"--trainer.accumulate_grad_batches={accumulate}",
        f"--trainer.val_check_interval={10 * accumulate}",
        "--trainer.max_steps=40",
        "--last_checkpoint.every_n_steps=5",
    ]
    for name in ("whole", "again"):
        command_line(*run, f"--trainer.default_root_dir={name}", cwd=tmp_path)
    whole = weights(tmp_path / "whole/checkpoints/last.ckpt")
    assert same(whole, weights(tmp_path / "again/checkpoints/last.ckpt"))

    killed = [*run, "--trainer.default_root_dir=killed"]
    checkpoint = tmp_path / "killed/checkpoints/last.ckpt"
    at = kill_after_a_save(killed, checkpoint, cwd=tmp_path, cache=cache)
    assert 5 <= at < 40, "killed too late to prove anything"
    command_line(*killed, "--ckpt_path=last", cwd=tmp_path)
    assert same(whole, weights(checkpoint))

    def losses(name):
        with (tmp_path / name / "metrics.csv").open() as file:
            return [(r["step"], r["train/loss"], r["val/loss"]) for r in csv.DictReader(file)]

    resumed, uninterrupted = losses("killed"), losses("whole")
    assert [row[0] for row in resumed] == [row[0] for row in uninterrupted]
