"""Text that spells a special token is text, whatever model the tokenizer has."""

import json
import pickle

import pytest
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from pile_lightning import StreamedText, TextData
from pile_lightning.data.tokenizer_specs import load_tokenizer
from pile_lightning.data.tokenizers import FastTokenizer, Tokenizer

SPECIAL = ["<s>", "</s>", "[CLS]", "<|end▁of|>", "a.b*c"]
LETTERS = [*"<>/s[]CLS|end▁of_xy.b*ca", "▁", "▁x", "▁y"]
PIECES = list(dict.fromkeys(["<unk>", *SPECIAL, *LETTERS]))
TEXTS = ["x <s>x</s> y", "<s>", "[CLS]x[CLS]", "x<|end▁of|>", "a.b*c a.b*c y", "x y"]


def unigram():
    # a special token is the likeliest of all pieces, as SentencePiece writes it
    scores = [(piece, 0.0 if piece in SPECIAL else -3.0) for piece in PIECES]
    return models.Unigram(scores, unk_id=0), pre_tokenizers.Metaspace()


def word_level():
    words = {piece: i for i, piece in enumerate(PIECES)}
    return models.WordLevel(words, unk_token="<unk>"), pre_tokenizers.WhitespaceSplit()


def word_piece():
    words = [*PIECES, *(f"##{piece}" for piece in LETTERS)]
    vocabulary = {piece: i for i, piece in enumerate(words)}
    return models.WordPiece(vocabulary, unk_token="<unk>"), pre_tokenizers.WhitespaceSplit()


def ignored_merges():
    words = {piece: i for i, piece in enumerate(PIECES)}
    model = models.BPE(words, [], unk_token="<unk>", ignore_merges=True)
    return model, pre_tokenizers.WhitespaceSplit()


MODELS = {each.__name__: each for each in (unigram, word_level, word_piece, ignored_merges)}


def tokenizer_of(kind):
    model, splitter = MODELS[kind]()
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = splitter
    backend.add_special_tokens([AddedToken(x, normalized=False) for x in ["<unk>", *SPECIAL]])
    return FastTokenizer(backend, start_token="<s>")


@pytest.mark.parametrize("kind", MODELS)
def test_no_text_becomes_a_special_token(kind):
    tokenizer = tokenizer_of(kind)
    special = set(range(1, 1 + len(SPECIAL)))
    plain = tokenizer.backend
    # what this is about: without care, text does become a special token
    assert any(special & set(plain.encode(t, add_special_tokens=False).ids) for t in TEXTS)
    for each in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        found = each.encode_batch(TEXTS)
        assert not [ids for ids in found if special & set(ids.tolist())]
    # the other texts are encoded as ever
    assert found[-1].tolist() == plain.encode("x y", add_special_tokens=False).ids


def test_only_what_is_spelled_is_split():
    tokenizer = tokenizer_of("unigram")
    tokens = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode_batch(["x <s> y"])[0]]
    assert tokens == ["▁x", "▁", "<", "s", ">", "▁y"]


def test_a_special_token_of_one_character_is_refused_by_name():
    backend = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "§": 1, "x": 2}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["§"])
    tokenizer = FastTokenizer(backend)
    with pytest.raises(ValueError, match="spells the special token '§'.* begins with 'x § x'"):
        tokenizer.encode_batch(["x x", "x § x"])


@pytest.mark.parametrize("kind", [TextData, StreamedText])
def test_a_document_that_spells_the_separator_stays_one(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PILE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text("x y x y" + " x" * number)
        (folder / f"struck{number}.txt").write_text("y " * number + "y <s>x</s> y <s> y y")
    tokenizer_of("unigram").save(tmp_path / "tokenizer.json")
    data = kind(
        str(folder),
        tokenizer=str(tmp_path / "tokenizer.json"),
        seq_len=32,
        batch_size=4,
        num_proc=1,
        **({"num_lanes": 4} if kind is StreamedText else {}),
    )
    data.prepare_data()
    data.setup("fit")
    struck = data.tokenizer.encode_batch(["y <s>x</s> y <s> y y"])[0].tolist()
    loaders = [data.train_dataloader(), data.val_dataloader()]
    rows = [
        row
        for loader in loaders
        for _, batch in zip(range(20), loader, strict=False)
        for row in batch["input_ids"].tolist()
    ]
    assert any(struck == row[i : i + len(struck)] for row in rows for i in range(len(row)))


def save_folder(folder, *, bos=None, eos=None, template=None):
    folder.mkdir()
    backend = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<|bos|>", "<eod>"])
    if template:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{template} $A", special_tokens=[(template, backend.token_to_id(template))]
        )
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({"bos": "<|bos|>", "eos": "<eod>"}, "<|bos|>"),
        ({"eos": "<eod>"}, "<eod>"),
        ({"bos": "<|bos|>", "template": "<eod>"}, "<eod>"),
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_document_opens_as_the_folder_says(tmp_path, settings, start, as_file):
    folder = save_folder(tmp_path / "model", **settings)
    tokenizer = load_tokenizer(str(folder / "tokenizer.json" if as_file else folder))
    assert tokenizer.backend.id_to_token(tokenizer.start_id) == start
    assert tokenizer.vocab_size == 5  # no id was added
    tokenizer.save(tmp_path / "tokenizer.json")  # as a run's folder has it
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.start_id, again.vocab_size) == (tokenizer.start_id, 5)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.json", b"[1]"),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b"\xff"),
        ("special_tokens_map.json", b"{"),
    ],
)
def test_a_broken_file_of_the_folder_is_one_line_with_its_path(tmp_path, file, content):
    folder = save_folder(tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=file) as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)


def test_the_map_of_special_tokens_names_the_start_too(tmp_path):
    folder = save_folder(tmp_path / "model")
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<eod>"}}')
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.backend.id_to_token(tokenizer.start_id) == "<eod>"


def test_a_folder_without_a_fast_tokenizer_is_one_too(tmp_path):
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path / "model")
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    assert (tokenizer.start_id, tokenizer.vocab_size) == (1, 384)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    for each in (tokenizer, pickle.loads(pickle.dumps(tokenizer)), again):
        ids = each.encode_batch(["a</s>é"])[0]
        assert ids.tolist() == [b + 3 for b in "a</s>é".encode()]
        assert each.decode([1, *ids.tolist()]) == "a</s>é"
    assert again.fingerprint() == tokenizer.fingerprint()


def test_a_saved_python_tokenizer_writes_nothing_outside(tmp_path):
    files = {"../evil.json": "e30="}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": "transformers", "files": files}))
    with pytest.raises(ValueError, match="not a plain file name"):
        Tokenizer.load(path)
