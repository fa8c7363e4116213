"""Settings that change between a run and its resume: they hold, or the run says which does not."""

import csv

import pytest


def test_a_resumed_run_has_the_settings_that_its_config_says(command_line, small, corpus, tmp_path):
    def fit(*more, fails=False):
        arguments = ["fit", *small, f"--data.sources={corpus}", "--trainer.accelerator=cpu"]
        arguments += ["--trainer.log_every_n_steps=1", "--samples.prompts=[]"]
        arguments += ["--trainer.precision=32-true", *more]
        return command_line(*arguments, cwd=tmp_path, fails=fails)

    fit("--trainer.max_steps=4", "--trainer.val_check_interval=4")
    fit(
        *("--trainer.max_steps=8", "--trainer.val_check_interval=4", "--ckpt_path=last"),
        *("--model.optimizer.lr=0.001", "--model.schedule.floor=1", "--model.schedule.warmup=0"),
    )
    with (tmp_path / "run/metrics.csv").open() as file:
        rates = {
            row["step"]: float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]
        }
    assert len(rates) == 8
    assert [rates[str(step)] for step in (5, 6, 7, 8)] == pytest.approx([0.001] * 4)
    assert rates["3"] > 0.001
    before = (tmp_path / "run/config.yaml").read_text()
    other = ("--trainer.max_steps=12", "--ckpt_path=last")
    error = fit(*other, "--model.network.d_model=48", fails=True).stderr
    assert "is of another model: network.d_model was 32 and is 48. Resume with" in error
    adamw = ("--model.optimizer=AdamWConfig", "--model.optimizer.lr=0.001")
    error = fit(*other, *adamw, fails=True).stderr
    assert "optimizer" in error
    assert "Muon" in error
    assert (tmp_path / "run/config.yaml").read_text() == before
