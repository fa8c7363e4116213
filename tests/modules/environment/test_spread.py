"""A rank has what it trains, and no more, and the ranks together have what one process has."""

import os
import socket

import pytest
import torch
from lightning import seed_everything

from pile_lightning.callbacks import MetricsCsv, read_metrics
from pile_lightning.modules import Environment, SharedPart
from tests.checkpoint.worlds import in_ranks
from tests.modules.environment.conftest import SEQ, UNLIKE, VOCAB, ToyData, make_trainer_in


def train(folder, **settings):
    seed_everything(0, verbose=False)
    share = [SharedPart(part="blocks", members=["plain", "reseeded"])]
    environment = Environment(UNLIKE, share=share, vocab_size=VOCAB, max_seq_len=SEQ)
    trainer = make_trainer_in(folder, logger=[MetricsCsv(folder)], **settings)
    trainer.fit(environment, ToyData())
    trainer.save_checkpoint(folder / "last.ckpt")
    return environment, trainer


def train_as_rank(rank, folder, port):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
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
    (folder / f"{rank}.txt").write_text(best.name)
    assert environment.generate(torch.zeros(1, 1, dtype=torch.long), max_new_tokens=2).shape[0] == 1


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
