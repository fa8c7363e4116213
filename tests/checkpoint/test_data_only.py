"""Checkpoints are data from wherever they come: reading one runs nothing, or is refused."""

import functools
import http.server
import os
import threading

import fsspec
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pile_lightning import CausalLM, DecoderConfig, Environment
from pile_lightning.checkpoint import (
    AtomicCheckpointIO,
    check_readable,
    read_checkpoint,
    save_shards,
    write_checkpoint,
)
from pile_lightning.checkpoint.manifest import Manifest
from pile_lightning.cli.runs import newest_checkpoint

CONFIG = DecoderConfig(d_model=16, num_layers=1)


class Evil:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


class Strange:
    """Of a class that nobody allowed."""


@pytest.fixture
def ran(tmp_path):
    """What exists once code was run."""
    return tmp_path / "ran"


def saved(path, **more):
    """Save what Lightning's own writer saves for a small model."""
    model = CausalLM(CONFIG, vocab_size=8, max_seq_len=4)
    state = {
        "state_dict": {f"network.{k}": v for k, v in model.built_network.state_dict().items()},
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.6.6",
    }
    TorchCheckpointIO().save_checkpoint(state | more, path)
    return model


@pytest.fixture
def server(tmp_path):
    """An http address of the folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *words: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def addresses(folder, server, name="last.ckpt"):
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{name}", (folder / name).read_bytes())
    where = [f"{server}/{name}", f"memory://{name}", f"file://{folder}/{name}"]
    return [
        *where,
        *(url.replace(url.split("://")[0], url.split("://")[0].upper()) for url in where),
    ]


def test_no_address_runs_code(tmp_path, ran, server, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    saved(tmp_path / "last.ckpt", evil=Evil(ran))
    for kind in (CausalLM, Environment):
        for address in [tmp_path / "last.ckpt", *addresses(tmp_path, server)]:
            for more in ({}, {"weights_only": False}):
                with pytest.raises(ValueError, match="only tensors and plain data") as caught:
                    kind.load_from_checkpoint(address, **more)
                assert "\n" not in str(caught.value)
                assert "weights_only" not in str(caught.value)
    with (tmp_path / "last.ckpt").open("rb") as file, pytest.raises(ValueError, match="holds "):
        CausalLM.load_from_checkpoint(file)
    for address in addresses(tmp_path, server):
        with pytest.raises(ValueError, match=r"holds \w+\.system"):
            AtomicCheckpointIO().load_checkpoint(address, weights_only=False)
    assert not ran.exists()


def test_every_address_gives_the_same_model(tmp_path, server):
    model = saved(tmp_path / "last.ckpt")
    for address in [tmp_path / "last.ckpt", *addresses(tmp_path, server)]:
        found = CausalLM.load_from_checkpoint(address, strict=True, z_loss=0.5)
        assert (found.network_config, found.z_loss) == (CONFIG, 0.5)
        for name, value in model.built_network.state_dict().items():
            assert torch.equal(found.built_network.state_dict()[name], value)


def test_what_cannot_be_opened_is_one_line(tmp_path, server):
    for address, kind in {
        f"{server}/none.ckpt": FileNotFoundError,
        "memory://none.ckpt": FileNotFoundError,
        f"file://{tmp_path}/none.ckpt": FileNotFoundError,
        "nonsense://none.ckpt": ValueError,
        "http://127.0.0.1:9/last.ckpt": OSError,
    }.items():
        with pytest.raises(kind) as caught:
            read_checkpoint(address)
        assert address in str(caught.value) or "none.ckpt" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02]q\x00.", b"words", b"\0" * 64])
def test_what_is_no_checkpoint_is_one_line(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="last.ckpt ") as caught:
        CausalLM.load_from_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_dict_is_no_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="holds a list and no checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_auto_passes_over_a_whole_checkpoint_that_holds_more_than_data(tmp_path, ran):
    folder = tmp_path / "checkpoints"
    write_checkpoint({"global_step": 1, "state_dict": {}}, folder / "step-1.ckpt")
    write_checkpoint({"global_step": 2, "evil": Evil(ran)}, folder / "step-2.ckpt")
    write_checkpoint({"global_step": 3, "strange": Strange()}, folder / "step-3.ckpt")
    with pytest.warns(UserWarning, match=r"passing over .*Strange.*system"):
        assert newest_checkpoint(tmp_path) == folder / "step-1.ckpt"
    assert not ran.exists()
    check_readable(folder / "step-1.ckpt")


def test_a_folder_names_no_file_outside_of_it(tmp_path):
    save_shards({"state_dict": {"a": torch.ones(2)}}, tmp_path / "last.ckpt")
    manifest = Manifest.read(tmp_path / "last.ckpt")
    (name,) = [each for each in manifest.files if each.endswith("safetensors")]
    (tmp_path / "outside.safetensors").write_bytes((tmp_path / "last.ckpt" / name).read_bytes())
    (tensor,) = manifest.tensors.values()
    object.__setattr__(tensor.chunks[0], "file", "../outside.safetensors")
    manifest.write(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"damaged: .*outside.safetensors"):
        read_checkpoint(tmp_path / "last.ckpt")
    manifest.files["../outside.safetensors"] = manifest.files[name]
    manifest.write(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="not a plain file name"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_code_in_a_folder_is_not_run(tmp_path, ran):
    save_shards({"state_dict": {"a": torch.ones(2)}, "evil": Evil(ran)}, tmp_path / "last.ckpt")
    for read in (read_checkpoint, check_readable, CausalLM.load_from_checkpoint):
        with pytest.raises(ValueError, match=r"plain.pt holds \w+\.system"):
            read(tmp_path / "last.ckpt")
    assert not ran.exists()


def test_what_a_checkpoint_names_as_its_maker_is_not_called(tmp_path):
    settings = dict(CausalLM(CONFIG, vocab_size=8, max_seq_len=4).hparams)
    called = {"_instantiator": "os.system", "_class_path": "a.B"}
    model = saved(
        tmp_path / "last.ckpt", hyper_parameters=settings | called, hparams_type="os.system"
    )
    found = CausalLM.load_from_checkpoint(tmp_path / "last.ckpt")
    assert found.hparams == model.hparams
