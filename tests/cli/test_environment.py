"""Environments from the command line, as a new user runs them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from pile_lightning import CausalLM
from pile_lightning.callbacks import read_metrics
from tests.conftest import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs/environment").glob("*.yaml"))


@pytest.fixture(scope="session")
def tiny(corpus):
    """Arguments that make any run of an environment one of seconds."""
    return [
        f"--data.sources={corpus}",
        "--data.tokenizer=byte",
        "--data.seq_len=64",
        "--data.val_stride=64",
        "--data.val_fraction=0.2",
        "--trainer.log_every_n_steps=2",
        "--trainer.limit_val_batches=3",
        "--trainer.default_root_dir=run",
        "--trainer.precision=32-true",
        "--samples.max_new_tokens=8",
    ]


def init_args(width=32, **more):
    return {"network": {"d_model": width, "num_layers": 1}, **more}


def sweep_of(**fields):
    """Return arguments of a sweep of a tiny model."""
    base = {"class_path": "pile_lightning.CausalLM", "init_args": init_args()}
    return [
        "--model=pile_lightning.Environment",
        f"--model.base={json.dumps(base)}",
        f"--model.sweep={json.dumps(fields)}",
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_takes_two_steps(config, tiny, tmp_path, command_line):
    done = command_line(
        "fit",
        f"--config={config}",
        *tiny,
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        cwd=tmp_path,
    )
    content = yaml.safe_load(config.read_text())
    assert content["trainer"]["default_root_dir"] == f"runs/{config.stem}"
    assert "the best member, step 2" in done.stdout
    settings = content["model"]["init_args"]
    names = settings.get("members") or ["lr=0.01,d_model=64", "lr=0.1,d_model=96"]
    for name in names:
        assert f"  {name} " in done.stdout.split("The members.")[1]
    assert ("the ensemble, step 2" in done.stdout) == (config.stem == "distillation")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command_line, tiny):
    """A finished sweep of eight steps: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    arguments = sweep_of(**{"optimizer.lr": [0.0, 0.02], "seed": [1, 2]})
    done = command_line(
        "fit",
        *tiny,
        *arguments,
        '--model.halving={"at": [4], "keep": 0.75}',
        "--trainer.max_steps=8",
        "--trainer.val_check_interval=4",
        cwd=folder,
    )
    return folder, done


def test_a_run_ranks_its_members_and_leaves_each_as_a_run(trained, command_line):
    folder, done = trained
    run = folder / "run"
    ranked = [line.split() for line in done.stdout.split("The members.")[1].splitlines()[3:7]]
    assert [place for place, *_ in ranked] == ["1", "2", "3", "4"]
    scores = [float(row[2]) for row in ranked]
    assert scores == sorted(scores)
    assert ranked[-1][-1] == "4"  # trained to step 4
    best = ranked[0][1]
    assert best.startswith("lr=0.02,seed=")
    assert f"pile generate run/members/{best}" in done.stdout
    assert (run / "curves.png").stat().st_size > 10_000
    rows = read_metrics(run / "metrics.csv")
    logged = set().union(*rows)
    for name in ("lr=0.02,seed=1", "lr=0.0,seed=2"):
        assert {f"train/{name}/loss", f"train/{name}/lr", f"val/{name}/bits_per_byte"} <= logged
    assert {"train/loss", "val/bits_per_byte", "throughput/tflops"} <= logged
    assert [row["train/members"] for row in rows if "train/members" in row] == [4, 4, 3, 3]

    own = run / "members" / best
    model = CausalLM.load_from_checkpoint(own / "checkpoints/last.ckpt")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(state[f"members.{best.replace('.', '_')}.{name}"], value)
    for place in (str(own.relative_to(folder)), "run"):
        generate = ["generate", place, "--prompt=def ", "--max_new_tokens=9", "--checkpoint=last"]
        said = command_line("pile", *generate, cwd=folder).stdout
        assert said.startswith("def ")
    config = yaml.safe_load((own / "config.yaml").read_text())
    assert config["seed_everything"] == int(best[-1])
    validate = ["validate", f"--config={own}/config.yaml", "--ckpt_path=last"]
    assert "val/bits_per_byte" in command_line(*validate, cwd=folder).stdout


