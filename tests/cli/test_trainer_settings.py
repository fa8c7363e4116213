"""Settings of the trainer work, or are refused in one line before text is prepared."""

import pytest

SAID = {
    "--trainer.barebones=true": "trainer.barebones=True: it allows neither a log",
    "--trainer.enable_checkpointing=false": "trainer.enable_checkpointing=False: the end",
    "--trainer.callbacks+=StochasticWeightAveraging": "--average.decay",
}


@pytest.mark.parametrize("argument", SAID)
def test_what_a_run_cannot_follow_is_refused_at_the_start(argument, command_line, small, tmp_path):
    more = ["--trainer.callbacks.swa_lrs=0.1"] if "Stochastic" in argument else []
    said = command_line(
        "fit", *small, "--data.sources=nowhere", argument, *more, cwd=tmp_path, fails=True
    )
    error = said.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert SAID[argument] in error
    assert not (tmp_path / "run").exists()


def test_another_progress_bar_takes_the_place_of_ours(command_line, small, corpus, tmp_path):
    said = command_line(
        "fit",
        *small,
        f"--data.sources={corpus}",
        "--trainer.max_steps=2",
        "--trainer.callbacks+=TQDMProgressBar",
        cwd=tmp_path,
    )
    assert "this model, step 2" in said.stdout
