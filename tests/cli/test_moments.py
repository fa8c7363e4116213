"""Whatever moment a run is killed at, going on leaves what a run leaves that was not."""

import os
import shutil

import pytest

from tests.cli.moments import Copies, at_each_boundary, differences, fit, left_by


@pytest.fixture
def arguments(small, corpus, cache):
    os.environ["PILE_CACHE"] = str(cache)
    return [
        *small,
        f"--data.sources={corpus}",
        "--model.network.d_model=16",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--trainer.limit_val_batches=1",
        "--trainer.val_check_interval=3",
        "--trainer.max_steps=6",
        "--trainer.enable_progress_bar=false",
        "--last_checkpoint.every_n_steps=2",
        "--kept_checkpoints.every_n_steps=2",
        "--kept_checkpoints.keep=2",
        "--samples.max_new_tokens=4",
        "--ckpt_path=auto",
    ]


def check_all(folder, arguments, *, choose=lambda copies: copies):
    whole, copies = folder / "whole", folder / "copies"
    whole.mkdir()
    copies.mkdir()
    code, said = fit(
        whole, arguments, prepare=lambda: at_each_boundary(Copies(whole / "run", copies))
    )
    assert code == 0, said
    expected = left_by(whole, said)
    assert expected["table"]
    wrong = {}
    states = choose(sorted(copies.iterdir()))
    for state in states:
        code, said = fit(state, arguments)
        found = [said[-2000:]] if code else list(differences(expected, left_by(state, said)))
        if found:
            wrong[state.name] = found[:6]
        else:
            shutil.rmtree(state)
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    print(len(states), "moments")


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_uninterrupted(tmp_path, arguments):
    check_all(tmp_path, arguments)


def test_a_run_killed_in_or_after_its_last_validation_is_uninterrupted(tmp_path, arguments):
    def last_row(copies):
        return [copy for copy in copies if copy.name.endswith("log_metrics")][-1:]

    check_all(tmp_path, arguments, choose=last_row)
