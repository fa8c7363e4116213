"""What makes an environment one: members train as they would alone, bit for bit."""

import pytest
import torch

from tests.modules.environment.conftest import UNLIKE, ToyData, assert_equal


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_member_trains_as_it_would_alone(
    accumulate, make_environment, make_trainer, train_alone
):
    environment = make_environment(UNLIKE)
    trainer = make_trainer(accumulate_grad_batches=accumulate)
    trainer.fit(environment, ToyData())
    assert trainer.global_step == 6
    for name, spec in UNLIKE.items():
        model, alone = train_alone(spec, accumulate_grad_batches=accumulate)
        assert_equal(model, environment.roster[name].module)
        assert model.built_network.state_dict()
        for metric in ("train/{}loss", "train/{}lr", "val/{}bits_per_byte", "val/{}loss"):
            together = trainer.callback_metrics[metric.format(f"{name}/")]
            assert together == alone.callback_metrics[metric.format("")], metric
        for domain in ("even", "odd"):
            together = trainer.callback_metrics[f"val/{name}/{domain}/bits_per_byte"]
            assert together == alone.callback_metrics[f"val/{domain}/bits_per_byte"]


def test_the_scores_of_the_best_stand_for_the_environment(make_environment, make_trainer):
    environment = make_environment(UNLIKE)
    trainer = make_trainer()
    trainer.fit(environment, ToyData())
    logged = trainer.callback_metrics
    best = environment.ranking()[0]
    assert logged["val/bits_per_byte"] == min(logged[f"val/{n}/bits_per_byte"] for n in UNLIKE)
    assert (
        best["bits_per_byte"]
        == logged["val/bits_per_byte"]
        == logged[f"val/{best['name']}/bits_per_byte"]
    )
    assert logged["train/loss"] == min(logged[f"train/{name}/loss"] for name in UNLIKE)
    prompt = torch.tensor([[1, 2, 3]])
    expected = environment.roster[best["name"]].module.generate(
        prompt, max_new_tokens=4, temperature=0
    )
    assert torch.equal(environment.generate(prompt, max_new_tokens=4, temperature=0), expected)
