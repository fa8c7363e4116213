"""The tokenizer lies beside the checkpoints before the first of them can be written."""

import pytest
from lightning import Callback

from pile_lightning.callbacks import SaveTokenizer
from pile_lightning.data.tokenizers import Tokenizer


class Look(Callback):
    """Looks into the run's folder when training starts."""

    def on_train_start(self, trainer, *_):
        self.found = Tokenizer.load(f"{trainer.default_root_dir}/tokenizer.json")


@pytest.mark.parametrize("kind", ["byte", "bpe:300"])
def test_the_saved_tokenizer_is_that_of_the_data(make_trainer, make_model, make_data, kind):
    data, look = make_data(tokenizer=kind), Look()
    model = make_model(vocab_size=data.vocab_size)
    make_trainer(SaveTokenizer(), look, max_steps=1).fit(model, data)
    assert look.found.fingerprint() == data.tokenizer.fingerprint()
    text = "def f(x):\n    return '\u00e9'"
    (ids,), (again,) = data.tokenizer.encode_batch([text]), look.found.encode_batch([text])
    assert ids.tolist() == again.tolist()


def test_a_quick_try_of_the_code_leaves_none(make_trainer, make_model, make_data, tmp_path):
    make_trainer(SaveTokenizer(), fast_dev_run=True).fit(make_model(), make_data())
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`")
def test_data_without_a_tokenizer_has_none_to_save(make_trainer, make_model, make_data, tmp_path):
    data = make_data()
    data.prepare_data()
    trainer = make_trainer(SaveTokenizer(), max_steps=1)
    trainer.fit(make_model(), train_dataloaders=data.train_dataloader())
    assert not (tmp_path / "run" / "tokenizer.json").exists()
