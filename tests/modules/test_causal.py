import copy
import warnings

import pytest
import torch
from lightning import Trainer, seed_everything
from torch import nn

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.modules import CausalLM
from pile_lightning.nn import DecoderConfig, cross_entropy_sum
from pile_lightning.optim import AdamWConfig, LinearConfig, MuonConfig
from tests.modules.rows import SEQ, VOCAB, ToyData, make_rows, take

NETWORK = DecoderConfig(d_model=32, num_layers=2)


def make_model(**changes):
    seed_everything(0, verbose=False)
    settings = {"vocab_size": VOCAB, "max_seq_len": SEQ, "optimizer": AdamWConfig(lr=1e-2)}
    return CausalLM(NETWORK, **{**settings, **changes})


def make_trainer(tmp_path, **settings):
    return Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": tmp_path,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_steps": 1,
            "limit_val_batches": 0,
            **settings,
        }
    )


@pytest.fixture(autouse=True)
def quiet():
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")


def randomised(model):
    """Fill every weight: at the start output projections are zero, and hide most gradients."""
    for parameter in model.built_network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


class KeepGradients(CausalLM):
    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.kept = {name: p.grad.clone() for name, p in self.named_parameters()}


@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulated_micro_batches_give_the_gradients_of_the_big_batch(tmp_path, pieces):
    rows = make_rows(16)
    gradients = []
    for count in (1, pieces):
        seed_everything(0, verbose=False)
        model = randomised(KeepGradients(NETWORK, vocab_size=VOCAB, max_seq_len=SEQ))
        batches = [take(rows, part) for part in torch.arange(16).chunk(count)]
        make_trainer(tmp_path, accumulate_grad_batches=count).fit(model, ToyData(batches))
        gradients.append(model.kept)
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig()])
def test_accumulated_steps_train_like_big_batches(tmp_path, optimizer):
    rows = make_rows(16)
    losses = []
    for count in (1, 4):
        model = make_model(optimizer=optimizer)
        batches = [take(rows, part) for part in torch.arange(16).chunk(count)] * 5
        make_trainer(tmp_path, accumulate_grad_batches=count, max_steps=5).fit(
            model, ToyData(batches)
        )
        losses.append(model.token_nll(rows).sum())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


def test_a_batch_without_labels_gives_no_gradient(tmp_path):
    rows = make_rows(4)
    rows["labels"].fill_(IGNORE_INDEX)
    model = KeepGradients(NETWORK, vocab_size=VOCAB, max_seq_len=SEQ)
    make_trainer(tmp_path).fit(model, ToyData([rows]))
    assert all(not gradient.any() for gradient in model.kept.values())


def test_the_schedule_moves_every_optimizer_step(tmp_path):
    seen = []

    class Watch(CausalLM):
        def on_train_batch_start(self, batch, batch_idx):
            seen.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    model = Watch(
        NETWORK,
        vocab_size=VOCAB,
        max_seq_len=SEQ,
        optimizer=AdamWConfig(lr=1.0),
        schedule=LinearConfig(warmup=2),
    )
    batches = [make_rows(2)] * 12
    make_trainer(tmp_path, accumulate_grad_batches=2, max_steps=6).fit(model, ToyData(batches))
    expected = [LinearConfig(warmup=2).build(total=6)(step // 2) for step in range(12)]
    assert seen == pytest.approx(expected)


def test_validation_scores_tokens_and_bytes_by_domain(tmp_path):
    rows = make_rows(6)
    model = randomised(make_model())
    trainer = make_trainer(tmp_path, limit_val_batches=1.0)
    data = ToyData([take(rows, part) for part in torch.arange(6).split(4)])
    scores = trainer.validate(model, data, verbose=False)[0]

    nll = nn.functional.cross_entropy(
        model(rows).flatten(0, 1), rows["labels"].flatten(), reduction="none"
    ).view(6, SEQ)
    num_tokens = (rows["labels"] != IGNORE_INDEX).sum()
    assert scores["val/loss"] == pytest.approx((nll.sum() / num_tokens).item(), rel=1e-5)
    assert scores["val/perplexity"] == pytest.approx(
        (nll.sum() / num_tokens).exp().item(), rel=1e-4
    )
    bits = nll.sum(dim=1).double() / torch.log(torch.tensor(2.0)).double()
    assert scores["val/bits_per_byte"] == pytest.approx(
        (bits.sum() / rows["num_bytes"].sum()).item(), rel=1e-5
    )
    odd = rows["domain"] == 1
    assert scores["val/odd/bits_per_byte"] == pytest.approx(
        (bits[odd].sum() / rows["num_bytes"][odd].sum()).item(), rel=1e-5
    )


def test_training_minimises_the_z_loss_and_scores_are_without_it(tmp_path):
    rows = make_rows(4)
    plain, model = randomised(make_model()), randomised(make_model(z_loss=0.1))
    model.load_state_dict(plain.state_dict())
    counted = rows["labels"] != IGNORE_INDEX
    squares = plain(rows).float().logsumexp(-1).square()[counted].sum()
    torch.testing.assert_close(model.loss_sum(rows), plain.loss_sum(rows) + 0.1 * squares)
    torch.testing.assert_close(model.token_nll(rows), plain.token_nll(rows))
    with pytest.raises(ValueError, match="z_loss=-1.0 is negative; choose e.g. 1e-4, or 0"):
        make_model(z_loss=-1.0)


@torch.no_grad()
def test_capped_logits_are_trained_and_scored_as_they_are_given():
    network = DecoderConfig(d_model=32, num_layers=2, logit_cap=1.0)
    model = randomised(CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ))
    rows = make_rows(4)
    expected = cross_entropy_sum(model(rows), rows["labels"], reduction="none")
    torch.testing.assert_close(model.token_nll(rows), expected)
    torch.testing.assert_close(model.loss_sum(rows), expected.sum())
    assert model(rows).abs().max() <= 1


def test_predictions_are_the_probabilities_after_the_last_label(tmp_path):
    rows = make_rows(3, ignored=False)
    rows["labels"][1, 7:] = IGNORE_INDEX
    model = randomised(make_model()).eval()
    predicted = make_trainer(tmp_path).predict(model, ToyData([rows]))[0]
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones(3))
    whole = model(rows).softmax(dim=-1)
    torch.testing.assert_close(predicted[0], whole[0, SEQ - 1])
    torch.testing.assert_close(predicted[1], whole[1, 6])