def test_a_member_is_the_model_of_a_run_of_its_own(trained, tiny, tmp_path, command_line):
    folder, _ = trained
    settings = [
        "--model.network.d_model=32",
        "--model.network.num_layers=1",
        "--model.optimizer.lr=0.02",
        "--seed_everything=2",
        "--trainer.max_steps=8",
        "--trainer.val_check_interval=4",
    ]
    command_line("fit", *tiny, *settings, cwd=tmp_path)
    alone = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    path = folder / "run/members/lr=0.02,seed=2/checkpoints/last.ckpt"
    member = torch.load(path, weights_only=True)
    assert alone.keys() == member.keys()
    assert alone["hyper_parameters"] == member["hyper_parameters"]
    assert alone["lr_schedulers"] == member["lr_schedulers"]
    torch.testing.assert_close(alone["state_dict"], member["state_dict"], rtol=0, atol=0)
    (one,), (two,) = alone["optimizer_states"], member["optimizer_states"]
    assert one["param_groups"] == two["param_groups"]
    torch.testing.assert_close(one["state"], two["state"], rtol=0, atol=0)


def test_members_of_any_checkpoint_are_written_on_demand(trained, command_line):
    folder, _ = trained
    told = command_line("pile", "members", "run", "--checkpoint=best", cwd=folder).stdout
    own = folder / "run/members/lr=0.02,seed=1"
    assert "run/members/lr=0.02,seed=1" in told
    assert (own / "checkpoints/best.ckpt").is_file()
    again = ["pile", "members", "run/members/lr=0.02,seed=1"]
    assert "is not of an environment" in command_line(*again, cwd=folder, fails=True).stderr


def test_the_whole_is_scored_and_predicts(trained, command_line):
    folder, _ = trained
    done = command_line("validate", "--config=run/config.yaml", "--ckpt_path=last", cwd=folder)
    assert "val/lr=0.0,seed=1/bits_per" in done.stdout
    command_line("predict", "--config=run/config.yaml", "--ckpt_path=last", cwd=folder)
    assert (folder / "run/predictions.jsonl").is_file()


TWICE = """
model:
  class_path: pile_lightning.Environment
  init_args:
    members:
      one: {class_path: pile_lightning.CausalLM}
      one: {class_path: pile_lightning.CausalLM}
"""

