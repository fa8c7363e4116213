"""Environments that were stopped, killed or spread over ranks end as those that were not."""

import json

import pytest
import torch

from pile_lightning.callbacks import read_metrics
from tests.cli.environments import fit_on_ranks, init_args, state_of, sweep_of, tiny_run
from tests.cli.killing import kill_after_a_save


@pytest.fixture(scope="module")
def tiny(corpus):
    """Arguments that make any run of an environment one of seconds."""
    return tiny_run(corpus)


HALVED = [
    *sweep_of(**{"optimizer.lr": [0.0, 0.01], "network.dropout": [0.0, 0.1]}),
    '--model.halving={"at": [4], "keep": 0.5}',
    "--last_checkpoint.every_n_steps=2",
    "--trainer.val_check_interval=4",
]


def assert_same(one, two):
    weights, fates = one
    its_weights, its_fates = two
    assert weights.keys() == its_weights.keys()
    for name, value in weights.items():
        assert torch.equal(its_weights[name], value), name
    for name, member in fates.items():
        assert member["fate"] == pytest.approx(its_fates[name]["fate"], nan_ok=True)
        assert torch.equal(member["random"]["cpu"], its_fates[name]["random"]["cpu"])


@pytest.mark.slow
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
    checkpoint = tmp_path / "killed/checkpoints/last.ckpt"
    at = kill_after_a_save(killed, checkpoint, cwd=tmp_path, cache=cache)
    assert 2 <= at < 40, "killed too late to prove anything"
    command_line(*killed, "--ckpt_path=last", cwd=tmp_path)
    assert_same(state_of(tmp_path / "whole/checkpoints/last.ckpt"), state_of(checkpoint))


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize(
    ("accumulate", "engine"), [(1, "sequential"), (2, "sequential"), (2, "stacked"), (2, "auto")]
)
def test_two_ranks_are_one_process(accumulate, engine, tiny, tmp_path, cache):
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
        "alike": {
            "class_path": "pile_lightning.CausalLM",
            "init_args": init_args(optimizer=adam),
            "seed": 4,
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
        "unscored": {
            "class_path": own + "BreaksScoredOnOneRank",
            "init_args": init_args(optimizer=adam, at=1),
        },
    }
    found = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        fit_on_ranks(
            ranks,
            *[argument for argument in tiny if "limit_val" not in argument],
            f"--trainer.accumulate_grad_batches={accumulate}",
            f"--trainer.val_check_interval={5 * accumulate}",
            "--trainer.max_steps=10",
            f"--trainer.default_root_dir={folder}",
            "--model=pile_lightning.Environment",
            f"--model.members={json.dumps(members)}",
            f"--model.engine={engine}",
            "--model.coupling=[{'class_path': 'pile_lightning.Distillation', "
            "'init_args': {'teacher': 'wide', 'students': ['plain']}}]",
            "--non_finite.max_in_a_row=2",
            cwd=tmp_path,
            cache=cache,
        )
        found.append(
            (*state_of(folder / "checkpoints/last.ckpt"), read_metrics(folder / "metrics.csv"))
        )
    (one, fates, metrics), (two, its_fates, its_metrics) = found
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    stopped = {name: member["fate"]["stopped_step"] for name, member in fates.items()}
    trained = dict.fromkeys(["plain", "wide", "alike"])
    assert stopped == {**trained, "breaks": 3, "diverges": 4, "unscored": 5}
    assert stopped == {name: member["fate"]["stopped_step"] for name, member in its_fates.items()}
    for row, its_row in zip(metrics, its_metrics, strict=True):
        assert row.keys() == its_row.keys()
        for name in row:
            if name.endswith(("/loss", "bits_per_byte")):
                assert row[name] == pytest.approx(its_row[name], rel=1e-5, nan_ok=True)
