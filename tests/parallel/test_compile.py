"""Compilation is announced where it cannot be, and leaves the names of weights alone."""

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from pile_lightning.nn import DecoderConfig
from pile_lightning.parallel import compile_blocks, why_not_compile


def make_network():
    return DecoderConfig(d_model=32, num_layers=3).build(vocab_size=17, max_seq_len=8)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that has what compilation needs."""
    (tmp_path / "Python.h").touch()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    return monkeypatch


def test_a_whole_machine_lacks_nothing(machine):
    assert why_not_compile() is None


@pytest.mark.parametrize(
    ("platform", "named", "compiler"),
    [("linux", None, "g++"), ("darwin", None, "clang++"), ("linux", "my-c++", "my-c++")],
)
def test_a_missing_compiler_is_named(machine, platform, named, compiler):
    machine.setattr(sys, "platform", platform)
    machine.setattr(shutil, "which", lambda name: None)
    if named:
        machine.setenv("CXX", named)
    reason = why_not_compile()
    assert f"no C++ compiler ({compiler}) was found" in reason
    assert "install one, or name it in CXX" in reason


def test_missing_headers_are_named(machine, tmp_path):
    Path(tmp_path, "Python.h").unlink()
    reason = why_not_compile()
    assert reason.startswith(f"{tmp_path / 'Python.h'} is missing; install")


@pytest.fixture
def compiled(monkeypatch):
    """The modules that were compiled: by a compiler that runs them as they are."""
    modules = []
    compile_in_place = nn.Module.compile

    def note(self, *args, **kwargs):
        modules.append(self)
        compile_in_place(self, *args, **{**kwargs, "backend": "eager"})

    monkeypatch.setattr(nn.Module, "compile", note)
    return modules


# the compiler looks at attributes that warn of it
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_each_block_is_compiled_once_and_nothing_is_renamed(compiled):
    network, plain = make_network(), make_network()
    names = list(network.state_dict())
    compile_blocks(network)
    assert compiled == list(network.blocks)
    assert list(network.state_dict()) == names
    plain.load_state_dict(network.state_dict())
    ids = torch.arange(8)[None]
    torch.testing.assert_close(network(ids), plain(ids))


def test_a_network_without_blocks_is_compiled_whole(compiled):
    network = nn.Sequential(nn.Linear(2, 2))
    compile_blocks(network)
    assert compiled == [network]
    assert list(network.state_dict()) == ["0.weight", "0.bias"]


def test_what_is_called_blocks_and_is_no_list_of_them_is_left_alone(compiled):
    network = nn.Linear(2, 2)
    network.blocks = 4
    compile_blocks(network)
    assert compiled == [network]