MISTAKES = {
    "two members of one name": (["--config=twice.yaml"], "'one' stands twice, in lines 6 and 7"),
    "a swept field that is none": (
        sweep_of(**{"optimizer.lrr": [1, 2]}),
        "sweep: 'lrr' is not a setting here; did you mean 'lr'?",
    ),
    "an unknown class": (
        ["--model=pile_lightning.Environment", '--model.members={"a": {"class_path": "Causal"}}'],
        "member 'a': there is no class 'Causal'; did you mean 'CausalLM'?",
    ),
    "a coupling of nobody": (
        [
            *sweep_of(seed=[1, 2]),
            '--model.coupling=[{"class_path": "pile_lightning.Ensemble", '
            '"init_args": {"members": ["seed=3"]}}]',
        ],
        "coupling Ensemble names 'seed=3', and there is no such member; did you mean 'seed=",
    ),
    "another vocabulary": (
        [
            "--model=pile_lightning.Environment",
            '--model.members={"a": {"class_path": "CausalLM", "init_args": {"vocab_size": 3}}}',
        ],
        "vocab_size=3, and the one stream that all members read has 257",
    ),
    "a setting that is none": (
        [*sweep_of(seed=[1]), "--model.sweeep=1"],
        "did you mean 'sweep'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message(mistake, tiny, tmp_path, command_line):
    (tmp_path / "twice.yaml").write_text(TWICE)
    arguments, message = MISTAKES[mistake]
    done = command_line("fit", *tiny, *arguments, cwd=tmp_path, fails=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


HALVED = [
    *sweep_of(**{"optimizer.lr": [0.0, 0.01], "network.dropout": [0.0, 0.1]}),
    '--model.halving={"at": [4], "keep": 0.5}',
    "--last_checkpoint.every_n_steps=2",
    "--trainer.val_check_interval=4",
]


def state_of(path):
    state = torch.load(path, weights_only=True)
    return state["state_dict"], state["environment"]["members"]


def assert_same(one, two):
    weights, fates = one
    its_weights, its_fates = two
    assert weights.keys() == its_weights.keys()
    for name, value in weights.items():
        assert torch.equal(its_weights[name], value), name
    for name, member in fates.items():
        assert member["fate"] == pytest.approx(its_fates[name]["fate"], nan_ok=True)
        assert torch.equal(member["random"]["cpu"], its_fates[name]["random"]["cpu"])


def test_a_run_that_breaks_before_a_validation_halves_as_it_would_have(
    tiny, tmp_path, command_line
):
    run = ["fit", *tiny, *HALVED, "--trainer.max_steps=7"]
    command_line(*run, "--trainer.default_root_dir=whole", cwd=tmp_path)
    breaks = ["--trainer.callbacks=tests.cli.interrupts.BreakAt", "--trainer.callbacks.step=4"]
    with pytest.raises(InterruptedError):
        command_line(*run, "--trainer.default_root_dir=broken", *breaks, cwd=tmp_path)
    command_line(*run, "--trainer.default_root_dir=broken", "--ckpt_path=last", cwd=tmp_path)
    whole, broken = (state_of(tmp_path / n / "checkpoints/last.ckpt") for n in ("whole", "broken"))
    assert_same(whole, broken)
    assert sum(each["fate"]["stopped_step"] == 4 for each in whole[1].values()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_and_resumed_is_uninterrupted(accumulate, tiny, tmp_path, cache, command_line):
    run = [
        "fit",
        *tiny,
        *HALVED,
        "--trainer.max_steps=40",
        f"--trainer.accumulate_grad_batches={accumulate}",
        f"--trainer.val_check_interval={4 * accumulate}",
    ]
    command_line(*run, "--trainer.default_root_dir=whole", cwd=tmp_path)
    killed = [*run, "--trainer.default_root_dir=killed"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *killed],
        cwd=tmp_path,
        env={**os.environ, "PILE_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoint = tmp_path / "killed/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    at = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 2 <= at < 40, "killed too late to prove anything"
    command_line(*killed, "--ckpt_path=last", cwd=tmp_path)
    assert_same(state_of(tmp_path / "whole/checkpoints/last.ckpt"), state_of(checkpoint))


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_are_one_process(accumulate, tiny, tmp_path, cache):
    adam = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"eps": 0.001}}
    own = "tests.modules.environment.members."
    members = {
        "plain": {
            "class_path": "pile_lightning.CausalLM",
            "init_args": init_args(optimizer=adam),
            "gradient_clip_val": 0.5,
        },
        "wide": {
            "class_path": "pile_lightning.CausalLM",
            "init_args": init_args(48, optimizer=adam),
            "seed": 3,
        },
        # of two ranks, one alone fails
        "breaks": {
            "class_path": own + "BreaksOnOneRank",
            "init_args": init_args(optimizer=adam, at=3 * accumulate),
        },
        "diverges": {
            "class_path": own + "Diverges",
            "init_args": init_args(optimizer=adam, at=4 * accumulate),
        },
    }
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        command = [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *[argument for argument in tiny if "limit_val" not in argument],
            "--trainer.accelerator=cpu",
            f"--trainer.devices={ranks}",
            f"--trainer.strategy={'ddp' if ranks > 1 else 'auto'}",
            f"--trainer.accumulate_grad_batches={accumulate}",
            f"--trainer.val_check_interval={5 * accumulate}",
            "--trainer.max_steps=10",
            f"--trainer.default_root_dir={folder}",
            "--model=pile_lightning.Environment",
            f"--model.members={json.dumps(members)}",
            "--model.coupling=[{'class_path': 'pile_lightning.Distillation', "
            "'init_args': {'teacher': 'wide', 'students': ['plain']}}]",
            "--non_finite.max_in_a_row=2",
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PILE_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found.append(
            (*state_of(folder / "checkpoints/last.ckpt"), read_metrics(folder / "metrics.csv"))
        )
    (one, fates, metrics), (two, its_fates, its_metrics) = found
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    stopped = {name: member["fate"]["stopped_step"] for name, member in fates.items()}
    assert stopped == {"plain": None, "wide": None, "breaks": 3, "diverges": 4}
    assert stopped == {name: member["fate"]["stopped_step"] for name, member in its_fates.items()}
    for row, its_row in zip(metrics, its_metrics, strict=True):
        assert row.keys() == its_row.keys()
        for name in row:
            if name.endswith(("/loss", "bits_per_byte")):
                assert row[name] == pytest.approx(its_row[name], rel=1e-5, nan_ok=True)