class Smoothed(CausalLM):
    """What a user's sub-class looks like: one more hyper-parameter, another loss."""

    def __init__(self, *, strength: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.strength = strength

    def loss_sum(self, batch):
        return (1 - self.strength) * super().loss_sum(batch)


@pytest.mark.parametrize("kind", [CausalLM, Smoothed])
def test_checkpoints_load_with_the_safe_default(tmp_path, kind):
    more = {"strength": 0.3} if kind is Smoothed else {}
    model = kind(
        network=NETWORK, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=MuonConfig(lr=0.5), **more
    )
    trainer = make_trainer(tmp_path)
    trainer.fit(model, ToyData([make_rows(2)]))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    stored = torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]
    assert stored["network"]["init_args"]["d_model"] == 32
    loaded = kind.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.network_config == NETWORK
    assert loaded.optimizer_config == MuonConfig(lr=0.5)
    if kind is Smoothed:
        assert loaded.strength == 0.3
    rows = make_rows(2)
    assert torch.equal(loaded(rows), model(rows))


class Bigram(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, input_ids, *, position_ids=None, document_ids=None):
        return self.table(input_ids)


def test_a_network_that_gives_logits_alone_is_enough(tmp_path):
    class Plain(CausalLM):
        def configure_model(self):
            if self.network is None:
                self.network = Bigram(self.vocab_size)

    rows = make_rows(4)
    model = Plain(vocab_size=VOCAB, max_seq_len=SEQ)
    before = model.token_nll(rows).sum()
    make_trainer(tmp_path, max_steps=20).fit(model, ToyData([rows] * 20))
    assert model.token_nll(rows).sum() < before
    assert model.generate(rows["input_ids"], max_new_tokens=2).shape == (4, 2)


def test_an_endless_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trainer.max_steps=-1: schedules count optimizer steps"):
        make_trainer(tmp_path, max_steps=-1, max_epochs=1).fit(
            make_model(), ToyData([make_rows(2)])
        )


def test_a_config_of_the_wrong_kind_is_refused():
    with pytest.raises(TypeError, match=r"optimizer=.* is no OptimizerConfig; pass one, such as"):
        CausalLM(NETWORK, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=LinearConfig())


def test_what_cannot_be_stored_is_refused():
    class Holds(CausalLM):
        def __init__(self, thing, **kwargs):
            super().__init__(**kwargs)

    with pytest.raises(TypeError, match=r"object cannot be stored in a checkpoint"):
        Holds(object(), network=NETWORK, vocab_size=VOCAB, max_seq_len=SEQ)


def test_training_leaves_the_random_state_of_copies_alone(tmp_path):
    rows = [make_rows(4, seed=step) for step in range(6)]
    runs = []
    for _ in range(2):
        model = make_model()
        make_trainer(tmp_path, max_steps=6).fit(model, ToyData(rows))
        runs.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
