"""Generated text: whole characters, no stop strings, and no trace in the training around it."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pile_lightning.callbacks import Samples, continue_text
from pile_lightning.data.tokenizers import ByteTokenizer, DecodeStream

START = 0


class Script:
    """Yields the ids that it is given, and notes what it was asked."""

    device = torch.device("cpu")

    def __init__(self, ids):
        self.ids = ids

    def stream(self, input_ids, **asked):
        self.prompt, self.asked = input_ids.tolist(), asked
        for i in self.ids:
            yield torch.tensor([i])


def codec_of(pieces):
    """Make a codec whose ids after the start are these pieces of UTF-8."""
    table = SimpleNamespace(token_bytes=[b"", *pieces])
    return SimpleNamespace(
        start_id=START,
        encode_batch=lambda texts: [torch.tensor([7] * len(text)) for text in texts],
        decode_stream=lambda: DecodeStream(table),
    )


def spoken(pieces, stop=(), ids=None):
    """The pieces of text that come from these pieces of UTF-8."""
    model = Script(range(1, len(pieces) + 1) if ids is None else ids)
    return list(continue_text(model, codec_of(pieces), "", max_new_tokens=99, stop=stop))


def before_the_first_stop(text, stop):
    """Read character by character: the first stop string to be complete ends the text."""
    for end in range(len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


letters = st.sampled_from("ab\u00e9\U0001f600")
texts = st.text(letters, max_size=12)
stops = st.lists(st.text(letters, min_size=1, max_size=4), max_size=3)


@settings(max_examples=300, deadline=None)
@given(text=texts, stop=stops, cuts=st.sets(st.integers(0, 48)))
@example(text="aba", stop=["aba", "b"], cuts=set())
@example(text="aba", stop=["aba", "b"], cuts={1, 2})
def test_no_stop_string_is_spoken_however_tokens_split_it(text, stop, cuts):
    whole = text.encode()
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    said = spoken(pieces, stop)
    assert "".join(said) == before_the_first_stop(text, stop)
    assert not any("\ufffd" in piece for piece in said), "a character came in parts"


def test_only_what_may_begin_a_stop_string_is_held_back():
    assert spoken([b"ab", b"c", b"de", b"f"]) == ["ab", "c", "de", "f"]
    assert spoken([b"ab", b"c", b"de", b"f"], ["cx"]) == ["ab", "cde", "f"]


def test_a_character_cut_off_by_the_end_is_marked():
    assert "".join(spoken([b"a", "\u00e9".encode()[:1]])) == "a\ufffd"


def test_the_start_of_another_document_ends_the_text():
    assert spoken([b"a", b"b"], ids=[1, START, 2]) == ["a"]


def test_the_model_gets_a_document_that_opens_with_the_prompt():
    model = Script([])
    sampling = {"top_p": 0.5, "temperature": 0.1}
    list(continue_text(model, codec_of([]), "xyz", max_new_tokens=5, **sampling))
    assert model.prompt == [[START, 7, 7, 7]]
    assert model.asked["max_new_tokens"] == 5
    assert model.asked.items() >= sampling.items()
    assert START in model.asked["stop_ids"]


class FakeTrainer(SimpleNamespace):
    """What ``Samples`` asks of a trainer, in the middle of a fit."""

    def __init__(self, folder, **changes):
        settings = {
            "datamodule": SimpleNamespace(tokenizer=ByteTokenizer()),
            "state": SimpleNamespace(fn="fit"),
            "sanity_checking": False,
            "fast_dev_run": False,
            "is_global_zero": True,
            "global_step": 3,
            "log_dir": str(folder),
            "default_root_dir": str(folder),
        }
        super().__init__(**(settings | changes))


def sampled(model, folder, **settings):
    callback = Samples(prompts=["def "], max_new_tokens=20, **settings)
    callback.on_validation_end(FakeTrainer(folder), model)
    text = (folder / "samples/step-000003.txt").read_text()
    assert text == callback.latest + "\n"
    return text


def test_samples_are_a_function_of_the_seed(make_model, tmp_path):
    model = make_model()
    texts = [sampled(model, tmp_path, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("def ") for text in texts)


def test_sampling_leaves_modes_and_randomness_alone(make_model, tmp_path):
    model = make_model(dropout=0.5)
    model.built_network.train()
    next(model.built_network.children()).eval()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    state = torch.get_rng_state()
    one, other = sampled(model, tmp_path), sampled(model, tmp_path)
    assert one == other, "dropout was not off"
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_is_the_same_with_and_without_samples(
    make_trainer, make_model, make_data, validating, tmp_path
):
    weights = []
    for callbacks in ([Samples(["a", "b"], max_new_tokens=4)], []):
        model = make_model(dropout=0.1)
        make_trainer(*callbacks, **validating).fit(model, make_data())
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    files = sorted((tmp_path / "run/samples").iterdir())
    assert [file.name for file in files] == ["step-000002.txt", "step-000004.txt"]
    for file in files:
        first, rule, second = file.read_text().partition("-" * 80 + "\n")
        assert (first[0], second[0], bool(rule)) == ("a", "b", True)


@pytest.mark.parametrize(
    "changes",
    [
        {"sanity_checking": True},
        {"fast_dev_run": 1},
        {"state": SimpleNamespace(fn="validate")},
        {"datamodule": None},
        {"is_global_zero": False},
    ],
    ids=["sanity-check", "quick-try", "validate", "no-tokenizer", "another-rank"],
)
def test_no_files_where_none_are_due(make_model, tmp_path, changes):
    Samples(max_new_tokens=2).on_validation_end(FakeTrainer(tmp_path, **changes), make_model())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dry_multiplier": -1}, "dry_multiplier=-1 is negative"),
        ({"prompts": ["too long" * 100]}, "the prompt has 801 tokens and the context holds"),
    ],
)
def test_a_mistake_is_told_before_the_first_step(
    make_trainer, make_model, make_data, settings, message
):
    trainer = make_trainer(Samples(**settings))
    with pytest.raises(ValueError, match=message):
        trainer.fit(make_model(), make_data())
    assert trainer.global_step == 0


def test_no_prompts_and_no_stream_are_no_samples(make_model, tmp_path):
    Samples(prompts=[]).on_validation_end(FakeTrainer(tmp_path), make_model())
    Samples().on_validation_end(FakeTrainer(tmp_path), torch.nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())
