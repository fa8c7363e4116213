"""What domains gave is logged with each validation, whoever counts; a table holds many of them."""

import math

import pytest
from lightning import LightningDataModule

from pile_lightning.callbacks import DeliveredTokens, LastCheckpoint, MetricsCsv, read_metrics
from pile_lightning.callbacks.domains import domain_table
from pile_lightning.callbacks.text_table import COLUMNS
from pile_lightning.data import FileSource


@pytest.fixture
def two_domains(make_data, corpus):
    """Make a data module of two domains."""
    sources = [FileSource(str(corpus / f"{name}_*.py"), name=name) for name in ("json", "email")]
    return lambda: make_data(sources=sources, val_fraction=0.4)


def test_tokens_are_logged_with_each_validation_and_go_on_at_a_resume(
    make_trainer, make_model, two_domains, validating, tmp_path
):
    def fit(steps, **settings):
        trainer = make_trainer(
            DeliveredTokens(),
            LastCheckpoint(),
            logger=MetricsCsv(tmp_path / "run"),
            max_steps=steps,
            **validating,
        )
        trainer.fit(make_model(), two_domains(), **settings)
        return trainer

    trainer = fit(4)
    fit(8, ckpt_path=tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    rows = [row for row in read_metrics(tmp_path / "run/metrics.csv") if "data/json/tokens" in row]
    data = two_domains()
    for row, step in zip(rows, [2, 4, 6, 8], strict=True):
        delivered = [tokens for tokens, _ in data.delivered(step * 4).values()]
        assert [row["data/json/tokens"], row["data/email/tokens"]] == delivered
        assert sum(delivered) == step * 4 * 32
        assert "val/bits_per_byte" in row
    trainer.validate(make_model(), two_domains(), verbose=False)
    assert not any(name.startswith("data/") for name in trainer.callback_metrics)


def test_one_domain_is_not_logged_nor_data_that_do_not_count(
    make_trainer, make_model, make_data, validating
):
    class Plain(LightningDataModule):
        def __init__(self, data):
            super().__init__()
            self.data = data

        def prepare_data(self):
            self.data.prepare_data()

        def train_dataloader(self):
            return self.data.train_dataloader()

        def val_dataloader(self):
            return self.data.val_dataloader()

    for data in (make_data(), Plain(make_data())):
        trainer = make_trainer(DeliveredTokens(), **validating)
        trainer.fit(make_model(), data)
        assert not any(name.startswith("data/") for name in trainer.callback_metrics)


def test_what_is_not_known_is_left_open():
    scores = {"a": 1.0, "b": math.nan, "only held out": 3.0}
    weights = {"a": 0.5, "b": 0.25, "only held out": 0.25, "c": 0.0}
    lines = domain_table({"a": (10, None), "b": (30, None)}, scores, total=2.0, weights=weights)
    cells = [line.strip().split("  ") for line in lines]
    found = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in cells[2:]}
    assert found == {
        "a": ["10", "25.0 %", "1.0000"],
        "b": ["30", "75.0 %"],
        "only held out": ["3.0000"],
        "all, by held-out bytes": ["40", "2.0000"],
        "all, by the mixture (2 of 3 domains)": ["1.6667"],
    }


def test_names_of_a_mixture_that_are_not_scored_give_no_mean():
    lines = domain_table({"a": (1, None), "b": (1, None)}, {"x": 1.0}, weights={"a": 1.0, "b": 1.0})
    assert not any("mixture" in line for line in lines)


def test_many_domains_of_long_names_fit_the_screen():
    delivered = {f"{i} " + "long name " * 20: (10 ** (i % 12), i / 7) for i in range(50)}
    lines = domain_table(delivered, dict.fromkeys(delivered, 1.0))
    assert max(map(len, lines)) == COLUMNS
    assert lines[-2].strip() == "and 10 more, see metrics.csv"
