"""The closing table says what was reached, in figures that hold."""

import gzip
import lzma
import re

import pytest

from pile_lightning.callbacks import (
    BestCheckpoint,
    LastCheckpoint,
    Report,
    Samples,
    SaveTokenizer,
    Throughput,
    report,
)
from pile_lightning.data import Document, FileSource, MixtureConfig, StreamedText
from pile_lightning.data.split import content_hash, is_held_out
from pile_lightning.modules import CausalLM


def figure(printed, row):
    """The number at the end of the table's row."""
    return float(re.search(rf"^  {re.escape(row)} +([\d.]+)$", printed, re.MULTILINE)[1])


def test_the_table_is_exact(make_trainer, make_model, make_data, validating, tmp_path, capsys):
    data, model = make_data(), make_model()
    trainer = make_trainer(Report(), Throughput(), Samples(["def "], 5), **validating)
    trainer.fit(model, data)
    printed = capsys.readouterr().out

    read = [document for document in data.documents() if isinstance(document, Document)]
    texts = [document.text.encode() for document in read]
    held_out = b"".join(text for text in texts if is_held_out(content_hash(text), 0.2))
    xz = len(lzma.compress(held_out, preset=9 | lzma.PRESET_EXTREME))
    bits = trainer.callback_metrics["val/bits_per_byte"].item()
    assert figure(printed, "this model, step 4") == pytest.approx(bits, abs=1e-4)
    assert figure(printed, "xz -9e") == pytest.approx(8 * xz / len(held_out), abs=1e-4)
    packed = len(gzip.compress(held_out, compresslevel=9))
    assert figure(printed, "gzip -9") == pytest.approx(8 * packed / len(held_out), abs=1e-4)
    assert f"documents, {len(held_out):,} bytes" in printed

    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert f"Trained {millions:.1f} M parameters for 4 steps (0.00 M tokens in all)" in printed
    assert "  | def " in printed
    assert f"{tmp_path / 'run'}/\n  samples" in printed


@pytest.fixture
def sources(corpus):
    """Two domains."""
    return [FileSource(str(corpus / f"{name}_*.py"), name=name) for name in ("json", "email")]


@pytest.mark.parametrize("weights", [None, {"json": 0.75, "email": 0.25}])
def test_domains_have_a_table_of_their_own(
    weights, make_trainer, make_model, make_data, sources, capsys
):
    mixture = None if weights is None else MixtureConfig(weights=weights)
    data = make_data(sources=sources, val_fraction=0.4, val_batch_size=128, mixture=mixture)
    trainer = make_trainer(Report(), limit_val_batches=1.0, val_check_interval=4)
    trainer.fit(make_model(), data)
    printed = capsys.readouterr().out.partition("By domain, since the first step.\n")[2]
    assert "tokens   share  epochs" in printed
    bits = {}
    for name, (tokens, epochs) in data.delivered(4 * 4).items():
        bits[name] = trainer.callback_metrics[f"val/{name}/bits_per_byte"].item()
        row = re.search(
            rf"^  {name} +(\d+) +([\d.]+) % +([\d.]+) +([\d.]+)$", printed, re.MULTILINE
        )
        share = 100 * tokens / (4 * 4 * 32)
        assert [float(cell) for cell in row.groups()] == [
            tokens,
            pytest.approx(share, abs=0.051),
            pytest.approx(epochs, abs=0.005),
            pytest.approx(bits[name], abs=1e-4),
        ]
    total = trainer.callback_metrics["val/bits_per_byte"].item()
    plain = re.search(r"all, by held-out bytes +512 +([\d.]+)$", printed, re.MULTILINE)
    assert float(plain[1]) == pytest.approx(total, abs=1e-4)
    if weights is None:
        assert "by the mixture" not in printed
    else:
        mean = sum(weight * bits[name] for name, weight in weights.items())
        assert figure(printed, "all, by the mixture") == pytest.approx(mean, abs=1e-4)


def test_a_stream_has_no_epochs_to_tell(make_trainer, make_model, sources, cache, capsys):
    data = StreamedText(
        sources,
        tokenizer="byte",
        seq_len=32,
        batch_size=1,
        num_lanes=1,
        val_fraction=0.4,
        cache_dir=str(cache),
    )
    make_trainer(Report(), limit_val_batches=1.0, val_check_interval=4).fit(make_model(), data)
    printed = capsys.readouterr().out.partition("By domain, since the first step.\n")[2]
    assert "epochs  " not in printed
    for name, (tokens, _) in data.delivered(4).items():
        assert re.search(rf"^  {name} +{tokens} +[\d.]+ % +[\d.]+$", printed, re.MULTILINE)


