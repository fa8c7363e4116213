"""Ranks that die, hang or go wrong alone: what the others do, and how the run goes on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from lightning import Callback

from pile_lightning.callbacks import LastCheckpoint, Preemption, SkipNonFinite, Watchdog
from pile_lightning.modules import CausalLM
from tests.conftest import REPOSITORY
from tests.faults.probe import Probe, events

pytestmark = [pytest.mark.dist, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


class Hangs(Callback):
    """One rank sleeps for ever in its third step."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            self.sleep_for_ever()

    def sleep_for_ever(self):
        time.sleep(10_000)


class WrongOnOne(CausalLM):
    """Its loss is no number on one rank, in two steps."""

    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        wrong = self.trainer.global_rank == 1 and self.trainer.global_step in (3, 4)
        return loss * float("nan") if wrong else loss


class Compare(Callback):
    """Keep what a rank holds at the end."""

    def on_train_end(self, trainer, pl_module):
        skipped = next(c for c in trainer.callbacks if isinstance(c, SkipNonFinite)).skipped_steps
        kept = {"weights": pl_module.state_dict(), "skipped": skipped}
        torch.save(kept, f"{trainer.default_root_dir}/rank-{trainer.global_rank}.pt")


@pytest.mark.slow
def test_a_hang_of_one_rank_is_told_by_all_and_the_run_goes_on_from_its_checkpoint(ranks):
    run = ranks()
    begun = time.monotonic()
    saving = {"callbacks": [Watchdog(timeout=2), Hangs(), LastCheckpoint(1), Preemption()]}
    codes = run.start(max_steps=6, **saving).finish()
    assert codes == [87, 87], run.said()
    assert time.monotonic() - begun < 30
    for rank, where in ((0, "on_before_optimizer_step"), (1, "sleep_for_ever")):
        stacks = (run.folder / f"stacks-rank-{rank}.txt").read_text()
        assert f"Rank {rank} has made no progress for 2 seconds" in stacks
        assert "after step 2" in stacks
        assert rank == 0 or where in stacks
    assert "sleep_for_ever" in run.said()
    saving["callbacks"] = [Watchdog(timeout=10), Probe(), LastCheckpoint(), Preemption()]
    assert run.start(max_steps=6, **saving).finish() == [0, 0]
    assert events(run.folder)[1] == (run.pids[0], "step", 3)


def test_a_loss_that_is_no_number_on_one_rank_skips_the_step_on_both(ranks):
    run = ranks()
    callbacks = [SkipNonFinite(), Compare(), Probe(), LastCheckpoint(), Preemption()]
    run.start(max_steps=8, model=WrongOnOne, callbacks=callbacks)
    assert run.finish() == [0, 0], run.said()
    one, other = (torch.load(run.folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["skipped"] == other["skipped"] == 2
    for name, value in one["weights"].items():
        assert value.isfinite().all()
        assert torch.equal(value, other["weights"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_rank_that_is_killed_is_started_again_and_the_run_goes_on(
    seed, small, corpus, cache, tmp_path
):
    """``kill -9`` of one rank at a random step under torchrun."""

    def fit(folder):
        command = [
            str(REPOSITORY / "configs/cluster/torchrun.sh"),
            *small,
            f"--data.sources={corpus}",
            "--trainer.accelerator=cpu",
            "--trainer.strategy=ddp",
            "--trainer.precision=32-true",
            "--trainer.max_steps=24",
            "--last_checkpoint.every_n_steps=5",
            "--trainer.callbacks+=tests.faults.probe.Probe",
            f"--trainer.default_root_dir={folder}",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PILE_CACHE": str(cache),
            "PILE_PYTHON": sys.executable,
            "NPROC_PER_NODE": "2",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
        )

    random = np.random.default_rng(seed)
    rank, at = int(random.integers(2)), int(random.integers(2, 20))
    whole, run = tmp_path / "whole", tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        for folder in (whole, run):
            process = fit(folder)
            try:
                if folder == run:
                    deadline = time.monotonic() + 120
                    while not any(step >= at for _, _, step in events(run, rank)):
                        assert time.monotonic() < deadline
                        time.sleep(0.002)
                    os.kill(events(run, rank)[-1][0], signal.SIGKILL)
                assert process.wait(240) == 0, (tmp_path / "log").read_text()[-6000:]
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
    killed = events(run, rank)
    assert len({pid for pid, _, _ in killed}) == 2, "no rank was started again"
    one, other = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (whole, run)
    )
    assert other["global_step"] == 24
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
