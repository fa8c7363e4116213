"""A rank has what it trains, and no more, and the ranks together have what one process has."""

import socket

import pytest
import torch
from lightning import seed_everything

from pile_lightning.callbacks import MetricsCsv, read_metrics
from pile_lightning.modules import Environment, SharedPart
from pile_lightning.modules.bookkeeping import CheckWeights
from pile_lightning.nn import check_weights, weights_follow
from tests.checkpoint.worlds import as_one_of_two, in_ranks
from tests.modules.environment.conftest import SEQ, UNLIKE, VOCAB, ToyData, make_trainer_in
from tests.modules.environment.members import ElsewhereConfig

ELSEWHERE = {
    "elsewhere": {
        "class_path": "CausalLM",
        "init_args": {
            "network": {"class_path": "tests.modules.environment.members.ElsewhereConfig"}
        },
    }
}


def train(folder, **settings):
    seed_everything(0, verbose=False)
    share = [SharedPart(part="blocks", members=["plain", "reseeded"])]
    environment = Environment(UNLIKE | ELSEWHERE, share=share, vocab_size=VOCAB, max_seq_len=SEQ)
    trainer = make_trainer_in(folder, logger=[MetricsCsv(folder)], **settings)
    trainer.fit(environment, ToyData())
    trainer.save_checkpoint(folder / "last.ckpt")
    return environment, trainer


def train_as_rank(rank, folder, port):
    as_one_of_two(rank, port)
    environment, trainer = train(folder, strategy="spread", devices=2)
    ranks = {member.name: int(member.here) for member in environment.roster}
    assert 0 < sum(ranks.values()) < len(ranks)
    assert ranks["plain"] == ranks["reseeded"]
    best = environment.roster.best()
    for member in environment.roster:
        own = list(member.module.parameters())
        # what another rank trains has neither memory nor moments; the best has been lent
        assert any(p.is_meta for p in own) == (not member.here and member is not best)
        stepped = [p in member.optimizer.state for p in own]
        assert all(stepped) if member.here else not any(stepped)
    environment.on_predict_start()  # looks for weights that never came
    (folder / f"{rank}.txt").write_text(best.name)
    assert environment.generate(torch.zeros(1, 1, dtype=torch.long), max_new_tokens=2).shape[0] == 1


def test_what_is_not_trained_here_waits_for_no_weights_and_reads_none(make_environment):
    (each,) = make_environment(ELSEWHERE).roster
    ElsewhereConfig.reads.clear()
    each.outline()
    check_weights(each.module)
    each.borrow(torch.device("cpu"))
    check_weights(each.module)
    assert ElsewhereConfig.reads == []
    each.module.network = None
    each.configure_model()
    assert ElsewhereConfig.reads == ["read"]


def test_nothing_is_predicted_with_weights_that_never_came(make_environment):
    environment = make_environment(ELSEWHERE)
    with weights_follow():
        environment.configure_model()
    with pytest.raises(FileNotFoundError, match="the weights never came"):
        CheckWeights().on_predict_start(None, environment)


@pytest.mark.dist
def test_a_rank_has_its_members_alone_and_two_have_those_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    environment, _ = train(one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    in_ranks(train_as_rank, two, port, processes=2)
    best = environment.roster.best().name
    assert [(two / f"{rank}.txt").read_text() for rank in range(2)] == [best, best]
    whole, joined = (torch.load(f / "last.ckpt", weights_only=True) for f in (one, two))
    assert whole["state_dict"].keys() == joined["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(joined["state_dict"][name], value), name
    (own,), (its,) = whole["optimizer_states"], joined["optimizer_states"]
    assert own["state"].keys() == its["state"].keys()
    for number, state in own["state"].items():
        for name, value in state.items():
            assert torch.equal(its["state"][number][name], value)
    metrics = [read_metrics(folder / "metrics.csv") for folder in (one, two)]
    assert metrics[0] == metrics[1]
    assert {"train/wide/loss", "val/wide/odd/bits_per_byte"} <= {
        n for row in metrics[0] for n in row
    }
