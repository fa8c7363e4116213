"""A sharded checkpoint alone: what it holds comes back, and what does not fit is named."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pile_lightning.checkpoint import load_shards, read_whole, save_shards
from pile_lightning.checkpoint.chunks import Box, assign_writers, check_cover
from pile_lightning.checkpoint.safetensors_file import DTYPES


def same_bits(one, two):
    bits = [each.contiguous().reshape(-1).view(torch.uint8) for each in (one, two)]
    return (one.dtype, one.shape) == (two.dtype, two.shape) and torch.equal(*bits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 5)], ids=str)
def test_every_type_and_shape_comes_back(tmp_path, dtype, shape):
    values = [torch.randn(shape).mul(9).to(dtype), torch.randn(4, 5).mul(9).to(dtype).t()]
    save_shards({"x": values}, tmp_path / "c")
    filled = {"x": [torch.zeros_like(value) for value in values]}
    load_shards(filled, tmp_path / "c")
    for state in (filled, read_whole(tmp_path / "c")):
        assert all(map(same_bits, state["x"], values))


def test_values_keep_their_kinds(tmp_path):
    plain = {
        "none": None,
        "words": ["a", "b"],
        3: {"pair": (1, 2.5)},
        "big": 2**80,
        "infinite": float("inf"),
        "flags": {True: 1},
        "empty": [{}, []],
        "size": torch.Size([1, 2]),
    }
    save_shards({"plain": plain, "x": torch.ones(1)}, tmp_path / "c")
    assert read_whole(tmp_path / "c")["plain"] == plain
    assert read_whole(tmp_path / "c", without=["plain"]).keys() == {"x"}


def test_loading_fills_tensors_in_place_and_replaces_values(tmp_path):
    saved = {
        "model": {"w": torch.ones(2)},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.95), "params": [0, 1]}],
        "other": torch.ones(1),
    }
    save_shards(saved, tmp_path / "c")
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    state = {
        "model": {"w": weight},
        "groups": [{"lr": 1.0, "betas": (0.5, 0.5), "params": [0, 1]}],
    }
    load_shards(state, tmp_path / "c")
    assert state["model"]["w"] is weight
    assert weight.tolist() == [1, 1]
    assert state["groups"] == saved["groups"]


SAVED = {"model": {"w": torch.ones(2, 3), "b": torch.ones(2)}, "lr": 0.1}
MISFITS = {
    "a tensor that the checkpoint lacks": (
        {"model": {**SAVED["model"], "more": torch.ones(1)}},
        r"c lacks model/more; load it with the network and optimizer",
    ),
    "a tensor that the model has not": (
        {"model": {"w": torch.ones(2, 3)}},
        r"c has what the model or its optimizer has not: model/b; load it",
    ),
    "another shape": (
        {"model": {"w": torch.ones(3, 2), "b": torch.ones(2)}},
        r"model/w is \(3, 2\) here and \(2, 3\) in .*c; load it with the network",
    ),
    "a value that the checkpoint lacks": ({"eps": 0.1}, r"the checkpoint has no eps; give"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_named(tmp_path, misfit):
    state, message = MISFITS[misfit]
    save_shards(SAVED, tmp_path / "c")
    with pytest.raises(ValueError, match=message):
        load_shards(state, tmp_path / "c")


def test_what_cannot_be_saved_is_named(tmp_path):
    for state, message in (
        ({"x": torch.ones(2, dtype=torch.complex64)}, r"x is of torch.complex64, .* save it as"),
        ({"x": {(1, 2): torch.ones(2)}}, r"x has the key \(1, 2\) of type tuple"),
        ({"x": (torch.ones(2),)}, r"x is a tuple that holds tensors.* make it a list"),
    ):
        with pytest.raises(TypeError, match=message):
            save_shards(state, tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_nothing_in_the_folder_needs_a_pickle_that_runs_code(tmp_path):
    save_shards(SAVED, tmp_path / "c")
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == ["COMPLETE", "manifest.json", "plain.pt", "rank-00000.safetensors"]
    tensors = load_file(tmp_path / "c" / "rank-00000.safetensors")  # the library reads ours
    assert torch.equal(tensors["0:model/w"], SAVED["model"]["w"])
    assert torch.load(tmp_path / "c" / "plain.pt", weights_only=True)["lr"] == 0.1
    summary = json.loads((tmp_path / "c" / "manifest.json").read_text())["summary"]
    assert summary.keys() == {"step", "saved_at", "save_number"}


def test_replicas_share_the_writing():
    whole, half = Box((0,), (8,)), Box((0,), (4,))
    held = [[whole, whole, None, half], [whole, whole, whole, None]]
    writers = assign_writers(held, [4, 4, 4, 4])
    assert writers == [{whole: 0}, {whole: 1}, {whole: 1}, {half: 0}]


@pytest.mark.parametrize(
    "boxes",
    [
        [Box((0, 0), (2, 3))],
        [Box((0, 0), (2, 3)), Box((1, 0), (2, 3))],
        [Box((0, 0), (2, 3)), Box((3, 0), (1, 3)), Box((0, 0), (1, 3))],
        [],
    ],
    ids=["a part is missing", "parts overlap", "a part twice", "none"],
)
def test_parts_that_are_no_whole_are_refused(boxes):
    check_cover("w", (4, 3), [Box((0, 0), (2, 3)), Box((2, 0), (2, 3))])
    with pytest.raises(ValueError, match=r"hold \d parts of w, which do not make up .*\(4, 3\)"):
        check_cover("w", (4, 3), boxes)
