"""Averaged weights are those that are scored and kept, and training does not notice."""

from functools import partial

import pytest
import torch
from lightning import Callback
from lightning.pytorch.strategies import FSDPStrategy

from pile_lightning import CausalLM
from pile_lightning.callbacks import AverageWeights, BestCheckpoint, LastCheckpoint
from pile_lightning.optim import AVERAGE, LinearConfig, ema_decay

# the same whatever the last step is
STEADY = partial(CausalLM, schedule=LinearConfig(warmup=0, floor=1))


class Watch(Callback):
    """Notes the weights in training after each step."""

    def __init__(self):
        self.seen = []
        self.scores = {}

    def on_train_batch_end(self, trainer, module, *rest):
        self.seen.append({n: p.detach().clone() for n, p in module.named_parameters()})

    def on_validation_end(self, trainer, module):
        scores = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val")}
        self.scores[trainer.global_step] = scores


@pytest.fixture
def fit(make_trainer, make_model, make_data, tmp_path, validating):
    """Train into a folder, with or without an average, which may be said by its decay."""

    def run(folder, average, *, ckpt_path=None, **settings):
        watch = Watch()
        trainer = make_trainer(
            watch,
            average if isinstance(average, AverageWeights) else AverageWeights(average),
            LastCheckpoint(every_n_steps=3),
            BestCheckpoint(),
            default_root_dir=tmp_path / folder,
            **{**validating, "max_steps": 8, **settings},
        )
        model = make_model(STEADY)
        trainer.fit(model, make_data(), ckpt_path=ckpt_path, weights_only=True)
        return watch, model, tmp_path / folder / "checkpoints"

    return run


def load(path):
    return torch.load(path, weights_only=True)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def averaged(seen, decay):
    """Return the average by its formula, in the precision of the weights."""
    average = {name: value.clone() for name, value in seen[0].items()}
    for number, weights in enumerate(seen[1:], start=2):
        for name, value in weights.items():
            average[name].lerp_(value, 1 - ema_decay(number, decay=decay))
    return average


def test_training_does_not_notice_and_checkpoints_hold_the_average(fit):
    plain, _, _ = fit("plain", None)
    watch, model, folder = fit("averaged", 0.6)
    assert all(same(a, b) for a, b in zip(plain.seen, watch.seen, strict=True))
    expected = averaged(watch.seen, 0.6)
    last = load(folder / "last.ckpt")
    assert same(last["state_dict"], expected)
    assert same(dict(model.named_parameters()), expected)
    raw = [state[AVERAGE] for state in last["optimizer_states"][0]["state"].values()]
    assert sorted(map(torch.sum, raw)) == sorted(map(torch.sum, watch.seen[-1].values()))
    assert same(CausalLM.load_from_checkpoint(folder / "last.ckpt").state_dict(), expected)


def test_both_are_scored_and_the_best_is_of_the_average(fit, make_data, make_trainer, validating):
    plain, _, _ = fit("plain", None)
    watch, _, folder = fit("averaged", 0.6)
    for step, scores in plain.scores.items():
        for name in ("loss", "bits_per_byte"):
            assert watch.scores[step][f"val_raw/{name}"] == pytest.approx(scores[f"val/{name}"])
        assert watch.scores[step]["val/loss"] != pytest.approx(scores["val/loss"], rel=1e-4)
    best = load(folder / "best.ckpt")
    trainer = make_trainer(limit_val_batches=1)
    model = CausalLM.load_from_checkpoint(folder / "best.ckpt")
    (found,) = trainer.validate(model, make_data(), verbose=False)
    logged = watch.scores[best["global_step"]]["val/bits_per_byte"]
    assert found["val/bits_per_byte"] == pytest.approx(logged, rel=1e-6)
    assert logged == min(scores["val/bits_per_byte"] for scores in watch.scores.values())


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("stop", [4, 5])  # at a validation, and between two
def test_resumed_is_uninterrupted(fit, name, stop):
    _, _, whole = fit("whole", 0.6)
    _, _, folder = fit("parts", 0.6, max_steps=stop)
    _, _, resumed = fit("parts", 0.6, ckpt_path=folder / name)
    one, two = load(whole / "last.ckpt"), load(resumed / "last.ckpt")
    assert same(one["state_dict"], two["state_dict"])
    for number, state in one["optimizer_states"][0]["state"].items():
        assert same(state, two["optimizer_states"][0]["state"][number])


def test_without_the_average_a_run_goes_on_with_its_own_weights(fit):
    plain, _, _ = fit("plain", None)
    _, _, folder = fit("averaged", 0.6, max_steps=4)
    watch, _, after = fit("averaged", None, ckpt_path=folder / "last.ckpt")
    assert same(watch.seen[-1], plain.seen[-1])
    state = load(after / "last.ckpt")["optimizer_states"][0]["state"]
    assert not any(AVERAGE in each for each in state.values())


def test_an_average_may_begin_later(fit):
    _, _, folder = fit("plain", None, max_steps=4)
    watch, _, after = fit("plain", 0.6, ckpt_path=folder / "last.ckpt")
    state = load(after / "last.ckpt")["state_dict"]
    assert not same(state, watch.seen[-1])


def test_a_step_of_several_micro_batches_counts_once(fit):
    watch, model, _ = fit("averaged", 0.6, accumulate_grad_batches=2, max_steps=4)
    assert len(watch.seen) == 8
    assert same(dict(model.named_parameters()), averaged(watch.seen[1::2], 0.6))


def test_the_weights_in_training_need_not_be_scored(fit):
    watch, _, _ = fit("averaged", AverageWeights(0.6, score_raw=False), max_steps=2)
    assert "val/loss" in watch.scores[2]
    assert not any(name.startswith("val_raw") for name in watch.scores[2])


@pytest.mark.parametrize("decay", [0.0, 1.0, 10.0])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match=rf"average.decay={decay} .* between 0 and 1"):
        AverageWeights(decay)


def test_coarse_weights_are_refused(fit):
    with pytest.raises(ValueError, match=r"is in torch.bfloat16, too coarse .* bf16-mixed"):
        fit("coarse", 0.9, precision="bf16-true")


def test_flattened_parameters_are_refused(make_model):
    strategy = FSDPStrategy.__new__(FSDPStrategy)

    class Stub:
        pass

    trainer = Stub()
    trainer.strategy = strategy
    with pytest.raises(ValueError, match="FSDPStrategy flattens .*use .*ShardedStrategy"):
        AverageWeights(0.9).setup(trainer, make_model(), "fit")
