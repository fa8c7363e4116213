"""Members that are spread over ranks are those of one process, bit for bit, in every run."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from pile_lightning.callbacks import read_metrics
from tests.cli.environments import init_args, sweep_of, tiny_run
from tests.conftest import REPOSITORY

LIGHTNING = "pile_lightning."
OWN = "tests.modules.environment.members."
MUON = {"class_path": LIGHTNING + "optim.MuonConfig", "init_args": {"lr": 0.02}}


@pytest.fixture(scope="module")
def tiny(corpus):
    """Arguments that make any run of an environment one of seconds."""
    return tiny_run(corpus)


@pytest.fixture
def start(tiny, tmp_path, cache):
    """Start ``train.py`` in as many processes as there are ranks; one is not spread."""

    def start(folder, ranks, *more, strategy="spread"):
        command = [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *tiny,
            "--trainer.accelerator=cpu",
            f"--trainer.devices={ranks}",
            f"--trainer.strategy={strategy if ranks > 1 else 'auto'}",
            f"--trainer.default_root_dir={tmp_path / folder}",
            *more,
        ]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PILE_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def run(start):
    def run(*arguments, fails=False, **more):
        process = start(*arguments, **more)
        said, _ = process.communicate(timeout=300)
        assert (process.returncode != 0) == fails, said
        return said

    return run


def leaves(value, path=()):
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in items:
            yield from leaves(each, (*path, key))
    else:
        yield path, value


def is_same(one, two):
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(two)
    return one == two


def told(folder):
    """What was logged, but for speed, and for the nan of members that were stopped."""
    return [
        {n: v for n, v in row.items() if not (n.startswith("throughput") or math.isnan(v))}
        for row in read_metrics(folder / "metrics.csv")
    ]


PARTS = ["state_dict", "optimizer_states", "lr_schedulers", "environment", "hyper_parameters"]


def assert_same_checkpoints(one, two):
    """Everything that a run goes on from."""
    for name in ("last", "best"):
        its = [torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True) for f in (one, two)]
        first, second = (dict(leaves([each[part] for part in PARTS])) for each in its)
        assert first.keys() == second.keys()
        assert any("exp_avg" in path for path in first)
        assert [path for path in first if not is_same(first[path], second[path])] == []


def assert_same_runs(one, two):
    """Everything that a run goes on from, and all that was told."""
    assert_same_checkpoints(one, two)
    assert told(one) == told(two)
    samples = [{path.name: path.read_bytes() for path in f.glob("samples/*")} for f in (one, two)]
    assert samples[0]
    assert samples[0] == samples[1]


def model(class_path=LIGHTNING + "CausalLM", **more):
    own = {name: more.pop(name) for name in ("seed", "gradient_clip_val") if name in more}
    return {"class_path": class_path, "init_args": init_args(**more), **own}


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("more", [[], ["--average.decay=0.9"]], ids=["", "averaged"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_are_one_process(accumulate, more, run, tmp_path):
    members = {
        # these three are coupled, and so on the first rank
        "plain": model(gradient_clip_val=0.5),
        "wide": model(width=48, seed=3, optimizer=MUON),
        "scored": model(seed=4),
        # and these on the second, where two of three fail
        "small": model(width=16, seed=5),
        "breaks": model(OWN + "Breaks", width=16, at=3 * accumulate),
        "diverges": model(OWN + "Diverges", width=16, at=4 * accumulate),
    }
    coupling = [
        {
            "class_path": LIGHTNING + "Distillation",
            "init_args": {"teacher": "wide", "students": ["plain"]},
        },
        {"class_path": LIGHTNING + "Ensemble", "init_args": {"members": ["plain", "scored"]}},
    ]
    settings = [
        "--model=pile_lightning.Environment",
        f"--model.members={json.dumps(members)}",
        f"--model.coupling={json.dumps(coupling)}",
        # the last member of the second rank is stopped in some of these
        '--model.halving={"at": [6, 8], "keep": 0.5}',
        f"--trainer.accumulate_grad_batches={accumulate}",
        f"--trainer.val_check_interval={5 * accumulate}",
        "--trainer.max_steps=10",
        "--non_finite.max_in_a_row=2",
        *more,
    ]
    run("one", 1, *settings)
    said = run("two", 2, *settings)
    for name, step in (("breaks", 3), ("diverges", 4)):
        assert said.count(f"member {name!r} stops, with the weights of step {step}") == 1
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    names = [path.name for path in (tmp_path / "two/members").iterdir()]
    assert sorted(names) == sorted(members)


HALVED = [
    *sweep_of(**{"optimizer.lr": [0.0, 0.01], "network.dropout": [0.0, 0.1], "seed": [1, 2]}),
    '--model.halving={"at": [6], "keep": 0.5}',
    "--last_checkpoint.every_n_steps=2",
    "--trainer.val_check_interval=4",
]
BREAKS = ["--trainer.callbacks=tests.cli.interrupts.BreakAt"]


@pytest.fixture
def move(run):
    """Run one in a process, and one on two ranks that goes on as is said, and on two again."""

    def move(ranks, **more):
        steps = [*HALVED, "--trainer.max_steps=12"]
        run("whole", 1, *steps)
        run("moved", 2, *steps, *BREAKS, "--trainer.callbacks.step=4", fails=True)
        onwards = [*steps, "--ckpt_path=last"]
        run("moved", ranks, *onwards, *BREAKS, "--trainer.callbacks.step=8", fails=True, **more)
        run("moved", 2, *onwards)

    return move


@pytest.mark.slow
@pytest.mark.dist
def test_a_run_goes_on_with_other_ranks(move, tmp_path):
    move(1)
    assert_same_runs(tmp_path / "whole", tmp_path / "moved")


@pytest.mark.slow
@pytest.mark.dist
def test_a_run_goes_on_under_ddp_and_back(move, tmp_path):
    move(2, strategy="ddp")
    for row, other in zip(told(tmp_path / "whole"), told(tmp_path / "moved"), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            if name.endswith(("/loss", "bits_per_byte")):
                # rows that two ranks share are summed in another order, and draw other dropout
                rel = 0.1 if "dropout=0.1" in name else 1e-3
                assert row[name] == pytest.approx(other[name], rel=rel), name


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_resumed_is_uninterrupted(number, start, run, tmp_path):
    # each step's loss is logged: one over two steps forgets the first where a run goes on between
    steps = [*HALVED, "--trainer.max_steps=40", "--trainer.log_every_n_steps=1"]
    run("whole", 1, *steps)
    checkpoint = tmp_path / "stopped/checkpoints/last.ckpt"
    process = start("stopped", 2, *steps)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if number == signal.SIGTERM:
        process.send_signal(number)  # the first rank alone
    else:
        os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == (85 if number == signal.SIGTERM else -number), said
    assert 2 <= torch.load(checkpoint, weights_only=True)["global_step"] < 40
    run("stopped", 2, *steps, "--ckpt_path=auto")
    # a kill may come between a step's checkpoint and its row of metrics
    same = assert_same_runs if number == signal.SIGTERM else assert_same_checkpoints
    same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize(
    ("strategy", "arguments", "said"),
    [
        ("pile_lightning.SpreadStrategy", ["--model.network.d_model=16"], "CausalLM is one model"),
        ("spread", sweep_of(seed=[1]), "2 ranks for 1 members: .* use trainer.devices up to 1"),
    ],
    ids=["one-model", "too-many-ranks"],
)
def test_what_cannot_be_spread_is_refused_once(
    strategy, arguments, said, tiny, tmp_path, command_line
):
    ranks = ["--trainer.accelerator=cpu", "--trainer.devices=2", f"--trainer.strategy={strategy}"]
    done = command_line("fit", *tiny, *ranks, *arguments, cwd=tmp_path, fails=True)
    assert done.stderr.count("error: ") == 1
    assert re.search(said, done.stderr)
    assert not (tmp_path / "run").exists()
