"""Models of Hugging Face's train and are imitated as any other, and are kept in checkpoints."""

import shutil

import pytest
import torch

from pile_lightning.modules import CausalLM, Distillation, Environment
from pile_lightning.nn import HuggingFaceConfig
from tests.modules.environment.conftest import SEQ, VOCAB, ToyData, assert_equal, member


@pytest.fixture
def llama(tmp_path):
    """A tiny Llama, saved, with more rows than there are ids."""
    from transformers import LlamaConfig, LlamaForCausalLM, logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB + 9,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=2 * SEQ,
        )
    )
    model.save_pretrained(tmp_path / "llama")
    return model.eval(), tmp_path / "llama"


def test_it_gives_the_models_own_logits(llama):
    theirs, folder = llama
    network = HuggingFaceConfig(model=str(folder)).build(vocab_size=VOCAB, max_seq_len=SEQ).eval()
    ids = torch.randint(VOCAB, (3, SEQ))
    assert torch.equal(network(ids), theirs(ids).logits[..., :VOCAB])
    # packed documents are as separate ones
    where = {
        "document_ids": torch.tensor([[0] * 5 + [1] * 7]).expand(3, -1),
        "position_ids": torch.tensor([[*range(5), *range(7)]]).expand(3, -1),
    }
    packed = network(ids, **where)
    for part in (slice(5), slice(5, None)):
        torch.testing.assert_close(packed[:, part], network(ids[:, part]))


def test_it_is_tuned_alone_and_loaded_without_its_folder(llama, make_trainer, tmp_path):
    theirs, folder = llama
    network = HuggingFaceConfig(model=str(folder))
    model = CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ)
    trainer = make_trainer(max_steps=3)
    trainer.fit(model, ToyData())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    assert not torch.equal(model.network.model.lm_head.weight, theirs.lm_head.weight)
    shutil.rmtree(folder)
    loaded = CausalLM.load_from_checkpoint(tmp_path / "own.ckpt").eval()
    assert_equal(model, loaded)
    prompt = torch.tensor([[1, 2, 3]])
    assert loaded.generate(prompt, max_new_tokens=4, temperature=0).shape == (1, 4)
    with pytest.raises(
        FileNotFoundError, match="no folder .*llama any more.*go on from a checkpoint"
    ):
        make_trainer().fit(CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ), ToyData())
    with pytest.raises(
        ValueError, match=r"llama' is no folder of a Hugging Face model: it has no config\.json"
    ):
        HuggingFaceConfig(model=str(folder))


def test_it_teaches(llama, make_trainer, tmp_path):
    theirs, folder = llama
    members = {
        "teacher": {"frozen": True, "weights": str(folder)},
        "tuned": {"weights": str(folder)},
        "student": member(),
    }
    coupling = [Distillation(teacher="teacher", students=("student", "tuned"))]
    environment = Environment(members, vocab_size=VOCAB, max_seq_len=SEQ, coupling=coupling)
    trainer = make_trainer(max_steps=3)
    trainer.fit(environment, ToyData())
    trainer.save_checkpoint(tmp_path / "all.ckpt")
    ours = environment.roster["teacher"].module.network.model
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    shutil.rmtree(folder)
    assert_equal(environment, Environment.load_from_checkpoint(tmp_path / "all.ckpt"))
    again = Environment(**dict(environment.hparams))
    make_trainer(max_steps=4).fit(
        again, ToyData(), ckpt_path=tmp_path / "all.ckpt", weights_only=True
    )


@pytest.mark.parametrize(
    ("vocab_size", "max_seq_len", "message"),
    [
        (
            VOCAB + 10,
            SEQ,
            f"knows {VOCAB + 9} token ids, and the data's tokenizer has {VOCAB + 10}",
        ),
        (VOCAB, 2 * SEQ + 1, f"was made for {2 * SEQ} tokens, and rows are of {2 * SEQ + 1}"),
    ],
)
def test_a_model_that_does_not_fit_says_so(vocab_size, max_seq_len, message, llama):
    config = HuggingFaceConfig(model=str(llama[1]))
    with pytest.raises(ValueError, match=message):
        config.build(vocab_size=vocab_size, max_seq_len=max_seq_len)


def test_a_window_shorter_than_a_row_is_refused(llama, tmp_path):
    from transformers import MistralConfig

    MistralConfig(vocab_size=VOCAB, sliding_window=SEQ - 1).save_pretrained(tmp_path / "mistral")
    with pytest.raises(ValueError, match=f"attends to the latest {SEQ - 1} tokens"):
        HuggingFaceConfig(model=str(tmp_path / "mistral")).build(vocab_size=VOCAB, max_seq_len=SEQ)
    (tmp_path / "mistral/config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config\.json"):
        HuggingFaceConfig(model=str(tmp_path / "mistral"))