def test_the_loss_of_text_without_bytes_outlives_the_run():
    report = Report()
    report._loss = 2.5
    again = Report()
    again.load_state_dict(report.state_dict())
    assert again._loss == 2.5


def test_one_domain_has_no_table(make_trainer, make_model, make_data, validating, capsys):
    make_trainer(Report(), **validating).fit(make_model(), make_data())
    assert "By domain" not in capsys.readouterr().out


@pytest.mark.parametrize(("interval", "told"), [(3, True), (2, False)])
def test_a_last_step_without_a_score_is_told(
    interval, told, make_trainer, make_model, make_data, validating, capsys
):
    settings = validating | {"val_check_interval": interval}
    make_trainer(Report(), **settings).fit(make_model(), make_data())
    printed = capsys.readouterr().out
    assert figure(printed, f"this model, step {3 if told else 4}") > 0
    assert (
        "Step 4 is not scored: for that choose a trainer.val_check_interval that divides 4"
        in printed
    ) == told


def test_the_table_says_how_much_was_scored(
    make_trainer, make_model, make_data, validating, capsys
):
    make_trainer(Report(), **validating | {"limit_val_batches": 1.0}).fit(make_model(), make_data())
    assert "Held-out text, every document from its first token" in capsys.readouterr().out
    make_trainer(Report(), **validating | {"limit_val_batches": 1}).fit(make_model(), make_data())
    printed = capsys.readouterr().out
    assert "every document" not in printed
    assert "Held-out text, of which the first 1 of " in printed


def test_an_earlier_best_step_is_named(make_trainer, make_model, make_data, validating, capsys):
    class Rising(CausalLM):
        def log_scores(self, prefix):
            self.log("val/bits_per_byte", float(self.trainer.global_step))
            self.bits_per_byte.reset()
            self.perplexity.reset()

    trainer = make_trainer(Report(), BestCheckpoint(), **validating)
    trainer.fit(make_model(Rising), make_data())
    printed = capsys.readouterr().out
    assert figure(printed, "this model, step 4") == 4
    assert figure(printed, "this model, best step 2") == 2
    assert "  checkpoints " in printed


def test_a_run_without_scores_has_no_table(make_trainer, make_model, make_data, capsys):
    make_trainer(Report()).fit(make_model(), make_data())
    printed = capsys.readouterr().out
    assert "for 4 steps in" in printed
    assert "bits per byte" not in printed


def test_a_run_that_scores_otherwise_has_no_table(
    make_trainer, make_model, make_data, validating, capsys
):
    class Otherwise(CausalLM):
        def log_scores(self, prefix):
            self.log("val/code/bits_per_byte", 1.0)

    make_trainer(Report(), **validating).fit(make_model(Otherwise), make_data())
    printed = capsys.readouterr().out
    assert "for 4 steps in" in printed
    assert "this model" not in printed


def test_more_text_than_is_worth_the_time_is_not_compressed(
    make_trainer, make_model, make_data, validating, monkeypatch, capsys
):
    monkeypatch.setattr(report, "MAX_BYTES", 10_000)
    make_trainer(Report(), **validating).fit(make_model(), make_data())
    printed = capsys.readouterr().out
    assert "this model, step 4" in printed
    assert "gzip" not in printed


def test_only_files_that_are_there_are_listed(make_trainer, make_model, make_data, capsys):
    make_trainer(Report(), SaveTokenizer()).fit(make_model(), make_data())
    printed = capsys.readouterr().out
    assert "  tokenizer.json\n" in printed
    for absent in ("config.yaml", "metrics.csv", "curves.png", "last.ckpt", "data.png"):
        assert absent not in printed


def test_a_resumed_run_counts_its_own_steps_and_a_finished_one_says_how_to_go_on(
    make_trainer, make_model, make_data, tmp_path, capsys
):
    def fit(steps, ckpt_path=None):
        trainer = make_trainer(Report(), LastCheckpoint(), max_steps=steps)
        trainer.fit(make_model(), make_data(), ckpt_path=ckpt_path, weights_only=True)
        return capsys.readouterr().out

    last = tmp_path / "run/checkpoints/last.ckpt"
    assert "for 4 steps" in fit(4)
    assert "for 3 steps" in fit(7, last)
    finished = fit(7, last)
    assert "Trained" not in finished
    assert "has taken its 7 steps; a larger trainer.max_steps goes on" in finished


def test_a_quick_try_of_the_code_reports_nothing(make_trainer, make_model, make_data, capsys):
    make_trainer(Report(), fast_dev_run=True).fit(make_model(), make_data())
    assert "Trained" not in capsys.readouterr().out
