"""Tokens are counted over all that trains, and seconds over nothing else."""

import time
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback

from pile_lightning.callbacks import (
    LastCheckpoint,
    MetricsCsv,
    Throughput,
    dense_peak,
    read_metrics,
)
from pile_lightning.modules import CausalLM

TOKENS_A_STEP = 4 * 32


class Clock:
    """A clock that stands still until it is moved."""

    now = 5000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class Timed(CausalLM):
    """Takes a second for the first micro-batch of a step, longer for others and for scores."""

    clock = None

    def training_step(self, batch, batch_idx):
        self.clock.now += 1 + 2 * (batch_idx % self.trainer.accumulate_grad_batches)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.clock.now += 100


class SlowSamples(Callback):
    """Takes long after validation, and comes after the callback that counts."""

    def __init__(self, clock):
        self.clock = clock

    def on_validation_end(self, *_):
        self.clock.now += 1000


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_only_training_is_on_the_clock(
    clock, make_trainer, make_model, make_data, validating, tmp_path, accumulate, every
):
    model = make_model(Timed)
    model.clock = clock
    trainer = make_trainer(
        Throughput(),
        SlowSamples(clock),
        logger=MetricsCsv(tmp_path),
        max_steps=6,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=every,
        **(validating | {"val_check_interval": 2 * accumulate}),
    )
    model.on_validation_epoch_end = lambda: None
    trainer.fit(model, make_data())
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if "throughput/tokens" in row]
    assert [row["step"] for row in rows] == list(range(every, 7, every))
    rate = TOKENS_A_STEP / {1: 1, 2: 1 + 3}[accumulate]
    for row in rows:
        assert row["throughput/tokens"] == row["step"] * TOKENS_A_STEP
        assert row["throughput/tokens_per_second"] == pytest.approx(rate)
        flops = rate * model.network.flops_per_token(32)
        assert row["throughput/tflops"] == pytest.approx(flops / 1e12)
        assert "throughput/mfu" not in row  # the peak of a CPU is not known


def test_a_resumed_run_goes_on_counting(make_trainer, make_model, make_data, tmp_path):
    def fit(steps, ckpt_path=None):
        counter = Throughput()
        trainer = make_trainer(counter, LastCheckpoint(), max_steps=steps)
        trainer.fit(make_model(), make_data(), ckpt_path=ckpt_path, weights_only=True)
        return counter.tokens

    assert fit(3) == 3 * TOKENS_A_STEP
    assert fit(5, tmp_path / "run/checkpoints/last.ckpt") == 5 * TOKENS_A_STEP


class Network:
    def flops_per_token(self, seq_len):
        return 1e6 * seq_len


def logged_by(ranks, clock, network=None):
    """What a rank logs after a step of two seconds on rows (2, 8)."""
    logged = {}
    module = SimpleNamespace(
        network=network or Network(), device=torch.device("cpu"), log_dict=logged.update
    )
    trainer = SimpleNamespace(
        global_rank=0,
        world_size=ranks,
        distributed_sampler_kwargs={"num_replicas": ranks, "rank": 0} if ranks > 1 else None,
        accumulate_grad_batches=1,
        log_every_n_steps=1,
        global_step=1,
    )
    throughput = Throughput()
    throughput.on_train_start(trainer, module)
    clock.now += 2
    batch = {"input_ids": torch.zeros(2, 8, dtype=torch.long)}
    throughput.on_train_batch_end(trainer, module, None, batch, 0)
    return logged


@pytest.mark.parametrize("ranks", [1, 4])
def test_ranks_add_up_and_share_one_peak_each(clock, monkeypatch, ranks):
    monkeypatch.setattr(Throughput, "_peak", staticmethod(lambda device: 1e9))
    assert logged_by(ranks, clock) == {
        "throughput/tokens": ranks * 16,
        "throughput/tokens_per_second": ranks * 8,
        "throughput/tflops": pytest.approx(ranks * 8 * 8e6 / 1e12),
        "throughput/mfu": pytest.approx(8 * 8e6 / 1e9),
    }


def test_a_network_that_does_not_count_flops_has_a_rate_alone(clock):
    logged = logged_by(1, clock, network=object())
    assert logged == {"throughput/tokens": 16, "throughput/tokens_per_second": 8}


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
    ],
)
def test_peaks_by_the_name_of_the_device(name, tflops):
    assert dense_peak(name) == tflops * 1e12


@pytest.mark.parametrize("name", ["NVIDIA L40", "NVIDIA T400 4GB", "NVIDIA GB200", "NVIDIA H20"])
def test_a_device_whose_name_holds_a_known_one_is_not_that_one(name):
    assert dense_peak(name) is None
